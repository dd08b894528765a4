//! Tokens that are good, and each way in which one is not.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData};
use serde_json::json;

use super::*;
use crate::identity::KeyError;

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// An issuer with a key of each algorithm.
struct Issuer {
    ed25519: KeyPair,
    p256: KeyPair,
}

impl Issuer {
    fn new() -> Issuer {
        Issuer {
            ed25519: KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            p256: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        }
    }

    fn encoding_key(&self, algorithm: Algorithm) -> EncodingKey {
        if algorithm == Algorithm::EdDSA {
            EncodingKey::from_ed_der(&self.ed25519.serialize_der())
        } else if algorithm == Algorithm::ES256 {
            EncodingKey::from_ec_der(&self.p256.serialize_der())
        } else {
            EncodingKey::from_secret(SECRET.as_bytes())
        }
    }

    fn sign(&self, algorithm: Algorithm, claims: &Value) -> Vec<u8> {
        self.sign_with(Header::new(algorithm), claims)
    }

    fn sign_with(&self, header: Header, claims: &Value) -> Vec<u8> {
        encode(&header, claims, &self.encoding_key(header.alg)).unwrap().into_bytes()
    }

    /// A key set with both public keys, called "ed" and "ec", and one for another purpose.
    fn set(&self) -> String {
        let key = |key: EncodingKey, algorithm, name: &str| {
            let mut key = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap();
            key.common.key_id = Some(name.to_owned());
            serde_json::to_value(key).unwrap()
        };
        let ec = key(self.encoding_key(Algorithm::ES256), Algorithm::ES256, "ec");
        let point = &self.ed25519.der_bytes()[..32];
        let x = base64(point);
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "ed", "use": "sig"});
        let rsa = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "rsa", "alg": "RS256"});
        json!({"keys": [rsa, ed, ec]}).to_string()
    }
}

/// Base64 for URLs without padding.
fn base64(bytes: &[u8]) -> String {
    let set = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for place in 0..=three.len() {
            text.push(set[(word >> (18 - 6 * place)) as usize & 63] as char);
        }
    }
    text
}

/// Keys of all kinds, each from a file of its own.
fn keys(issuer: &Issuer) -> Keys {
    let mut keys = Keys::default();
    let pem = issuer.ed25519.public_key_pem() + &issuer.p256.public_key_pem();
    keys.add_pem(&pem).unwrap();
    keys.add_secret(&format!("  {SECRET}\n")).unwrap();
    keys
}

fn claims() -> Value {
    json!({"sub": "ada", "exp": NOW + 60})
}

fn verify(rules: &Rules, token: &[u8]) -> Result<String, Refusal> {
    rules.verify(token, NOW * 1_000).map(|verified| verified.identity.into())
}

const ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::HS256];

#[test]
fn a_token_of_each_algorithm_proves_its_subject() {
    let issuer = Issuer::new();
    let rules = Rules::of_keys(keys(&issuer));
    for algorithm in ALGORITHMS {
        let token = issuer.sign(algorithm, &claims());
        assert_eq!(verify(&rules, &token), Ok("ada".to_owned()), "{algorithm:?}");
        // Any change of a character of the claims or the signature.
        let dot = token.iter().position(|byte| *byte == b'.').unwrap();
        for at in [dot + 1, dot + 9, token.len() - 5] {
            let mut other = token.clone();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let refusal = verify(&rules, &other).unwrap_err();
            assert!(matches!(refusal, Refusal::Signature | Refusal::Malformed), "{refusal:?}");
        }
        let stranger = Issuer::new();
        if algorithm != Algorithm::HS256 {
            let forged = stranger.sign(algorithm, &claims());
            assert_eq!(verify(&rules, &forged), Err(Refusal::Signature), "{algorithm:?}");
        }
    }
}

#[test]
fn a_key_has_one_algorithm_whatever_the_token_says() {
    let issuer = Issuer::new();
    let mut keys = Keys::default();
    keys.add_pem(&issuer.ed25519.public_key_pem()).unwrap();
    keys.add_pem(&issuer.p256.public_key_pem()).unwrap();
    let rules = Rules::of_keys(keys);
    // Signed with what everybody knows, as if it were a shared secret.
    let pems = [issuer.ed25519.public_key_pem(), issuer.p256.public_key_pem()];
    let known = pems.iter().map(|pem| pem.as_bytes().to_vec());
    let known =
        known.chain([issuer.ed25519.der_bytes().to_vec(), issuer.p256.der_bytes().to_vec()]);
    for known in known {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let key = EncodingKey::from_secret(&known);
            let forged = encode(&Header::new(algorithm), &claims(), &key).unwrap();
            assert_eq!(verify(&rules, forged.as_bytes()), Err(Refusal::UnknownKey));
        }
    }
    // Not signed at all.
    let body = base64(claims().to_string().as_bytes());
    for none in ["none", "None", "NONE", "nOnE", "", "EDDSA", "HS1"] {
        let head = base64(json!({"alg": none, "typ": "JWT"}).to_string().as_bytes());
        for token in
            [format!("{head}.{body}."), format!("{head}.{body}"), format!("{head}.{body}.AA")]
        {
            assert_eq!(verify(&rules, token.as_bytes()), Err(Refusal::Malformed), "{none}");
        }
    }
    // With an empty signature, or that of the other algorithm.
    for algorithm in ["EdDSA", "ES256"] {
        let head = base64(json!({"alg": algorithm}).to_string().as_bytes());
        let token = format!("{head}.{body}.");
        assert_eq!(verify(&rules, token.as_bytes()), Err(Refusal::Signature));
    }
    let token = String::from_utf8(issuer.sign(Algorithm::EdDSA, &claims())).unwrap();
    let (_, rest) = token.split_once('.').unwrap();
    let head = base64(json!({"alg": "ES256"}).to_string().as_bytes());
    assert_eq!(verify(&rules, format!("{head}.{rest}").as_bytes()), Err(Refusal::Signature));
}

#[test]
fn a_key_of_a_set_is_found_by_its_name() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let mut keys = Keys::default();
    keys.add_set(&issuer.set()).unwrap();
    let mut rules = Rules::of_keys(keys);
    for (algorithm, name, result) in [
        (Algorithm::EdDSA, Some("ed"), Ok("ada".to_owned())),
        (Algorithm::ES256, Some("ec"), Ok("ada".to_owned())),
        (Algorithm::EdDSA, None, Ok("ada".to_owned())),
        (Algorithm::EdDSA, Some("ec"), Err(Refusal::UnknownKey)),
        (Algorithm::ES256, Some("next"), Err(Refusal::UnknownKey)),
        (Algorithm::HS256, Some("rsa"), Err(Refusal::UnknownKey)),
    ] {
        let header = Header { kid: name.map(str::to_owned), ..Header::new(algorithm) };
        let token = issuer.sign_with(header, &claims());
        assert_eq!(verify(&rules, &token), result, "{algorithm:?} {name:?}");
    }
    // A key in a file of its own has no name, and may have signed a token of any.
    rules.keys.add_pem(&other.ed25519.public_key_pem()).unwrap();
    let header = Header { kid: Some("next".to_owned()), ..Header::new(Algorithm::EdDSA) };
    assert_eq!(verify(&rules, &other.sign_with(header, &claims())), Ok("ada".to_owned()));
}

#[test]
fn a_token_holds_for_its_time_give_or_take_the_clocks() {
    let issuer = Issuer::new();
    let mut rules = Rules::of_keys(keys(&issuer));
    let ok = || Ok("ada".to_owned());
    let cases = |rules: &Rules, cases: &[(Value, Result<String, Refusal>)]| {
        for (times, result) in cases {
            let mut claims = times.clone();
            claims["sub"] = "ada".into();
            let token = issuer.sign(Algorithm::EdDSA, &claims);
            assert_eq!(verify(rules, &token), *result, "{times}");
        }
    };
    cases(
        &rules,
        &[
            (json!({"exp": NOW - 29}), ok()),
            (json!({"exp": NOW - 30}), Err(Refusal::Expired)),
            (json!({"exp": 0}), Err(Refusal::Expired)),
            (json!({"exp": NOW as f64 + 0.5}), ok()),
            (json!({"exp": 1e300}), ok()),
            (json!({"exp": u64::MAX}), ok()),
            (json!({"exp": -1}), Err(Refusal::Expired)),
            (json!({"exp": -1.5e9}), Err(Refusal::Expired)),
            (json!({"exp": NOW as f64 - 29.5}), ok()),
            (json!({"exp": NOW as f64 - 30.5}), Err(Refusal::Expired)),
            (json!({"exp": NOW + 1, "nbf": -1}), ok()),
            (json!({"exp": NOW + 1, "nbf": -1.5}), ok()),
            (json!({"exp": "tomorrow"}), Err(Refusal::Malformed)),
            (json!({"exp": null}), Err(Refusal::Malformed)),
            (json!({"exp": [NOW + 60]}), Err(Refusal::Malformed)),
            (json!({}), Err(Refusal::NoExpiry)),
            (json!({"exp": NOW + 60, "nbf": NOW + 30}), ok()),
            (json!({"exp": NOW + 60, "nbf": NOW + 31}), Err(Refusal::NotYetValid)),
            (json!({"exp": NOW + 60, "nbf": "soon"}), Err(Refusal::Malformed)),
            (json!({"exp": NOW + 60, "nbf": u64::MAX}), Err(Refusal::NotYetValid)),
        ],
    );
    rules.leeway = Span::ZERO;
    cases(&rules, &[(json!({"exp": NOW}), Err(Refusal::Expired)), (json!({"exp": NOW + 1}), ok())]);
    rules.needs_expiry = false;
    cases(&rules, &[(json!({}), ok()), (json!({"exp": NOW - 1}), Err(Refusal::Expired))]);
}

#[test]
fn a_token_of_another_issuer_or_for_another_audience_is_refused() {
    let issuer = Issuer::new();
    let mut rules = Rules::of_keys(keys(&issuer));
    let verify_with = |rules: &Rules, more: Value| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        verify(rules, &issuer.sign(Algorithm::ES256, &claims)).map(drop)
    };
    assert_eq!(verify_with(&rules, json!({"iss": "anybody"})), Ok(()));
    assert_eq!(verify_with(&rules, json!({"aud": "chat"})), Err(Refusal::Audience), "not us");
    rules.issuers = vec!["https://id.test".to_owned(), "https://old.test".to_owned()];
    rules.audiences = vec!["game".to_owned(), "lobby".to_owned()];
    for (claims, result) in [
        (json!({"iss": "https://id.test", "aud": "game"}), Ok(())),
        (json!({"iss": "https://old.test", "aud": ["chat", "lobby"]}), Ok(())),
        (json!({"iss": "https://id.test/", "aud": "game"}), Err(Refusal::Issuer)),
        (json!({"iss": ["https://id.test"], "aud": "game"}), Err(Refusal::Issuer)),
        (json!({"aud": "game"}), Err(Refusal::Issuer)),
        (json!({"iss": "https://id.test"}), Err(Refusal::Audience)),
        (json!({"iss": "https://id.test", "aud": []}), Err(Refusal::Audience)),
        (json!({"iss": "https://id.test", "aud": ["Game", 7, null]}), Err(Refusal::Audience)),
        (json!({"iss": "https://id.test", "aud": {"game": true}}), Err(Refusal::Audience)),
    ] {
        assert_eq!(verify_with(&rules, claims.clone()), result, "{claims}");
    }
}

#[test]
fn the_identity_is_a_text_that_may_be_one() {
    let issuer = Issuer::new();
    let mut rules = Rules::of_keys(keys(&issuer));
    let longest = "x".repeat(64);
    for (subject, result) in [
        (json!(longest), Ok(longest.clone())),
        (json!("x".repeat(65)), Err(Refusal::NoIdentity)),
        (json!(""), Err(Refusal::NoIdentity)),
        (json!("a\nb"), Err(Refusal::NoIdentity)),
        (json!(7), Err(Refusal::NoIdentity)),
        (json!(null), Err(Refusal::NoIdentity)),
        (json!({"name": "ada"}), Err(Refusal::Malformed)),
    ] {
        let token = issuer.sign(Algorithm::EdDSA, &json!({"sub": subject, "exp": NOW + 60}));
        assert_eq!(verify(&rules, &token), result, "{subject}");
    }
    rules.identity_claim = "email".to_owned();
    let claims = json!({"sub": "7", "email": "ada@home.test", "exp": NOW + 60});
    let token = issuer.sign(Algorithm::EdDSA, &claims);
    assert_eq!(verify(&rules, &token), Ok("ada@home.test".to_owned()));
    let token = issuer.sign(Algorithm::EdDSA, &self::claims());
    assert_eq!(verify(&rules, &token), Err(Refusal::NoIdentity), "sub is not asked");
}

#[test]
fn the_attributes_are_the_claims_that_are_asked_for() {
    let issuer = Issuer::new();
    let mut rules = Rules::of_keys(keys(&issuer));
    rules.attributes = ["role", "teams", "none", "n"].map(str::to_owned).to_vec();
    let attributes = |more: Value| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let token = issuer.sign(Algorithm::EdDSA, &claims);
        rules.verify(&token, NOW * 1_000).map(|it| (String::from(it.attributes), it.lasts))
    };
    assert_eq!(attributes(json!({"other": 7})), Ok((String::new(), None)));
    let given = json!({"teams": ["a", {"b": null}], "role": "pi\u{7}lot", "other": 7});
    let text = r#"{"role":"pi\u0007lot","teams":["a",{"b":null}]}"#.to_owned();
    assert_eq!(attributes(given), Ok((text, None)));
    // Short in the token, and long as we write it.
    let numbers = vec![1e15; 70];
    assert_eq!(attributes(json!({"n": numbers})), Err(Refusal::Attributes));
}

#[test]
fn a_session_lasts_as_long_as_its_token_if_it_is_to() {
    let issuer = Issuer::new();
    let mut rules = Rules::of_keys(keys(&issuer));
    rules.needs_expiry = false;
    let lasts = |rules: &Rules, claims: Value| {
        rules.verify(&issuer.sign(Algorithm::EdDSA, &claims), NOW * 1_000).map(|it| it.lasts)
    };
    let ending = |seconds: u64| json!({"sub": "ada", "exp": NOW - 20 + seconds});
    assert_eq!(lasts(&rules, ending(80)), Ok(None));
    rules.ends_sessions = true;
    assert_eq!(lasts(&rules, ending(80)), Ok(Some(Span::from_secs(90))), "and the leeway");
    assert_eq!(lasts(&rules, ending(0)), Ok(Some(Span::from_secs(10))));
    assert_eq!(lasts(&rules, json!({"sub": "ada"})), Ok(None));
    let far = lasts(&rules, json!({"sub": "ada", "exp": 1e300})).unwrap().unwrap();
    assert!(far > Span::from_secs(1 << 32), "{far:?}");
}

#[test]
fn what_is_no_token_is_refused_and_does_no_harm() {
    let issuer = Issuer::new();
    let rules = Rules::of_keys(keys(&issuer));
    assert_eq!(verify(&rules, b""), Err(Refusal::NoToken));
    let head = base64(br#"{"alg":"EdDSA"}"#);
    let deep = base64("[".repeat(700).as_bytes());
    let bad = [
        "a.b.c".to_owned(),
        "..".to_owned(),
        ".".repeat(1_024),
        "A".repeat(1_024),
        format!("{head}.{head}"),
        format!("{head}..{head}.{head}"),
        format!("{deep}.{head}.{head}"),
        format!("{}.{head}.{head}", base64(b"{\"alg\":\"EdDSA\",\"alg\":\"HS256\"}")),
        format!("{}.{head}.{head}", base64(b"\xff\xfe")),
        format!("{head}.{head}.=="),
        "\u{0}\u{7f}é".to_owned(),
    ];
    for token in bad {
        let refusal = verify(&rules, token.as_bytes()).unwrap_err();
        assert!(matches!(refusal, Refusal::Malformed | Refusal::Signature), "{token}: {refusal:?}");
    }
    // Signed, and yet no claims; and an extension that must be understood.
    for claims in [json!([]), json!("ada"), json!(null), json!(7)] {
        let token = issuer.sign(Algorithm::EdDSA, &claims);
        assert_eq!(verify(&rules, &token), Err(Refusal::Malformed), "{claims}");
    }
    let crit = Some(vec!["b64".to_owned()]);
    let header = Header { crit, ..Header::new(Algorithm::EdDSA) };
    let token = issuer.sign_with(header, &claims());
    assert_eq!(verify(&rules, &token), Err(Refusal::Malformed));
}

#[test]
fn what_is_no_key_is_refused_with_its_reason() {
    let mut keys = Keys::default();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    assert_eq!(keys.add_pem(""), Err(KeyError::NoKey));
    assert_eq!(keys.add_pem(&p384.serialize_pem()), Err(KeyError::NoKey), "a private key");
    assert_eq!(keys.add_pem(&p384.public_key_pem()), Err(KeyError::Kind));
    assert_eq!(keys.add_secret(&p384.public_key_pem()), Err(KeyError::SecretIsKey));
    assert_eq!(keys.add_secret(&format!("{}\n \n", &SECRET[1..])), Err(KeyError::Short));
    for text in ["", "{}", "[]", "{\"keys\": 7}", "{\"keys\": {}}"] {
        assert_eq!(keys.add_set(text), Err(KeyError::NoSet), "{text}");
    }
    let weak = json!({"kty": "oct", "k": base64(&[7; 31])});
    let strong = json!({"kty": "oct", "k": base64(&[7; 32]), "key_ops": ["sign", "verify"]});
    let encrypts = json!({"kty": "oct", "k": base64(&[7; 32]), "use": "enc"});
    let other = json!({"kty": "oct", "k": base64(&[7; 32]), "alg": "HS512"});
    let short = json!({"kty": "OKP", "crv": "Ed25519", "x": base64(&[7; 31])});
    let wraps = json!({"kty": "oct", "k": base64(&[7; 32]), "key_ops": ["wrapKey", "unwrapKey"]});
    for key in [weak, encrypts, wraps, other, short, json!({}), json!(null), json!({"kty": "x"})] {
        let set = json!({"keys": [key]}).to_string();
        assert_eq!(keys.add_set(&set), Err(KeyError::NoneUsable), "{set}");
    }
    let many = json!({"keys": vec![strong; 17]}).to_string();
    assert_eq!(keys.add_set(&many), Err(KeyError::TooMany));
    assert_eq!(format!("{keys:?}"), "Keys(16)");
}

#[test]
fn rules_that_are_replaced_hold_for_later_tokens() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let running = Tokens::new(Rules::of_keys(keys(&old)));
    let shared = running.clone();
    let [first, second] = [&old, &new].map(|issuer| issuer.sign(Algorithm::EdDSA, &claims()));
    let results =
        |tokens: &Tokens| [&first, &second].map(|token| verify(&tokens.rules(), token).map(drop));
    assert_eq!(results(&shared), [Ok(()), Err(Refusal::Signature)]);
    let read_again = Tokens::new(Rules::of_keys(keys(&new)));
    assert_ne!(running, read_again);
    running.replace(&read_again);
    assert_eq!(results(&shared), [Err(Refusal::Signature), Ok(())]);
    assert_eq!((running, format!("{shared:?}").as_str()), (shared.clone(), "Tokens(…)"));
}

/// The corpus of the fuzz target is of use only while its good inputs are good.
#[test]
fn the_corpus_of_the_fuzz_target_is_what_its_names_say() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let text = |name: &str| std::fs::read_to_string(root.join("keys").join(name)).unwrap();
    let mut known = Keys::default();
    known.add_set(&text("set.json")).unwrap();
    known.add_secret(&text("hs256.secret")).unwrap();
    let rules = Rules::of_keys(known);
    let (mut good, mut bad) = (0, 0);
    for file in std::fs::read_dir(root.join("corpus/tokens")).unwrap() {
        let file = file.unwrap();
        let (name, input) = (file.file_name(), std::fs::read(file.path()).unwrap());
        let name = name.to_str().unwrap();
        let (kind, bytes) = input.split_first().unwrap();
        let text = || str::from_utf8(bytes).unwrap();
        let is_good = match kind {
            0 => rules.verify(bytes, NOW * 1_000).is_ok(),
            1 => Keys::default().add_set(text()).is_ok(),
            2 => Keys::default().add_pem(text()).is_ok(),
            _ => Keys::default().add_secret(text()).is_ok(),
        };
        assert_eq!(is_good, name.contains("-valid"), "{name}");
        *(if is_good { &mut good } else { &mut bad }) += 1;
    }
    assert!(good >= 7 && bad >= 20, "{good} good inputs, {bad} bad ones");
}
