//! Tests of `systole serve` with tokens that PyJWT has made, and clients that log in with them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use systole_net::Clock;

use crate::gateway::{Gateway, ONE_SECOND, unhurried, wait};
use crate::outside::{Outside, SOURCES, STAYS, is_required};
use crate::program::Program;
use crate::tls::{Authority, with_tls};
use crate::{directory, snapshot, systole};

/// An issuer of tokens in Python, and a client in Python that shows them.
struct Issuer {
    python: &'static str,
    folder: PathBuf,
    client: Outside,
}

impl Issuer {
    /// Returns an issuer with new keys in a directory called `name`; `None` where there is no
    /// PyJWT, or no Python.
    fn new(name: &str) -> Option<Issuer> {
        let script = Path::new(SOURCES).join("issuer.py");
        let has_jwt = |python: &&&str| {
            let probe = Command::new(python).arg(&script).arg("probe").output();
            probe.is_ok_and(|probe| probe.status.success())
        };
        // That of Debian's packages is not always the first one in the path.
        let python = ["python3", "/usr/bin/python3"].iter().find(has_jwt);
        assert!(python.is_some() || !is_required(), "PyJWT is missing");
        let Some(python) = python else {
            eprintln!("skipped: PyJWT is missing");
            return None;
        };
        let all = Outside::all(&format!("{name}-build"));
        let client = all.into_iter().find(|outside| outside.label() == "native in Python")?;
        let folder = directory(&format!("{name}-keys"));
        let issuer = Issuer { python, folder, client };
        issuer.run(&["keys", "."]);
        Some(issuer)
    }

    fn run(&self, args: &[&str]) -> String {
        let script = Path::new(SOURCES).join("issuer.py");
        let mut command = Command::new(self.python);
        command.arg(script).args(args).current_dir(&self.folder);
        let done = command.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("a token is ASCII").trim().to_owned()
    }

    /// Signs claims with a key of this issuer.
    fn sign(&self, algorithm: &str, claims: &Value) -> String {
        let (key, kid) = match algorithm {
            "HS256" => ("hs256.secret", None),
            "EdDSA" => ("eddsa.key", Some("eddsa")),
            _ => ("es256.key", Some("es256")),
        };
        let claims = claims.to_string();
        self.run(&[&["sign", algorithm, key, &claims][..], &Vec::from_iter(kid)].concat())
    }

    /// Starts a client that claims `identity` and shows `token`.
    fn client(&self, gateway: &Gateway, identity: &str, token: &str, more: &[&str]) -> Program {
        let port = gateway.port("native");
        let args = ["client", "127.0.0.1", &port, "--identity", identity, "--token", token];
        self.client.start(&[&args[..], more].concat())
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A configuration whose native listener verifies tokens by these keys.
    fn config(&self, keys: &str, base: &str) -> String {
        let rules = format!(
            "[listener.tokens]\n{keys}\nissuer = \"https://id.test\"\naudience = \"game\"\n\
             [[listener]]\n"
        );
        let (before, after) = base.split_once("[[listener]]\n").expect("a listener");
        let (first, rest) = after.split_once("[[listener]]\n").expect("a second one");
        format!("{before}[[listener]]\n{first}{rules}{rest}")
    }
}

/// The present time in seconds since 1970-01-01 UTC.
fn now() -> u64 {
    Clock::start().wall_ms() / 1_000
}

fn claims() -> Value {
    json!({"sub": "ada", "iss": "https://id.test", "aud": "game", "exp": now() + 600})
}

/// Returns the claims with some of them replaced.
fn with(other: Value) -> Value {
    let mut claims = claims();
    let other = other.as_object().expect("claims").clone();
    claims.as_object_mut().expect("claims").extend(other);
    claims
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("systole_logins_refused_total{{reason=\"{reason}\"}}"))
}

#[test]
fn a_client_logs_in_with_a_token_of_each_algorithm_and_is_who_it_says() {
    let Some(issuer) = Issuer::new("tokens-good") else { return };
    let keys = format!(
        "jwks = {:?}\nsecrets = {:?}\n",
        issuer.file("set.json"),
        issuer.file("hs256.secret")
    );
    let mut gateway = Gateway::start("tokens-good", &issuer.config(&keys, &unhurried()));
    for algorithm in ["EdDSA", "ES256", "HS256"] {
        let name = format!("ada of {algorithm}");
        let token = issuer.sign(algorithm, &with(json!({"sub": name})));
        for claim in ["", &name] {
            let mut client = issuer.client(&gateway, claim, &token, &STAYS);
            client.until("welcome session");
            let page = gateway.get("/api/v1/sessions");
            let known = |session: &Value| session["identity"] == *name;
            let sessions = page["sessions"].as_array().unwrap();
            assert!(sessions.iter().any(known), "{algorithm}: {page}");
            client.signal("KILL");
        }
        // The token is good, and the claim is of another.
        let mut liar = issuer.client(&gateway, "eve", &token, &[]);
        liar.until("CLOSE 4 (unauthorized) flags 1");
    }
    let token = issuer.sign("EdDSA", &claims());
    fs::write(gateway.file("token"), format!("{token}\n")).unwrap();
    let address = gateway.address("native").to_string();
    let args = ["ping", &address, "--count", "1", "--token-file", "token"];
    let shown = snapshot(&mut systole(gateway.file("token").parent().unwrap(), &args));
    assert!(shown.starts_with("exit 0\n") && !shown.contains(&token), "{shown}");
    let shown = snapshot(systole(Path::new("."), &args[..4]).env("SYSTOLE_TOKEN", &token));
    assert!(shown.starts_with("exit 0\n") && !shown.contains(&token), "{shown}");
    gateway.program.signal("TERM");
    let signature = &token[token.len() - 40..];
    while let Some(line) = gateway.program.stderr_line() {
        assert!(!line.contains(signature), "{line}");
    }
}

#[test]
fn a_token_is_shown_over_tls_and_each_of_the_two_is_needed() {
    let Some(mut issuer) = Issuer::new("tokens-tls") else { return };
    for (place, client) in Outside::over_tls("tokens-tls-clients").into_iter().enumerate() {
        issuer.client = client;
        token_over_tls(&issuer, &format!("tokens-tls-{place}"));
    }
}

/// Lets the client of `issuer` log in over TLS, with good and bad tokens and authorities.
fn token_over_tls(issuer: &Issuer, name: &str) {
    let folder = directory(&format!("{name}-files"));
    let strange = directory(&format!("{name}-strange"));
    Authority::new(&folder).sign(&folder, "one.test");
    Authority::new(&strange);
    let keys = format!("keys = {:?}", issuer.file("eddsa.pem"));
    let gateway = Gateway::start(name, &issuer.config(&keys, &with_tls(&folder)));
    let [roots, others] = [&folder, &strange].map(|it| it.join("ca.pem").display().to_string());
    let tls = ["--tls", &roots, "--name", "one.test"];
    let over_tls = |token: &str, more: &[&str]| {
        let mut client = issuer.client(&gateway, "", token, &[&tls[..], more].concat());
        client.until("TLSv1.3 with one.test");
        client
    };
    let good = issuer.sign("EdDSA", &claims());
    let mut client = over_tls(&good, &[&["--pings", "1"], &STAYS[..]].concat());
    client.until("welcome session");
    client.until("received PONG 1");
    let page = gateway.get("/api/v1/sessions?identity=ada");
    assert_eq!(page["sessions"].as_array().map(Vec::len), Some(1), "{page}");
    let unknown = issuer.sign("ES256", &claims());
    for (token, reason) in [(unknown.as_str(), "unknown_key"), ("", "no_token")] {
        over_tls(token, &[]).until("received CLOSE 4 (unauthorized) flags 1");
        assert_eq!(refused(&gateway, reason), 1.0, "{reason}");
    }
    // A client shows its token to nobody but the host that it means.
    for tls in [["--tls", &others, "--name", "one.test"], ["--tls", &roots, "--name", "two.test"]] {
        let mut client = issuer.client(&gateway, "", &good, &tls);
        assert_eq!(client.end(), 1, "{tls:?}: {:?}", client.seen);
        client.stderr_after("certificate verify failed");
    }
    // Without TLS nobody looks at the token.
    let mut bare = issuer.client(&gateway, "", &good, &[]);
    assert_eq!(bare.end(), 1, "{:?}", bare.seen);
    assert!(!bare.seen.iter().any(|line| line.starts_with("welcome")), "{:?}", bare.seen);
}

#[test]
fn a_bad_token_gets_one_answer_whatever_is_wrong_and_the_metrics_tell() {
    let Some(issuer) = Issuer::new("tokens-bad") else { return };
    let keys = format!("keys = [{:?}, {:?}]", issuer.file("eddsa.pem"), issuer.file("es256.pem"));
    let mut gateway = Gateway::start(
        "tokens-bad",
        &issuer.config(&keys, &ONE_SECOND.replace("shards = 2", "shards = 1")),
    );
    let good = issuer.sign("EdDSA", &claims());
    let (head, _) = good.rsplit_once('.').unwrap();
    let eddsa = |other: Value| issuer.sign("EdDSA", &with(other));
    let tokens = [
        (String::new(), "no_token"),
        ("no.jwt.atall".to_owned(), "malformed"),
        ("x".repeat(1_024), "malformed"),
        (format!("{head}.{}", "A".repeat(86)), "signature"),
        (issuer.sign("HS256", &claims()), "unknown_key"),
        (eddsa(json!({"exp": now() - 3_600})), "expired"),
        (eddsa(json!({"nbf": now() + 3_600})), "not_yet_valid"),
        (eddsa(json!({"exp": null})), "malformed"),
        (eddsa(json!({"iss": "https://evil.test"})), "issuer"),
        (eddsa(json!({"aud": ["chat"]})), "audience"),
        (eddsa(json!({"sub": "x".repeat(65)})), "no_identity"),
    ];
    for (token, reason) in &tokens {
        let before = refused(&gateway, reason);
        let clock = Clock::start();
        let mut client = issuer.client(&gateway, "ada", token, &[]);
        client.until("received CLOSE 4 (unauthorized) flags 1 return-after 0 \"\"");
        assert!(clock.monotonic().as_millis() >= 250, "{reason} at once");
        assert_eq!(refused(&gateway, reason), before + 1.0, "{reason}");
    }
    let ends = "systole_strangers_total{cause=\"unauthorized\"}";
    wait("the causes", || (gateway.metric(ends) == tokens.len() as f64).then_some(()));
    gateway.log("logins were refused");
    reasons_are_shown(&mut gateway, &tokens.each_ref().map(|(_, reason)| *reason));
    gateway.ask("PUT /api/v1/log", &json!({"level": "debug"}).to_string());
    issuer.client(&gateway, "ada", &tokens[5].0, &[]).until("received CLOSE 4");
    let line = gateway.log("never a session");
    assert_eq!((&line["cause"], &line["refusal"]), (&json!("unauthorized"), &json!("expired")));
    // It is the address, and not the gateway, that was too often wrong; others may log in.
    for _ in tokens.len() + 1..20 {
        issuer.client(&gateway, "ada", "bad", &[]).until("received CLOSE 4");
    }
    let mut client = issuer.client(&gateway, "", &good, &[]);
    client.until("received CLOSE 8 (full) flags 0");
    assert_eq!(refused(&gateway, "address"), 1.0);
}

/// Fails unless the operator can see why each token was refused, in order.
fn reasons_are_shown(gateway: &mut Gateway, reasons: &[&str]) {
    let verdicts = wait("the verdicts", || {
        let page = gateway.get("/api/v1/verdicts?established=false&cause=unauthorized");
        let verdicts = page["verdicts"].as_array()?.clone();
        (verdicts.len() == reasons.len()).then_some(verdicts)
    });
    let shown = verdicts.iter().rev().map(|verdict| &verdict["refusal"]);
    assert!(shown.eq(reasons), "{verdicts:?}");
    let session = verdicts[0]["session"].as_str().expect("a text");
    let admin = format!("http://{}", gateway.admin());
    let why = snapshot(&mut systole(Path::new("."), &["why", session, "--admin", &admin]));
    let last = reasons.last().expect("there are some");
    assert!(why.contains(&format!("\nrefusal: {last}\n")), "{why}");
}

#[test]
fn a_token_gives_attributes_and_a_session_ends_with_it() {
    let Some(issuer) = Issuer::new("tokens-ends") else { return };
    let rules = "leeway = \"0s\"\nend_at_expiry = true\nattributes = [\"role\", \"vip\"]";
    let keys = format!("keys = {:?}\n{rules}", issuer.file("eddsa.pem"));
    let gateway = Gateway::start("tokens-ends", &issuer.config(&keys, &unhurried()));
    let mut events = gateway.events(None);
    events.until("live");
    let log_in = |lasts: u64| {
        let end = now() + lasts;
        let claims = json!({"exp": end, "role": "pi\u{1b}lot", "vip": true});
        let token = issuer.sign("EdDSA", &with(claims));
        let mut client = issuer.client(&gateway, "", &token, &STAYS);
        let answer = client.until_any(&["welcome session", "received CLOSE"]);
        answer.contains("welcome").then_some((client, end))
    };
    // On a busy machine a token may be over before its login.
    let (mut client, end) = [3, 6, 12, 24].into_iter().find_map(log_in).expect("a login in time");
    let joined = events.until("join").data;
    let expected = json!({"role": "pi\u{1b}lot", "vip": true});
    assert_eq!(joined["attributes"], expected, "{joined}");
    client.until("received CLOSE 4 (unauthorized) flags 0");
    assert!(now() >= end, "not before its time");
    let other = issuer.sign("EdDSA", &claims());
    issuer.client(&gateway, "", &other, &["--stay", "10"]).until("welcome session");
    wait("the verdict", || {
        let page = gateway.get("/api/v1/verdicts?identity=ada&cause=unauthorized");
        (page["verdicts"].as_array()?.len() == 1).then_some(())
    });
}

#[test]
fn ping_reads_its_token_again_before_each_login() {
    let Some(issuer) = Issuer::new("tokens-again") else { return };
    let rules = "leeway = \"0s\"\nend_at_expiry = true";
    let keys = format!("keys = {:?}\n{rules}", issuer.file("eddsa.pem"));
    let gateway = Gateway::start("tokens-again", &issuer.config(&keys, &unhurried()));
    let lasting = issuer.sign("EdDSA", &claims());
    let file = gateway.file("token");
    fs::write(&file, "bad\n").unwrap();
    let address = gateway.address("native").to_string();
    let args = ["ping", &address, "--token-file", "token", "--reconnect"];
    let mut ping = Program::start(&mut systole(file.parent().unwrap(), &args));
    let line = ping.until("not accepted: ");
    assert!(line.contains("unauthorized"), "{line}");
    ping.stderr_after("hint: the gateway's log and systole_logins_refused_total have the reason");
    let mut without = systole(file.parent().unwrap(), &["ping", &address, "--count", "1"]);
    let shown = crate::snapshot(without.env_remove("SYSTOLE_TOKEN"));
    assert!(shown.contains("\nhint: no token was shown: --token-file FILE, or set"), "{shown}");
    // The same one is of no use, and counts as nothing at the gateway.
    ping.until("token still has the token that was refused; waiting for a new one");
    assert_eq!(refused(&gateway, "malformed"), 1.0);
    fs::write(&file, format!("{lasting}\n")).unwrap();
    ping.until("answer from");
    drop(ping);
    // Long enough for a login on a busy machine.
    let end = now() + 15;
    let short = issuer.sign("EdDSA", &with(json!({"exp": end})));
    fs::write(&file, format!("{short}\n")).unwrap();
    let mut ping = Program::start(&mut systole(file.parent().unwrap(), &args));
    ping.until("answer from");
    fs::write(&file, format!("{lasting}\n")).unwrap();
    ping.until("connection lost");
    assert!(now() >= end, "not before its time");
    ping.until("connected again");
    ping.until("answer from");
    assert!(ping.seen.iter().all(|line| !line.contains(&lasting) && !line.contains(&short)));
}

#[test]
fn keys_are_read_again_and_bad_ones_change_nothing() {
    let (Some(old), Some(new)) = (Issuer::new("tokens-old"), Issuer::new("tokens-new")) else {
        return;
    };
    let config = |issuer: &Issuer| {
        issuer.config(&format!("jwks = {:?}", issuer.file("set.json")), &unhurried())
    };
    let mut gateway = Gateway::start("tokens-reload", &config(&old));
    let [first, second] = [&old, &new].map(|issuer| issuer.sign("ES256", &claims()));
    // Another identity: later logins of the same one would replace it.
    let kept = old.sign("ES256", &with(json!({"sub": "kept"})));
    let mut online = old.client(&gateway, "", &kept, &STAYS);
    online.until("welcome session");
    old.client(&gateway, "", &second, &[]).until("received CLOSE 4");
    fs::write(old.folder.join("set.json"), "{\"keys\": [").unwrap();
    gateway.program.signal("HUP");
    let line = gateway.log("set.json: it is no JSON Web Key Set");
    assert_eq!(line["level"], "ERROR", "{line}");
    gateway.log("the gateway goes on as before");
    old.client(&gateway, "", &first, &["--stay", "10"]).until("welcome session");
    gateway.rewrite(&config(&new));
    gateway.program.signal("HUP");
    // Of other settings a shard that is busy may not take one in time.
    gateway.log("the keys of tokens are in force");
    old.client(&gateway, "", &second, &["--stay", "10"]).until("welcome session");
    old.client(&gateway, "", &first, &[]).until("received CLOSE 4");
    // The session of the old token goes on.
    gateway.sessions("&identity=kept", 1);
}

#[test]
fn a_gateway_that_anybody_could_enter_from_outside_does_not_start() {
    let folder = directory("tokens-open");
    let args = ["serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"];
    let shown = snapshot(&mut systole(&folder, &args));
    let why = "anybody could log in at 0.0.0.0:0, with any identity";
    assert!(shown.starts_with("exit 2\n") && shown.contains(why), "{shown}");
    assert!(shown.contains("set --anonymous"), "{shown}");
    let token = "not.a.token".repeat(200);
    let args = ["ping", "127.0.0.1:1"];
    let shown = snapshot(systole(&folder, &args).env("SYSTOLE_TOKEN", &token));
    assert!(shown.starts_with("exit 2\n") && !shown.contains("not.a"), "{shown}");
}

#[test]
fn a_webhook_says_who_a_client_is() {
    let all = Outside::all("tokens-webhook-build");
    let Some(client) = all.into_iter().find(|it| it.label() == "native in Python") else { return };
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/connect", service.local_addr().unwrap());
    std::thread::spawn(move || answer(&service));
    let rules = format!("[listener.webhook]\nurl = {url:?}\n[[listener]]\ncodec = \"line\"\n");
    let config = unhurried().replacen("[[listener]]", "[[first]]", 1);
    let config =
        config.replacen("[[listener]]\n", &rules, 1).replacen("[[first]]", "[[listener]]", 1);
    let config = config.replacen("codec = \"message1028\"\n", "", 1);
    let config = config.replacen("codec = \"line\"", "name = \"other\"\ncodec = \"line\"", 1);
    let gateway = Gateway::start("tokens-webhook", &config);
    let login = |token: &str, more: &[&str]| {
        let port = gateway.port("native");
        let args = ["client", "127.0.0.1", &port, "--token", token];
        client.start(&[&args[..], more].concat())
    };
    let mut ada = login("ada's", &STAYS);
    ada.until("welcome session");
    let page = gateway.get("/api/v1/sessions?identity=ada");
    assert_eq!(page["sessions"][0]["attributes"], json!({"role": "pilot"}), "{page}");
    login("eve's", &[]).until("received CLOSE 4 (unauthorized) flags 1");
    login("nobody's", &[]).until("received CLOSE 8 (full) flags 0 return-after 5000");
    assert_eq!((refused(&gateway, "webhook"), refused(&gateway, "webhook_failed")), (1.0, 1.0));
    let reasons = wait("the verdicts", || {
        let page = gateway.get("/api/v1/verdicts?established=false&cause=refused");
        let mut reasons: Vec<_> = page["verdicts"]
            .as_array()?
            .iter()
            .map(|verdict| verdict["refusal"].to_string())
            .collect();
        reasons.sort();
        (reasons.len() == 2).then_some(reasons)
    });
    assert_eq!(reasons, ["\"webhook\"", "\"webhook_failed\""]);
}

/// Answers questions until the test ends.
fn answer(service: &TcpListener) {
    for stream in service.incoming() {
        let mut reader = BufReader::new(stream.expect("a connection"));
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            let lower = line.to_lowercase();
            let value = lower.strip_prefix("content-length:").map(str::trim);
            length = value.and_then(|value| value.parse().ok()).unwrap_or(length);
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        let question: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            (&question["listener"], &question["address"]),
            (&json!("native"), &json!("127.0.0.1"))
        );
        let (status, body) = match question["token"].as_str() {
            Some("ada's") => (200, json!({"identity": "ada", "attributes": {"role": "pilot"}})),
            Some("eve's") => (200, json!({"refused": "banned"})),
            _ => (500, json!({})),
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        reader.get_mut().write_all((head + &body).as_bytes()).expect("it is read");
    }
}
