//! Both ends of TLS, each with certificates of an authority of the test.

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};

use super::*;
use crate::transport::{Opened, Tls, Transport};

/// A certificate authority and what it has signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, as PEM.
struct Pair {
    chain: String,
    key: String,
}

impl Pair {
    fn identity(&self) -> Identity {
        Identity::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, name: &str) -> Pair {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem();
        Pair { chain, key: key.serialize_pem() }
    }
}

/// Carries bytes between both ends until neither has any. Returns whether both are open.
fn shake(client: &mut Tls, server: &mut Tls) -> bool {
    for _ in 0..4 {
        carry(client, server);
        carry(server, client);
    }
    client.is_open() && server.is_open() && !client.has_closed() && !server.has_closed()
}

fn carry(from: &mut Tls, to: &mut Tls) {
    let mut bytes = from.seal(&[]).to_vec();
    from.sent(bytes.len());
    let count = bytes.len();
    if count > 0 && matches!(to.open(&mut bytes, count), Opened::Illegal(_)) {
        let mut alert = to.seal(&[]).to_vec();
        to.sent(alert.len());
        let count = alert.len();
        from.open(&mut alert, count);
    }
}

fn meets(client: &ClientTls, host: &str, server: &ServerTls) -> bool {
    shake(&mut client.connect(host, &[]).unwrap(), &mut server.accept().unwrap())
}

fn shown(client: &ClientTls, host: &str, server: &ServerTls) -> Option<Pin> {
    let mut client = client.connect(host, &[]).unwrap();
    shake(&mut client, &mut server.accept().unwrap());
    Pin::of(client.peer_certificate()?)
}

fn pin(pair: &Pair) -> Pin {
    Pin::of(&certificates(pair.chain.as_bytes()).unwrap()[0]).unwrap()
}

#[test]
fn a_client_believes_whom_its_roots_vouch_for_and_nobody_else() {
    let authority = Authority::new();
    let server = ServerTls::new(vec![authority.sign("a.test").identity()], None, &[]).unwrap();
    let pem = authority.pem();
    let client = ClientTls::new(&Believe::Roots(pem.as_bytes()), None).unwrap();
    assert!(meets(&client, "a.test", &server));
    assert!(!meets(&client, "b.test", &server), "another name");
    let pem = Authority::new().pem();
    let stranger = ClientTls::new(&Believe::Roots(pem.as_bytes()), None).unwrap();
    assert!(!meets(&stranger, "a.test", &server), "another authority");
    let anyone = ClientTls::new(&Believe::Anyone, None).unwrap();
    assert!(meets(&anyone, "b.test", &server));
    assert_eq!(client.connect("no host", &[]).err(), Some(TlsError::Name));
}

/// Signs itself, as `openssl req -x509` does: the certificate of an authority, for these names.
fn signed_by_itself(change: impl Fn(&mut CertificateParams)) -> Pair {
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Pair { chain: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// Returns why a client that believes the certificates in `roots` does not believe `pair`.
fn distrust(roots: &str, host: &str, pair: &Pair) -> Option<Distrust> {
    let server = ServerTls::new(vec![pair.identity()], None, &[]).unwrap();
    let client = ClientTls::new(&Believe::Roots(roots.as_bytes()), None).unwrap();
    let mut client = client.connect(host, &[]).unwrap();
    let is_open = shake(&mut client, &mut server.accept().unwrap());
    assert_eq!(is_open, client.distrust().is_none(), "{host}");
    client.distrust()
}

#[test]
fn a_certificate_given_itself_is_believed_for_its_names_its_time_and_its_purpose_alone() {
    let own = |change: fn(&mut CertificateParams)| {
        let pair = signed_by_itself(change);
        distrust(&pair.chain, "a.test", &pair)
    };
    assert_eq!(own(|_| {}), None, "that of an authority, as most are");
    assert_eq!(own(|it| it.is_ca = rcgen::IsCa::NoCa), None);
    assert_eq!(own(|it| it.not_after = rcgen::date_time_ymd(2020, 1, 1)), Some(Distrust::Expired));
    let young = own(|it| it.not_before = rcgen::date_time_ymd(2500, 1, 1));
    assert_eq!(young, Some(Distrust::NotYetValid));
    assert_eq!(own(|it| it.subject_alt_names.clear()), Some(Distrust::NoName));
    let client = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    let purpose = signed_by_itself(|it| it.extended_key_usages = vec![client.clone()]);
    assert_eq!(distrust(&purpose.chain, "a.test", &purpose), Some(Distrust::Purpose));
    let pair = signed_by_itself(|_| {});
    assert_eq!(distrust(&pair.chain, "b.test", &pair), Some(Distrust::OtherName));
    let leaf = Authority::new().sign("a.test");
    assert_eq!(distrust(&leaf.chain, "a.test", &leaf), None, "without its authority");
}

#[test]
fn who_holds_the_key_of_a_server_cannot_vouch_for_another_one() {
    for is_ca in [rcgen::IsCa::NoCa, rcgen::IsCa::ExplicitNoCa] {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let server = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (given, signed) = (server.pem(), Authority(server).sign("b.test"));
        assert_eq!(distrust(&given, "b.test", &signed), Some(Distrust::UnknownIssuer));
        let both = given + &Authority::new().pem();
        assert_eq!(distrust(&both, "b.test", &signed), Some(Distrust::UnknownIssuer));
        assert_eq!(distrust(&signed.chain, "b.test", &signed), None, "given itself");
    }
}

#[test]
fn a_certificate_that_is_not_believed_says_why() {
    let authority = Authority::new();
    let pair = authority.sign("a.test");
    assert_eq!(distrust(&authority.pem(), "a.test", &pair), None);
    assert_eq!(distrust(&authority.pem(), "b.test", &pair), Some(Distrust::OtherName));
    assert_eq!(distrust(&authority.pem(), "127.0.0.1", &pair), Some(Distrust::OtherName));
    // Of the same name as the one that has signed, and of another.
    let (same, other) = (Authority::new().pem(), signed_by_itself(|_| {}));
    assert_eq!(distrust(&same, "a.test", &pair), Some(Distrust::UnknownIssuer));
    assert_eq!(distrust(&other.chain, "a.test", &pair), Some(Distrust::UnknownIssuer));
    // Not the one that was given, whatever its name says.
    let twin = signed_by_itself(|_| {});
    assert_eq!(distrust(&other.chain, "a.test", &twin), Some(Distrust::Authority));
}

#[test]
fn a_pinned_key_is_believed_under_any_name_and_no_other_key_is() {
    let authority = Authority::new();
    let pair = authority.sign("a.test");
    let server = ServerTls::new(vec![pair.identity()], None, &[]).unwrap();
    let digits: String = pin(&pair).hex();
    let client = ClientTls::new(&Believe::Pinned(Pin::from_hex(&digits).unwrap()), None);
    assert!(meets(&client.unwrap(), "127.0.0.1", &server));
    let other = Believe::Pinned(pin(&authority.sign("a.test")));
    let mut other = ClientTls::new(&other, None).unwrap().connect("a.test", &[]).unwrap();
    assert!(!shake(&mut other, &mut server.accept().unwrap()));
    assert_eq!(other.distrust(), Some(Distrust::OtherKey));
    for wrong in ["", "ab", &digits[1..], &format!("{digits}0"), &digits.replace('a', "g")] {
        assert!(wrong == digits || Pin::from_hex(wrong) == Err(TlsError::Pin), "{wrong}");
    }
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let authority = Authority::new();
    let pairs = ["a.test", "*.b.test", "c.test"].map(|name| authority.sign(name));
    let identities = pairs.iter().map(Pair::identity).collect();
    let server = ServerTls::new(identities, None, &[]).unwrap();
    let client = ClientTls::new(&Believe::Anyone, None).unwrap();
    for (host, expected) in
        [("a.test", 0), ("x.b.test", 1), ("c.test", 2), ("d.test", 0), ("127.0.0.1", 0)]
    {
        assert_eq!(shown(&client, host, &server), Some(pin(&pairs[expected])), "{host}");
    }
}

#[test]
fn replaced_certificates_hold_for_later_connections_of_every_clone() {
    let authority = Authority::new();
    let [old, new] = [authority.sign("a.test"), authority.sign("a.test")];
    let server = ServerTls::new(vec![old.identity()], None, &[]).unwrap();
    let client = ClientTls::new(&Believe::Anyone, None).unwrap();
    let clone = server.clone();
    let (mut one, mut other) = (client.connect("a.test", &[]).unwrap(), clone.accept().unwrap());
    assert!(shake(&mut one, &mut other));
    server.replace(&ServerTls::new(vec![new.identity()], None, &[]).unwrap());
    assert_eq!(shown(&client, "a.test", &clone), Some(pin(&new)));
    let mut news = one.seal(b"on").to_vec();
    let count = news.len();
    assert_eq!(other.open(&mut news, count), Opened::Plaintext(2), "what stands goes on");
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_demanded() {
    let authority = Authority::new();
    let pem = authority.pem();
    let identities = vec![authority.sign("a.test").identity()];
    let server = ServerTls::new(identities, Some(pem.as_bytes()), &[]).unwrap();
    let device = authority.sign("device-7");
    for (shown, expected) in [
        (Some(device.identity()), true),
        (Some(Authority::new().sign("device-7").identity()), false),
        (None, false),
    ] {
        let client = ClientTls::new(&Believe::Anyone, shown.as_ref()).unwrap();
        let mut accepting = server.accept().unwrap();
        let open = shake(&mut client.connect("a.test", &[]).unwrap(), &mut accepting);
        assert_eq!(open, expected);
        let seen = accepting.peer_certificate().filter(|_| open).and_then(Pin::of);
        assert_eq!(seen, expected.then(|| pin(&device)));
    }
}

#[test]
fn a_certificate_names_its_first_uri_else_its_first_dns_name_else_its_common_name() {
    use rcgen::{DnType, SanType};
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let address = SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    for (names, common, expected) in [
        (vec![dns("a.test"), uri("spiffe://home/ada"), uri("urn:x")], "cn", "spiffe://home/ada"),
        (vec![address.clone(), dns("a.test"), dns("b.test")], "cn", "a.test"),
        (vec![address], "device 7", "device 7"),
        (Vec::new(), "J\u{fc}rgen", "J\u{fc}rgen"),
    ] {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(subject(certificate.der()).as_deref(), Some(expected));
    }
    let mut nobody = CertificateParams::new(Vec::new()).unwrap();
    nobody.distinguished_name = rcgen::DistinguishedName::new();
    let nobody = nobody.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(subject(nobody.der()), None);
    assert_eq!(subject(&CertificateDer::from(vec![0x30, 3, 1, 2, 3])), None);
}

#[test]
fn a_client_that_names_only_other_protocols_is_refused() {
    let identities = vec![Authority::new().sign("a.test").identity()];
    let server = ServerTls::new(identities, None, &[ALPN]).unwrap();
    for (named, expected) in [(&[][..], true), (&[b"h2", ALPN], true), (&[b"h2"], false)] {
        let client = ClientTls::new(&Believe::Anyone, None).unwrap();
        let (mut one, mut other) =
            (client.connect("a.test", named).unwrap(), server.accept().unwrap());
        assert_eq!(shake(&mut one, &mut other), expected, "{named:?}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    let authority = Authority::new();
    let [one, other] = [authority.sign("a.test"), authority.sign("a.test")];
    let refused = |chain: &str, key: &str| {
        Identity::from_pem(chain.as_bytes(), key.as_bytes()).err().map(|error| error.to_string())
    };
    assert_eq!(refused(&one.chain, &one.key), None);
    let garbled = one.chain.replace("MII", "MIJ");
    for (chain, key, expected) in [
        ("", &one.key, "no certificate in it"),
        (&one.key, &one.key, "no certificate in it"),
        (&one.chain, &one.chain, "no private key in it"),
        (&one.chain, &other.key, "the private key is not that of the certificate"),
        (&garbled, &one.key, "the certificate cannot be used"),
        ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", &one.key, "not PEM"),
    ] {
        let why = refused(chain, key).unwrap();
        assert!(why.starts_with(expected), "{why}");
    }
    let none = ServerTls::new(Vec::new(), None, &[]).err();
    assert_eq!(none, Some(TlsError::NoCertificate));
    let roots = ServerTls::new(vec![one.identity()], Some(b"no roots"), &[]).err();
    assert_eq!(roots, Some(TlsError::NoCertificate));
}
