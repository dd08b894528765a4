//! Tokens of clients, and the files of keys by which a gateway verifies them.

use systole_core::Span;
use systole_core::hub::MAX_ATTRIBUTES;
use systole_core::wire::is_identity;

use crate::identity::{Keys, Rules};

/// The public keys of the tokens in the corpus.
const SET: &str = include_str!("../keys/set.json");

/// The shared secret of the tokens in the corpus, which protects nothing.
const SECRET: &str = include_str!("../keys/hs256.secret");

/// When the tokens are verified, in milliseconds since 1970-01-01 UTC.
const NOW_MS: u64 = 1_800_000_000_000;

/// The longest token that a client can send.
const LONGEST_TOKEN: usize = systole_core::wire::MAX_TOKEN;

/// Reads `input`, after a byte that selects its kind, as a token, a JSON Web Key Set, public keys
/// in PEM, or a shared secret. Panics if one of these properties does not hold:
///
/// - of a token that is accepted, the identity is legal and the attributes are short;
/// - with its signature altered, or its claims, it is refused;
/// - keys that nobody knows accept no token of the corpus.
pub fn tokens(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    if kind % 4 == 0 {
        return token(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut keys = Keys::default();
    let read = match kind % 4 {
        1 => keys.add_set(text),
        2 => keys.add_pem(text),
        _ => keys.add_secret(text),
    };
    let rules = rules(keys);
    for part in [&b"x.y.z"[..], b"eyJhbGciOiJIUzI1NiJ9.e30.AA", b"eyJhbGciOiJFZERTQSJ9.e30.AA"] {
        assert!(rules.verify(part, NOW_MS).is_err(), "{read:?}");
    }
}

fn token(token: &[u8]) {
    if token.len() > LONGEST_TOKEN {
        return;
    }
    let mut keys = Keys::default();
    keys.add_set(SET).expect("a set of keys");
    keys.add_secret(SECRET).expect("a long secret");
    let rules = rules(keys);
    let Ok(verified) = rules.verify(token, NOW_MS) else { return };
    assert!(is_identity(&verified.identity));
    assert!(verified.attributes.len() <= MAX_ATTRIBUTES);
    // The last character holds bits that no byte of the signature has.
    let end = token.len().saturating_sub(1);
    let first = token.iter().position(|byte| *byte == b'.').map_or(0, |dot| dot + 1);
    for place in first..end {
        let mut altered = token.to_vec();
        altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
        assert!(rules.verify(&altered, NOW_MS).is_err(), "altered at {place}");
    }
}

fn rules(keys: Keys) -> Rules {
    Rules {
        keys,
        issuers: Vec::new(),
        audiences: Vec::new(),
        identity_claim: "sub".to_owned(),
        leeway: Span::from_secs(30),
        needs_expiry: true,
        attributes: vec!["role".to_owned()],
        ends_sessions: true,
    }
}
