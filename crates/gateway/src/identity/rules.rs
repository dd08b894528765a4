//! What a token must say, and what is taken from it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};
use systole_core::Span;
use systole_core::hub::MAX_ATTRIBUTES;
use systole_core::wire::is_identity;

use super::keys::Keys;
use super::refusal::Refusal;

/// The keys of those who issue the tokens of a listener, and what a token must say.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The keys.
    pub keys: Keys,
    /// The issuers that are believed; empty for whoever has one of the keys.
    pub issuers: Vec<String>,
    /// The names by which tokens call this service. A token that names an audience must name one of
    /// them, and if there are any, every token must.
    pub audiences: Vec<String>,
    /// The claim that is the identity.
    pub identity_claim: String,
    /// How far the clocks of issuers may differ from that of this machine.
    pub leeway: Span,
    /// Whether a token must have an end.
    pub needs_expiry: bool,
    /// The claims that become attributes of the session, if the token has them.
    pub attributes: Vec<String>,
    /// Whether a session ends with the token that it began with.
    pub ends_sessions: bool,
}

/// What a token has proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The identity.
    pub identity: Box<str>,
    /// The attributes, as a JSON object; empty if there are none.
    pub attributes: Box<str>,
    /// How long the session may last; `None` for any time.
    pub lasts: Option<Span>,
}

/// The rules of a listener. Clones share them; what is replaced holds for later logins. Two are
/// equal if both are the same ones.
#[derive(Clone)]
pub struct Tokens(Arc<RwLock<Arc<Rules>>>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl PartialEq for Tokens {
    fn eq(&self, other: &Tokens) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tokens {}

impl Tokens {
    /// Makes the rules of a listener.
    pub fn new(rules: Rules) -> Tokens {
        Tokens(Arc::new(RwLock::new(Arc::new(rules))))
    }

    /// Takes over the rules of `other`.
    pub fn replace(&self, other: &Tokens) {
        let rules = other.rules();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Returns the rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Rules {
    /// Returns what a token proves at a time in milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// The token proves nothing, and why.
    pub fn verify(&self, token: &[u8], now_ms: u64) -> Result<Verified, Refusal> {
        if token.is_empty() {
            return Err(Refusal::NoToken);
        }
        let claims = self.signed_claims(token)?;
        let lasts = self.check_times(&claims, now_ms)?;
        let issuer = claims.get("iss").and_then(Value::as_str);
        let is_known = |issuer: &str| self.issuers.iter().any(|known| known == issuer);
        if !self.issuers.is_empty() && !issuer.is_some_and(is_known) {
            return Err(Refusal::Issuer);
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(Refusal::Audience);
        }
        let identity = claims.get(&self.identity_claim).and_then(Value::as_str);
        let identity = identity.filter(|text| is_identity(text)).ok_or(Refusal::NoIdentity)?;
        let attributes = self.attributes(&claims)?;
        Ok(Verified { identity: identity.into(), attributes, lasts })
    }

    /// Returns the claims of a token that one of the keys has signed.
    fn signed_claims(&self, token: &[u8]) -> Result<Map<String, Value>, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        if header.crit.is_some() {
            // Whoever does not understand all extensions that it names must refuse it (RFC 7515).
            return Err(Refusal::Malformed);
        }
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let mut refusal = Refusal::UnknownKey;
        for key in self.keys.of(header.alg, header.kid.as_deref()) {
            match decode(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                    refusal = Refusal::Signature;
                }
                Err(_) => return Err(Refusal::Malformed),
            }
        }
        Err(refusal)
    }

    /// Returns how long the session may last, if the token holds now.
    fn check_times(
        &self,
        claims: &Map<String, Value>,
        now_ms: u64,
    ) -> Result<Option<Span>, Refusal> {
        let leeway = self.leeway.as_millis();
        let end = time_ms(claims.get("exp"))?.map(|end| end.saturating_add(leeway));
        match end {
            Some(end) if now_ms >= end => return Err(Refusal::Expired),
            Some(_) => {}
            None if self.needs_expiry => return Err(Refusal::NoExpiry),
            None => {}
        }
        match time_ms(claims.get("nbf"))? {
            Some(begin) if now_ms.saturating_add(leeway) < begin => {
                return Err(Refusal::NotYetValid);
            }
            Some(_) | None => {}
        }
        let left = end.map(|end| Span::from_millis(end - now_ms));
        Ok(left.filter(|_| self.ends_sessions))
    }

    /// Returns the claims that become attributes, as a JSON object.
    fn attributes(&self, claims: &Map<String, Value>) -> Result<Box<str>, Refusal> {
        let given = |name: &String| claims.get(name).map(|value| (name.clone(), value.clone()));
        let attributes: Map<String, Value> = self.attributes.iter().filter_map(given).collect();
        if attributes.is_empty() {
            return Ok(Box::default());
        }
        let text = Value::Object(attributes).to_string();
        if text.len() > MAX_ATTRIBUTES { Err(Refusal::Attributes) } else { Ok(text.into()) }
    }

    /// Whether a token with this claim `aud` is for this service: a text, or a list of texts.
    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let is_ours =
            |it: &Value| it.as_str().is_some_and(|it| self.audiences.iter().any(|a| a == it));
        match audience {
            None => self.audiences.is_empty(),
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
        }
    }
}

/// Returns a time in a token, in milliseconds: a number of seconds, which may have a fraction.
fn time_ms(claim: Option<&Value>) -> Result<Option<u64>, Refusal> {
    let Some(claim) = claim else {
        return Ok(None);
    };
    if let Some(seconds) = claim.as_u64() {
        return Ok(Some(seconds.saturating_mul(1_000)));
    }
    let seconds = claim.as_f64().ok_or(Refusal::Malformed)?;
    // A number that is too large becomes the largest one, and a time before 1970 becomes 1970.
    Ok(Some((seconds * 1_000.0) as u64))
}

#[cfg(test)]
impl Rules {
    /// Rules for tests: whoever has one of the keys is believed, for as long as the token lasts.
    pub(crate) fn of_keys(keys: Keys) -> Rules {
        Rules {
            keys,
            issuers: Vec::new(),
            audiences: Vec::new(),
            identity_claim: "sub".to_owned(),
            leeway: Span::from_secs(30),
            needs_expiry: true,
            attributes: Vec::new(),
            ends_sessions: false,
        }
    }
}

#[cfg(test)]
mod tests;
