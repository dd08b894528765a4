//! A connect webhook: a service of the operator is asked who has a token.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use systole_core::Span;
use systole_core::hub::MAX_ATTRIBUTES;
use systole_core::wire::is_identity;
use ureq::Agent;

use super::refusal::Refusal;
use super::rules::Verified;
use crate::json::escape;
use crate::webhooks::{agent, post, shown_url};

/// Longest answer in bytes; far above an identity and attributes.
const MAX_ANSWER: u64 = 16 << 10;

/// Longest reason of a refusal in the log, in characters.
const LONGEST_REASON: usize = 128;

/// Maximum number of refusals that are remembered. Beyond it the oldest one is forgotten, and its
/// token asked for again.
const REMEMBERED: usize = 4_096;

/// The service that is asked. Clones share it; what is replaced holds for later logins.
#[derive(Clone)]
pub struct Webhook(Arc<RwLock<Arc<Inner>>>);

/// Where the service is, and how it is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The name of the listener, which the service is told.
    pub listener: String,
    /// The URL.
    pub url: String,
    /// What proves to the service that the gateway asks; empty for nothing.
    pub secret: String,
    /// How long the service may take.
    pub timeout: Span,
    /// For how long a refusal is remembered.
    pub remember: Span,
    /// The certificates that vouch for the service, in DER.
    pub roots: Vec<Vec<u8>>,
}

struct Inner {
    settings: WebhookSettings,
    agent: Agent,
    refused: Mutex<Refused>,
}

/// The tokens that were refused, with the times until which they are, on a monotonic clock.
#[derive(Default)]
struct Refused {
    until: HashMap<[u8; 32], Span>,
    /// All of them, the oldest in front.
    order: VecDeque<[u8; 32]>,
}

/// What the service answers.
#[derive(Deserialize)]
struct Answer {
    identity: Option<String>,
    #[serde(default)]
    attributes: Map<String, Value>,
    lasts_seconds: Option<u64>,
    refused: Option<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook(…)")
    }
}

impl PartialEq for Webhook {
    fn eq(&self, other: &Webhook) -> bool {
        self.inner().settings == other.inner().settings
    }
}

impl Eq for Webhook {}

impl Webhook {
    /// Returns how long the service may take.
    pub fn timeout(&self) -> Span {
        self.inner().settings.timeout
    }

    /// Makes the way to a service.
    pub fn new(settings: WebhookSettings) -> Webhook {
        let agent = agent(settings.timeout, settings.timeout, &settings.roots);
        let inner = Inner { settings, agent, refused: Mutex::default() };
        Webhook(Arc::new(RwLock::new(Arc::new(inner))))
    }

    /// Takes over the settings of `other`, if they differ; returns whether they do. What the
    /// service refused by the old ones is then forgotten.
    pub fn replace(&self, other: &Webhook) -> bool {
        let differs = self != other;
        if differs {
            let inner = other.inner();
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = inner;
        }
        differs
    }

    /// Whether the gateway proves to the service that it asks.
    pub fn has_secret(&self) -> bool {
        !self.inner().settings.secret.is_empty()
    }

    /// Returns the URL, which may hold a secret.
    pub(crate) fn url(&self) -> String {
        self.inner().settings.url.clone()
    }

    /// Returns the URL without what may be a secret in it: user, password and query.
    pub fn shown_url(&self) -> String {
        shown_url(&self.inner().settings.url)
    }

    fn inner(&self) -> Arc<Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks who has a token. `now` is the time of a monotonic clock.
    ///
    /// # Errors
    /// The token proves nothing, or the service does not tell.
    pub(super) fn ask(&self, token: &[u8], from: IpAddr, now: Span) -> Result<Verified, Refusal> {
        let text = str::from_utf8(token).map_err(|_| Refusal::Malformed)?;
        let key = refusal_key(token, from);
        let inner = self.inner();
        if inner.refused().is_refused(key, now) {
            return Err(Refusal::Webhook);
        }
        let result = inner.post(text, from);
        if result == Err(Refusal::Webhook) {
            inner.refused().remember(key, now, inner.settings.remember);
        }
        result
    }
}

impl Inner {
    fn refused(&self) -> std::sync::MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, token: &str, from: IpAddr) -> Result<Verified, Refusal> {
        let WebhookSettings { listener, url, secret, .. } = &self.settings;
        let question = question(listener, from, token);
        let mut request = post(&self.agent, url).header("Content-Type", "application/json");
        if !secret.is_empty() {
            request = request.header("Authorization", format!("Bearer {secret}"));
        }
        // The error of the client may quote the URL, and never the body.
        let failed = |error: ureq::Error| {
            tracing::debug!(listener, %error, "the webhook failed");
            Refusal::WebhookFailed
        };
        let mut response = request.send(question).map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        let body = body.map_err(failed)?;
        // 401 and 403 too: they are about the gateway's secret, or come from somebody on the way.
        if status != 200 {
            tracing::debug!(listener, status, "the webhook failed");
            return Err(Refusal::WebhookFailed);
        }
        self.read(&body)
    }

    /// Reads the answer of the service.
    fn read(&self, body: &str) -> Result<Verified, Refusal> {
        let listener = &self.settings.listener;
        let illegal = |why: &str| {
            tracing::debug!(listener, why, "the webhook gave an illegal answer");
            Refusal::WebhookFailed
        };
        // The parser takes an array too, for the fields in their order.
        let is_object = body.trim_start().starts_with('{');
        // Its error may quote the answer.
        let answer = serde_json::from_str(body).ok().filter(|_| is_object);
        let answer: Answer = answer.ok_or_else(|| illegal("no JSON object of the known form"))?;
        if let Some(reason) = answer.refused {
            let reason: String = reason.chars().take(LONGEST_REASON).collect();
            tracing::debug!(listener, reason, "the webhook refused a login");
            return Err(Refusal::Webhook);
        }
        let identity = answer.identity.ok_or_else(|| illegal("neither identity nor refused"))?;
        let is_empty = answer.attributes.is_empty();
        let attributes = Value::Object(answer.attributes).to_string();
        if !is_identity(&identity) {
            return Err(illegal("the identity is empty, too long, or has a control character"));
        }
        if attributes.len() > MAX_ATTRIBUTES {
            return Err(illegal("the attributes are too long"));
        }
        let attributes = if is_empty { Box::default() } else { attributes.into() };
        let lasts = answer.lasts_seconds.map(Span::from_secs);
        Ok(Verified { identity: identity.into(), attributes, lasts })
    }
}

/// Returns what stands for a token and an address. The address ends at a byte that it cannot hold,
/// so that no other pair gives the same bytes.
fn refusal_key(token: &[u8], from: IpAddr) -> [u8; 32] {
    let address = Sha256::new().chain_update(from.to_string()).chain_update([0]);
    address.chain_update(token).finalize().into()
}

impl Refused {
    fn is_refused(&self, key: [u8; 32], now: Span) -> bool {
        self.until.get(&key).is_some_and(|until| now < *until)
    }

    fn remember(&mut self, key: [u8; 32], now: Span, remember: Span) {
        if remember == Span::ZERO {
            return;
        }
        if self.until.insert(key, now + remember).is_some() {
            // It is the newest again.
            self.order.retain(|known| *known != key);
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }
}

/// Returns what the service is asked.
fn question(listener: &str, from: IpAddr, token: &str) -> String {
    escape(json!({"listener": listener, "address": from, "token": token}).to_string())
}

#[cfg(test)]
mod tests;
