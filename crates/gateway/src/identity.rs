//! Who a client is: tokens are verified here, and never issued.
//!
//! A listener has [`Tokens`]: the keys of those who issue tokens, and what a token must say. A
//! shard gives the token of a login to a thread of its own (`identity/pool.rs`), since a signature
//! takes a tenth of a millisecond, and gets the answer as a request. Or a service of the operator
//! is asked ([`Webhook`]). Nothing here logs a token or keeps it.

mod fair;
mod keys;
mod offenders;
mod pool;
mod refusal;
mod rules;
mod webhook;

pub(crate) use fair::Ticket;
pub use keys::{KeyError, Keys};
pub(crate) use offenders::Offenders;
pub use pool::{Answer, Job, Jobs, Pool, Verifier, jobs};
pub use refusal::{Refusal, refuse_after};
pub use rules::{Rules, Tokens, Verified};
pub use webhook::{Webhook, WebhookSettings};
