//! Who may log in: what must be said, and what is refused.

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;

/// A directory with files of keys, good and bad.
fn keys() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let pem = |algorithm| KeyPair::generate_for(algorithm).unwrap().public_key_pem();
    let set = r#"{"keys": [{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;
    for (name, text) in [
        ("key.pem", pem(&PKCS_ED25519)),
        ("p384.pem", pem(&PKCS_ECDSA_P384_SHA384)),
        ("secret", "5e".repeat(16)),
        ("short", "5e".to_owned()),
        ("set.json", set.to_owned()),
        (
            "ca.pem",
            rcgen::generate_simple_self_signed(vec!["id.test".to_owned()]).unwrap().cert.pem(),
        ),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// Reads a configuration with one listener at `address` and these lines.
fn listener(
    directory: &tempfile::TempDir,
    address: &str,
    lines: &str,
) -> Result<Listener, Vec<String>> {
    let text = format!("[[listener]]\naddress = \"{address}:7400\"\n{lines}");
    let path = directory.path().join("systole.toml").display().to_string();
    let loaded = Config::load(&text, &path, &Overrides::default());
    let directory = format!("{}/", directory.path().display());
    let what = |problem: &Problem| problem.what.replace(&directory, "");
    let loaded = loaded.map_err(|error| error.problems().iter().map(what).collect());
    loaded.map(|mut config| config.listeners.remove(0))
}

const TOKENS: &str = "[listener.tokens]\nkeys = \"key.pem\"\n";

#[test]
fn anybody_may_log_in_on_loopback_alone_unless_the_file_says_more() {
    let directory = keys();
    let read = |address: &str, lines: &str| {
        let read = listener(&directory, address, lines);
        read.map(|it| (it.anonymous(), it.tokens().is_some())).map_err(|what| what[0].clone())
    };
    const OPEN: &str = "anybody could log in here, with any identity";
    let plain = format!("plaintext_tokens = true\n{TOKENS}");
    for (address, lines, result) in [
        ("127.0.0.1", "", Ok((true, false))),
        ("127.1.2.3", "anonymous = true", Ok((true, false))),
        ("[::1]", "", Ok((true, false))),
        ("[::1]", TOKENS, Ok((false, true))),
        ("[::1]", &format!("anonymous = true\n{TOKENS}"), Ok((true, true))),
        ("192.0.2.1", &format!("anonymous = true\n{plain}"), Ok((true, true))),
        ("192.0.2.1", &plain, Ok((false, true))),
        ("192.0.2.1", "anonymous = true", Ok((true, false))),
        ("192.0.2.1", "codec = \"line\"\nanonymous = true", Ok((true, false))),
        ("0.0.0.0", "", Err(OPEN)),
        ("[::]", "codec = \"line\"", Err(OPEN)),
        ("192.0.2.1", "anonymous = false", Err(OPEN)),
        ("192.0.2.1", TOKENS, Err("tokens would cross the network in plain text")),
        (
            "192.0.2.1",
            &format!("plaintext_tokens = false\n{TOKENS}"),
            Err("tokens would cross the network in plain text"),
        ),
        (
            "127.0.0.1",
            "anonymous = false",
            Err("nobody could log in here: nothing proves who a client is"),
        ),
        ("127.0.0.1", "plaintext_tokens = true", Err("`plaintext_tokens` has no effect")),
        (
            "127.0.0.1",
            &format!("codec = \"line\"\n{TOKENS}"),
            Err("`tokens` has no effect with this codec"),
        ),
    ] {
        assert_eq!(read(address, lines), result.map_err(str::to_owned), "{address} {lines}");
    }
}

#[test]
fn the_listeners_of_the_command_line_are_open_to_the_network_by_choice() {
    let listen = vec!["127.0.0.1:1".parse().unwrap(), "line=0.0.0.0:2".parse().unwrap()];
    let overrides =
        |anonymous| Overrides { listen: listen.clone(), anonymous, ..Default::default() };
    let error = Config::load("", "", &overrides(false)).unwrap_err();
    let [Problem { what, .. }] = error.problems() else { panic!("{error}") };
    assert_eq!(what, "anybody could log in at 0.0.0.0:2, with any identity");
    assert_eq!(Config::load("", "", &overrides(true)).unwrap().listeners.len(), 2);
}

#[test]
fn each_setting_of_the_table_is_read() {
    let directory = keys();
    let lines = "[listener.tokens]\nkeys = [\"key.pem\"]\nsecrets = \"secret\"\n\
                 jwks = \"set.json\"\nissuer = \"a\"\naudience = [\"b\", \"c\"]\n\
                 identity_claim = \"email\"\nleeway = \"5s\"\nrequire_expiry = false\n\
                 attributes = [\"role\"]\nend_at_expiry = true";
    let read = listener(&directory, "127.0.0.1", lines).unwrap();
    let rules = read.tokens().unwrap().rules();
    assert_eq!(
        (format!("{:?}", rules.keys).as_str(), &rules.issuers[..]),
        ("Keys(3)", &["a".to_owned()][..])
    );
    assert_eq!((rules.audiences.len(), rules.identity_claim.as_str()), (2, "email"));
    assert_eq!((rules.leeway, rules.needs_expiry), (Span::from_secs(5), false));
    assert_eq!((rules.attributes.len(), rules.ends_sessions), (1, true));
    let rules = listener(&directory, "127.0.0.1", TOKENS).unwrap().tokens().unwrap().rules();
    assert_eq!((rules.leeway, rules.needs_expiry), (Span::from_secs(30), true));
    assert_eq!((rules.identity_claim.as_str(), rules.audiences.len()), ("sub", 0));
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_the_file_and_the_reason() {
    let directory = keys();
    for (lines, what) in [
        ("leeway = \"1s\"", "[listener.tokens] names no key"),
        ("keys = []", "`keys` must be a text in quotes, or a list of 1 to 16"),
        ("keys = \"none\"", "the file none cannot be read"),
        ("keys = \"secret\"", "the file secret: it holds no public key in PEM"),
        ("keys = \"p384.pem\"", "the file p384.pem: its key is neither Ed25519 nor ECDSA of P-256"),
        (
            "secrets = \"key.pem\"",
            "the file key.pem: it holds a key in PEM, and not a shared secret",
        ),
        ("secrets = \"short\"", "the file short: a shared secret must have at least 32 bytes"),
        ("jwks = \"secret\"", "the file secret: it is no JSON Web Key Set"),
        ("keys = \"key.pem\"\nleeway = \"6m\"", "`leeway` must be a length of time"),
        ("keys = \"key.pem\"\nissuers = \"a\"", "unknown setting `issuers`"),
    ] {
        let problems = listener(&directory, "127.0.0.1", &format!("[listener.tokens]\n{lines}"));
        let problems = problems.unwrap_err();
        assert!(problems[0].starts_with(what), "{lines}: {problems:?}");
    }
    let text =
        format!("handshake_timeout = \"999ms\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n{TOKENS}");
    let path = directory.path().join("systole.toml").display().to_string();
    let error = Config::load(&text, &path, &Overrides::default()).unwrap_err();
    assert!(error.problems()[0].what.starts_with("`handshake_timeout` must be at least"));
}

#[test]
fn a_webhook_needs_a_url_to_which_tokens_may_go() {
    let directory = keys();
    fs::write(directory.path().join("two words"), "two words\n").unwrap();
    let read = |address: &str, lines: &str| {
        let read = listener(&directory, address, lines);
        read.map(|it| it.webhook().is_some()).map_err(|problems| problems[0].clone())
    };
    let table = |lines: &str| format!("[listener.webhook]\n{lines}");
    let local = "url = \"http://127.0.0.1:8000/connect\"";
    const TO_WEBHOOK: &str = "tokens would go to the webhook in plain text";
    for (address, lines, result) in [
        ("127.0.0.1", table(local), Ok(true)),
        ("127.0.0.1", table("url = \"http://[::1]:8000\""), Ok(true)),
        ("127.0.0.1", table("url = \"https://id.test/a?b=c\"\nroots = \"ca.pem\""), Ok(true)),
        ("127.0.0.1", table(&format!("{local}\nsecret_file = \"secret\"")), Ok(true)),
        ("192.0.2.1", format!("plaintext_tokens = true\n{}", table(local)), Ok(true)),
        ("192.0.2.1", table(local), Err("tokens would cross the network in plain text")),
        ("127.0.0.1", table("url = \"http://id.test\""), Err(TO_WEBHOOK)),
        ("127.0.0.1", table("url = \"http://localhost\""), Err(TO_WEBHOOK)),
        ("127.0.0.1", table("timeout = \"1s\""), Err("[listener.webhook] has no `url`")),
        (
            "127.0.0.1",
            format!("{TOKENS}{}", table(local)),
            Err("`tokens` and `webhook` exclude each other"),
        ),
        (
            "127.0.0.1",
            format!("codec = \"line\"\n{}", table(local)),
            Err("`webhook` has no effect with this codec"),
        ),
        (
            "127.0.0.1",
            table("url = \"ftp://id.test\""),
            Err("`url` must be a URL with https:// or http:// in quotes, as in \
                 \"https://example.com/hook\""),
        ),
        (
            "127.0.0.1",
            table(&format!("{local}\nsecret_file = \"two words\"")),
            Err("the first line of the file two words must be printable ASCII characters \
                 without spaces"),
        ),
        (
            "127.0.0.1",
            table(&format!("{local}\nroots = \"secret\"")),
            Err("the file secret: no certificate in it (BEGIN CERTIFICATE)"),
        ),
    ] {
        assert_eq!(read(address, &lines), result.map_err(str::to_owned), "{address} {lines}");
    }
}

#[test]
fn a_beacon_listener_and_certificates_exclude_tokens() {
    let directory = keys();
    fs::write(directory.path().join("beacon"), "5e".repeat(32)).unwrap();
    let beacon = "codec = \"beacon\"\nmaster_secret_file = \"beacon\"\n";
    for (lines, key) in [("anonymous = true", "anonymous"), (TOKENS, "tokens")] {
        let problems = listener(&directory, "127.0.0.1", &format!("{beacon}{lines}")).unwrap_err();
        assert_eq!(problems, [format!("`{key}` has no effect on a beacon listener")]);
    }
    let subject = "client_identity = \"subject\"\n";
    let problems = listener(&directory, "127.0.0.1", &format!("{subject}{TOKENS}")).unwrap_err();
    assert!(problems.contains(&"`tokens` and `client_identity` exclude each other".to_owned()));
    let problems = listener(&directory, "127.0.0.1", &format!("{subject}anonymous = true"));
    assert!(problems.unwrap_err().contains(&"`anonymous` has no effect".to_owned()));
}

#[test]
fn an_identity_may_log_in_so_often_for_each_session_that_it_may_have() {
    let directory = keys();
    let read = |lines: &str| {
        let read = listener(&directory, "127.0.0.1", lines);
        read.map(|it| it.sessions().per_minute).map_err(|what| what[0].clone())
    };
    assert_eq!(Config::default().listeners[0].sessions().per_minute, 60);
    for (lines, result) in [
        ("", Ok(60)),
        ("sessions_per_identity = 5", Ok(300)),
        ("sessions_per_identity = 5\nlogins_per_minute = 7", Ok(7)),
        ("logins_per_minute = \"off\"", Ok(0)),
    ] {
        assert_eq!(read(lines), result, "{lines}");
    }
    for value in ["0", "-1", "1_000_001", "\"on\"", "0.5"] {
        let what = read(&format!("logins_per_minute = {value}")).unwrap_err();
        assert!(what.contains("`logins_per_minute` must be \"off\", or"), "{what}");
    }
    let beacon = "codec = \"beacon\"\nlogins_per_minute = 5";
    let all = listener(&directory, "127.0.0.1", beacon).unwrap_err().join("\n");
    assert!(all.contains("`logins_per_minute` has no effect on a beacon listener"), "{all}");
}

#[test]
fn a_listener_says_whom_it_believes_and_what_is_unsafe_about_it() {
    let directory = keys();
    let said = |address: &str, lines: &str| {
        listener(&directory, address, lines).map(|it| it.belief().sentence())
    };
    let keyed = "plaintext_tokens = true\n[listener.tokens]\nkeys = \"key.pem\"\n";
    for (address, lines, sentence) in [
        (
            "127.0.0.1",
            "",
            "whoever connects from this machine, with the identity that it claims: safe",
        ),
        (
            "192.0.2.1",
            "anonymous = true",
            "whoever connects, with the identity that it claims: UNSAFE, anybody who reaches it \
             may log in with any identity",
        ),
        (
            "127.0.0.1",
            TOKENS,
            "tokens signed with EdDSA, of any issuer, for no audience, with the claim \"sub\" as \
             the identity: safe",
        ),
        (
            "192.0.2.1",
            &format!("anonymous = true\n{keyed}issuer = [\"a\", \"b\"]\naudience = \"g\"\n"),
            "tokens signed with EdDSA, of issuer \"a\" or \"b\", for audience \"g\", with the \
             claim \"sub\" as the identity; a client without a token has no identity: UNSAFE, \
             tokens cross the network in plain text unless it encrypts",
        ),
        (
            "127.0.0.1",
            "[listener.tokens]\nsecrets = \"secret\"\nrequire_expiry = false\n",
            "tokens signed with HS256, of any issuer, for no audience, with the claim \"sub\" as \
             the identity: UNSAFE, a token without an end is good for ever if it is stolen",
        ),
        (
            "127.0.0.1",
            "[listener.webhook]\nroots = \"ca.pem\"\nurl = \"https://u:p@id.test/ask?key=s3\"\n",
            "the webhook at \"https://id.test/ask\", asked without a secret: safe",
        ),
        (
            "127.0.0.1",
            "plaintext_tokens = true\n[listener.webhook]\nurl = \"http://192.0.2.9/\"\n",
            "the webhook at \"http://192.0.2.9/\", asked without a secret: UNSAFE, tokens go to \
             the webhook in plain text",
        ),
    ] {
        assert_eq!(said(address, lines).as_deref(), Ok(sentence), "{lines}");
    }
}
