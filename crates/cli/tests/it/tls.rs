//! Tests of `systole serve` with TLS, with clients in C and Python and bare sockets.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use systole_net::tls::Pin;

use crate::gateway::{Gateway, ONE_SECOND, wait};
use crate::outside::{Outside, STAYS};
use crate::{directory, snapshot, systole};

/// An authority, whose certificate is `ca.pem` in a directory of its own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(directory: &Path) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("the parameters are legal");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(
            params,
            KeyPair::generate().expect("the parameters are legal"),
        )
        .expect("the parameters are legal");
        fs::write(directory.join("ca.pem"), issuer.pem()).expect("it is writable");
        Authority(issuer)
    }

    /// Writes a certificate for `name` and its key.
    pub(crate) fn sign(&self, directory: &Path, name: &str) {
        let key = KeyPair::generate().expect("the parameters are legal");
        let mut params =
            CertificateParams::new(vec![name.to_owned()]).expect("the parameters are legal");
        // Otherwise it is called as its authority is, and passes for its own.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).expect("the parameters are legal");
        fs::write(directory.join("cert.pem"), certificate.pem()).expect("it is writable");
        fs::write(directory.join("key.pem"), key.serialize_pem()).expect("it is writable");
    }
}

/// [`ONE_SECOND`] with TLS, from the files of `folder`, at the first listener: the native one.
pub(crate) fn with_tls(folder: &Path) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let tls = format!("[[listener]]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    ONE_SECOND.replacen("[[listener]]\n", &tls, 1)
}

fn python(name: &str) -> impl Iterator<Item = Outside> {
    Outside::all(name).into_iter().filter(|outside| outside.label() == "native in Python")
}

#[test]
fn clients_meet_certificates_that_change_while_they_are_online() {
    for outside in Outside::over_tls("serve-tls-build") {
        let folder = directory("serve-tls-files");
        let authority = Authority::new(&folder);
        authority.sign(&folder, "one.test");
        let mut gateway = Gateway::start("serve-tls", &with_tls(&folder));
        let (port, roots) = (gateway.port("native"), folder.join("ca.pem"));
        let client = |name: &str, more: &[&str]| {
            let args = ["client", "127.0.0.1", &port, "--tls", roots.to_str().unwrap()];
            outside.start(&[&args[..], &["--name", name], more].concat())
        };
        let data = ["--data", "hello there", "--expect-echo", "--pings", "3", "--every", "20"];
        let mut first = client("one.test", &[&data[..], &["--stay", "3000"]].concat());
        first.until("TLSv1.3 with one.test");
        first.until("received PONG 3");
        authority.sign(&folder, "two.test");
        gateway.program.signal("HUP");
        gateway.log("the certificates are in force");
        let mut second = client("two.test", &[&data[..], &["--identity", "second"]].concat());
        second.until("TLSv1.3 with two.test");
        assert_eq!(second.end(), 0, "{:?}", second.seen);
        // Longer than the bound: it was probed, and answered, over the old certificate.
        assert_eq!(first.end(), 0, "{:?}", first.seen);
        assert!(first.seen.iter().any(|line| line.starts_with("received PING 1")));
        let mut stranger = client("one.test", &[]);
        assert_eq!(stranger.end(), 1, "the certificate is for another name now");
        stranger.stderr_after("certificate verify failed");
    }
}

#[test]
fn the_subject_of_a_certificate_is_the_identity_and_no_other_claim_stands() {
    for outside in python("serve-tls-subject-build") {
        let folder = directory("serve-tls-subject-files");
        let authority = Authority::new(&folder);
        authority.sign(&folder, "device-7");
        let both = ["cert.pem", "key.pem"].map(|file| fs::read(folder.join(file)).unwrap());
        fs::write(folder.join("device.pem"), both.concat()).unwrap();
        authority.sign(&folder, "one.test");
        let roots = folder.join("ca.pem").display().to_string();
        let more = format!("client_roots = {roots:?}\nclient_identity = \"subject\"\n");
        let config = with_tls(&folder).replacen("key = ", &format!("{more}key = "), 1);
        let gateway = Gateway::start("serve-tls-subject", &config);
        let (port, device) = (gateway.port("native"), folder.join("device.pem"));
        let client = |identity: &str| {
            let device = device.to_str().unwrap();
            let args = ["client", "127.0.0.1", &port, "--tls", &roots, "--name", "one.test"];
            let more = [&["--cert", device, "--identity", identity], &STAYS[..]].concat();
            outside.start(&[&args[..], &more].concat())
        };
        let mut nobody = client("");
        nobody.until("TLSv1.3");
        wait("the identity of the certificate", || {
            let page = gateway.get("/api/v1/sessions?identity=device-7");
            (page["sessions"].as_array()?.len() == 1).then_some(())
        });
        let mut liar = client("device-8");
        liar.until("CLOSE 4 (unauthorized) flags 1");
        wait("the refusal", || {
            let page = gateway.get("/api/v1/verdicts?established=false&cause=protocol");
            let ends = page["verdicts"].as_array()?.clone();
            let why = "claimed another identity than it has proved";
            ends.into_iter().find(|end| end["detail"] == why)
        });
        let mut same = client("device-7");
        same.until("TLSv1.3");
        nobody.until("received CLOSE 5 (replaced) flags 1");
        let page = gateway.get("/api/v1/sessions?identity=device-7");
        assert_eq!(page["sessions"].as_array().unwrap().len(), 1, "the newer login");
    }
}

/// Runs `ping` with these options for one heartbeat; returns what it shows.
fn ping(gateway: &Gateway, listener: &str, args: &[&str]) -> String {
    let addr = gateway.address(listener).to_string();
    let args = [&["ping", &addr, "--count", "1"][..], args].concat();
    snapshot(&mut systole(Path::new("."), &args))
}

#[test]
fn ping_believes_whom_it_is_told_to_and_says_whom_it_does_not() {
    let folder = directory("serve-tls-ping-files");
    Authority::new(&folder).sign(&folder, "one.test");
    let gateway = Gateway::start("serve-tls-ping", &with_tls(&folder));
    let roots = folder.join("ca.pem").display().to_string();
    let certificate = fs::read(folder.join("cert.pem")).unwrap();
    let certificate = CertificateDer::from_pem_slice(&certificate).unwrap();
    let pin = Pin::of(&certificate).unwrap().hex();
    for (args, expected) in [
        (&["--ca", &roots, "--tls-name", "one.test"][..], "exit 0"),
        (&["--pin", &pin], "exit 0"),
        (&["--insecure"], "exit 0"),
        (&["--ca", &roots], "hint: \"127.0.0.1\" was expected; --tls-name"),
        (
            &["--ca", &roots, "--tls-name", "two.test"],
            "connected, but the server's certificate is for other names than the expected one\n\
             hint: \"two.test\" was expected; --tls-name expects another name\n",
        ),
        (
            &["--pin", &"0".repeat(64)],
            "the server's certificate has another key than the pinned one\nhint: was the key",
        ),
        (&["--pin", "12"], "64 hexadecimal digits"),
        (&["--ca", "none.pem"], "none.pem"),
        (&["--tls-name", "a b", "--ca", &roots], "no certificate can name this host"),
    ] {
        let shown = ping(&gateway, "native", args);
        assert!(shown.contains(expected), "{args:?}: {shown}");
    }
    // Whoever does not believe the gateway tells it so.
    wait("the refusal", || {
        let page = gateway.get("/api/v1/verdicts?established=false&cause=protocol");
        let ends = page["verdicts"].as_array()?.clone();
        ends.into_iter().find(|end| end["detail"] == "refused our TLS")
    });
    let shown = ping(&gateway, "line", &["--codec", "line", "--insecure"]);
    assert!(shown.starts_with("exit 1"), "{shown}");
    let shown = ping(&gateway, "native", &[]);
    assert!(shown.contains("spoke TLS where it is not spoken"), "{shown}");
}

#[test]
fn ping_believes_a_certificate_that_signs_itself_and_says_what_is_wrong_with_others() {
    let folder = directory("serve-tls-itself-files");
    // As `openssl req -x509` makes it: that of an authority.
    let sign = |name: &str, is_over: bool| {
        let names = if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
        let mut params = CertificateParams::new(names).expect("the parameters are legal");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        if is_over {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("the parameters are legal");
        let certificate = params.self_signed(&key).expect("the parameters are legal");
        fs::write(folder.join("cert.pem"), certificate.pem()).expect("it is writable");
        fs::write(folder.join("key.pem"), key.serialize_pem()).expect("it is writable");
    };
    let own = folder.join("cert.pem").display().to_string();
    let other = folder.join("other.pem").display().to_string();
    let mut run = 0;
    let mut shown = |ca: &str| {
        run += 1;
        let gateway = Gateway::start(&format!("serve-tls-itself-{run}"), &with_tls(&folder));
        ping(&gateway, "native", &["--ca", ca])
    };
    sign("127.0.0.1", false);
    fs::copy(&own, &other).unwrap();
    let it = shown(&own);
    assert!(it.starts_with("exit 0"), "{it}");
    sign("127.0.0.1", false);
    let it = shown(&other);
    let expected = "certificate is that of an authority, which is none for a server\nhint: give";
    assert!(it.contains(expected), "{it}");
    sign("", false);
    let it = shown(&own);
    assert!(it.contains("hint: make it with -addext subjectAltName=IP:127.0.0.1"), "{it}");
    sign("127.0.0.1", true);
    let it = shown(&own);
    assert!(it.contains("certificate has expired\nhint: it needs a new one, or the clock"), "{it}");
}

#[test]
fn ping_that_speaks_tls_to_whom_speaks_none_is_told_so() {
    let gateway = Gateway::start("serve-no-tls", ONE_SECOND);
    for listener in ["native", "message1028"] {
        let codec = ["--codec", listener, "--insecure"];
        let shown = ping(&gateway, listener, &codec);
        let hint = "hint: the server may speak no TLS on this port";
        assert!(shown.contains(hint) && !shown.contains("is this a systole"), "{shown}");
    }
}

#[test]
fn plain_bytes_at_tls_and_tls_at_a_plain_listener_end_at_once_with_their_cause() {
    let folder = directory("serve-tls-plain-files");
    Authority::new(&folder).sign(&folder, "one.test");
    let gateway = Gateway::start("serve-tls-plain", &with_tls(&folder));
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    for (listener, said, answer, cause) in [
        ("native", &b"ping\nping\n"[..], 0x15, "no TLS where it is spoken"),
        ("message1028", &hello[..], 0, "TLS where it is not spoken"),
        ("line", &hello[..], 0, "TLS where it is not spoken"),
    ] {
        let mut stream: TcpStream = gateway.connect(listener);
        stream.write_all(said).unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        // TLS has an alert for it; the other protocols have no answer to illegal bytes.
        assert_eq!(heard.first().copied().unwrap_or(0), answer, "{listener}");
        wait(cause, || {
            let page = gateway.get("/api/v1/verdicts?established=false&cause=protocol");
            let ends = page["verdicts"].as_array()?.clone();
            ends.into_iter().find(|end| {
                end["listener"] == listener && end["detail"].as_str().unwrap().contains(cause)
            })
        });
    }
}

#[test]
fn a_start_and_a_check_show_the_certificates_and_warn_of_those_out_of_date() {
    let folder = directory("serve-tls-shown");
    for (years, expected) in [
        ((2020, 2999), None),
        ((2020, 2021), Some("the certificate has expired on 2021-12-27: clients refuse it")),
        ((2998, 2999), Some("the certificate is not valid before 2998-12-27: clients refuse it")),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 12, 27);
        params.not_after = rcgen::date_time_ymd(years.1, 12, 27);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        let mut gateway = Gateway::start("serve-tls-shown-gateway", &with_tls(&folder));
        let line = gateway.log("TLS");
        assert_eq!((&line["listener"], &line["names"]), (&"native".into(), &"a.test".into()));
        assert_eq!(line["until"], format!("{}-12-27", years.1));
        let level = if expected.is_some() { "WARN" } else { "INFO" };
        assert_eq!(line["level"], level, "{line}");
        assert!(line["message"].as_str().unwrap().ends_with(expected.unwrap_or("TLS")), "{line}");
        let file = gateway.file("systole.toml").display().to_string();
        let checked = snapshot(&mut systole(&folder, &["check", "--config", &file]));
        let shown = format!("\nnative has TLS: a.test, until {}-12-27\n", years.1);
        assert!(checked.contains(&shown), "{checked}");
        let warning = expected.map(|why| format!("warning: native: {why}\n"));
        assert_eq!(checked.contains("warning: native"), warning.is_some(), "{checked}");
        assert!(checked.contains(&warning.unwrap_or_default()), "{checked}");
        gateway.end();
    }
}

#[test]
fn the_admin_interface_speaks_tls_and_its_certificate_changes_at_a_reload() {
    let folder = directory("serve-tls-admin-files");
    Authority::new(&folder).sign(&folder, "127.0.0.1");
    let file = |name: &str| folder.join(name).display().to_string();
    let (certificate, key, roots) = (file("cert.pem"), file("key.pem"), file("ca.pem"));
    let tls = format!("[admin]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let mut gateway = Gateway::start("serve-tls-admin", &ONE_SECOND.replacen("[admin]\n", &tls, 1));
    let why = |gateway: &Gateway, scheme: &str, args: &[&str]| {
        let admin = format!("{scheme}{}", gateway.admin());
        let args = [&["why", "0000000000000001", "--admin", &admin][..], args].concat();
        snapshot(&mut systole(Path::new("."), &args))
    };
    let found = "0000000000000001 is not online";
    for (scheme, args, expected) in [
        ("https://", &["--ca", &roots][..], found),
        ("https://", &["--insecure"], found),
        ("https://", &[], "--ca names who vouches"),
        ("http://", &[], "this port speaks TLS\nhint: use https://"),
    ] {
        let shown = why(&gateway, scheme, args);
        assert!(shown.contains(expected), "{scheme} {args:?}: {shown}");
    }
    // Another authority, which alone vouches for the new certificate.
    Authority::new(&folder).sign(&folder, "127.0.0.1");
    let shown = why(&gateway, "https://", &["--ca", &roots]);
    assert!(shown.contains("--ca names who vouches"), "{shown}");
    gateway.program.signal("HUP");
    gateway.log("the certificates are in force");
    gateway.log("the configuration is in force");
    let shown = why(&gateway, "https://", &["--ca", &roots]);
    assert!(shown.contains(found), "{shown}");
}
