//! The keys of those who issue tokens. Each key has one algorithm, which its kind fixes: what a
//! token says of its algorithm only chooses among the keys that have it.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use systole_core::text::Quoted;

/// Maximum number of keys of a listener. A token without a key's name is tried with each that has
/// its algorithm.
const MAX_KEYS: usize = 16;

/// Least length of a shared secret in bytes, as RFC 7518 demands for HS256.
const MIN_SECRET: usize = 32;

/// What precedes the 32 bytes of an Ed25519 key (RFC 8410).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// What precedes the point of a P-256 key (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 3, 1, 7, 3, 0x42, 0,
];

/// The first byte of a point of which both coordinates follow.
const UNCOMPRESSED: u8 = 4;

/// The keys by which tokens are verified. `Debug` output never shows them.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
pub(super) struct Key {
    /// The name by which tokens refer to the key; `None` for a key from a file of its own.
    name: Option<String>,
    algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Why a key cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// The text holds no public key.
    NoKey,
    /// The key is of a kind that is not supported.
    Kind,
    /// The text of a shared secret is a key in PEM: whoever has the public key could sign.
    SecretIsKey,
    /// The shared secret is too short.
    Short,
    /// The text is no set of keys.
    NoSet,
    /// No key of the set can be used.
    NoneUsable,
    /// There are too many keys.
    TooMany,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::NoKey => f.write_str("it holds no public key in PEM (BEGIN PUBLIC KEY)"),
            KeyError::Kind => f.write_str("its key is neither Ed25519 nor ECDSA of P-256"),
            KeyError::SecretIsKey => f.write_str("it holds a key in PEM, and not a shared secret"),
            KeyError::Short => write!(f, "a shared secret must have at least {MIN_SECRET} bytes"),
            KeyError::NoSet => f.write_str("it is no JSON Web Key Set"),
            KeyError::NoneUsable => {
                f.write_str("none of its keys is for signatures with EdDSA, ES256 or HS256")
            }
            KeyError::TooMany => write!(f, "there are more than {MAX_KEYS} keys"),
        }
    }
}

impl std::error::Error for KeyError {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Adds the public keys of a PEM text: Ed25519 for EdDSA, or P-256 for ES256.
    ///
    /// # Errors
    /// There is none, or one of another kind; or there are too many.
    pub fn add_pem(&mut self, pem: &str) -> Result<(), KeyError> {
        let keys: Result<Vec<_>, _> =
            SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes()).collect();
        let keys = keys.map_err(|_| KeyError::NoKey)?;
        if keys.is_empty() {
            return Err(KeyError::NoKey);
        }
        for key in keys {
            let (algorithm, key) = public_key(&key).ok_or(KeyError::Kind)?;
            self.add(Key { name: None, algorithm, key })?;
        }
        Ok(())
    }

    /// Adds a shared secret for HS256: the text without the white space around it.
    ///
    /// # Errors
    /// It is too short, or a key in PEM; or there are too many keys.
    pub fn add_secret(&mut self, text: &str) -> Result<(), KeyError> {
        let secret = text.trim();
        if secret.contains("-----BEGIN") {
            return Err(KeyError::SecretIsKey);
        }
        if secret.len() < MIN_SECRET {
            return Err(KeyError::Short);
        }
        let key = DecodingKey::from_secret(secret.as_bytes());
        self.add(Key { name: None, algorithm: Algorithm::HS256, key })
    }

    /// Adds the keys of a JSON Web Key Set (RFC 7517). Keys for another use or algorithm are left
    /// out: issuers list them in the same set.
    ///
    /// # Errors
    /// It is no such set, or has no key that can be used; or there are too many.
    pub fn add_set(&mut self, json: &str) -> Result<(), KeyError> {
        let set: Value = serde_json::from_str(json).map_err(|_| KeyError::NoSet)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeyError::NoSet)?;
        let before = self.0.len();
        for key in keys {
            if let Some(key) = serde_json::from_value(key.clone()).ok().and_then(of_set) {
                self.add(key)?;
            }
        }
        if self.0.len() == before { Err(KeyError::NoneUsable) } else { Ok(()) }
    }

    /// Returns what tells the keys apart, and nothing secret: the algorithm of each, and its name.
    pub(crate) fn shown(&self) -> String {
        let each = self.0.iter().map(|Key { name, algorithm, .. }| match name {
            Some(name) => format!("{algorithm:?} {}", Quoted(name)),
            None => format!("{algorithm:?}"),
        });
        let each: Vec<_> = each.collect();
        each.join(" or ")
    }

    fn add(&mut self, key: Key) -> Result<(), KeyError> {
        if self.0.len() == MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        self.0.push(key);
        Ok(())
    }

    /// Returns the keys that may have signed a token of this algorithm: those with the name that it
    /// gives, and those without a name.
    pub(super) fn of<'a>(
        &'a self,
        algorithm: Algorithm,
        name: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| {
            let is_named = match (name, key.name.as_deref()) {
                (Some(name), Some(own)) => name == own,
                (None, _) | (_, None) => true,
            };
            key.algorithm == algorithm && is_named
        })
    }
}

/// Returns the algorithm and the key of a public key in DER.
fn public_key(der: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    if let Some(key) = der.strip_prefix(&ED25519) {
        return (key.len() == 32).then(|| (Algorithm::EdDSA, DecodingKey::from_ed_der(key)));
    }
    let point = der.strip_prefix(&P256)?;
    let is_point = point.len() == 65 && point.first() == Some(&UNCOMPRESSED);
    is_point.then(|| (Algorithm::ES256, DecodingKey::from_ec_der(point)))
}

/// Returns a key of a set, if it is for signatures of an algorithm that is supported.
fn of_set(key: Jwk) -> Option<Key> {
    // Not by `match`: kinds may be added, and are not supported.
    let (algorithm, lengths) = if let AlgorithmParameters::OctetKeyPair(it) = &key.algorithm
        && it.curve == EllipticCurve::Ed25519
    {
        (Algorithm::EdDSA, 32..=32)
    } else if let AlgorithmParameters::EllipticCurve(it) = &key.algorithm
        && it.curve == EllipticCurve::P256
    {
        (Algorithm::ES256, 65..=65)
    } else if let AlgorithmParameters::OctetKey(_) = &key.algorithm {
        (Algorithm::HS256, MIN_SECRET..=usize::MAX)
    } else {
        return None;
    };
    let is_for_signatures =
        key.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
    let operations = key.common.key_operations.as_ref();
    let may_verify = operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
    let stated = key.common.key_algorithm.as_ref().map(ToString::to_string);
    let is_stated = stated.is_none_or(|stated| stated == format!("{algorithm:?}"));
    let decoded = DecodingKey::from_jwk(&key).ok()?;
    let is_whole = lengths.contains(&decoded.try_get_as_bytes().ok()?.len());
    (is_for_signatures && may_verify && is_stated && is_whole).then_some(Key {
        name: key.common.key_id,
        algorithm,
        key: decoded,
    })
}
