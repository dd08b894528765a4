//! A Tokio client that detects the loss of its server, reports the cause, and reconnects.
//!
//! [`Client::connect`] opens a link; [`Client::next_event`] reports what happens to it. All
//! decisions are made by [`systole_core::Link`], the machine that the gateway runs too, so both
//! ends compute the same bound. Code without Tokio can use that machine directly: see the examples
//! `blocking_client` and `blocking_server`.
//!
//! ```no_run
//! use systole_client::{Client, Event, Options};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:7400", Options::default()).await?;
//! client.send(b"hello").await?;
//! while let Some(event) = client.next_event().await {
//!     match event {
//!         Event::Message(bytes) => println!("{} bytes", bytes.len()),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A gateway with a resume window keeps a session whose link is lost. The client then resumes it on
//! the next link: [`Event::Away`] and [`Event::Resumed`] report that, and no message of either
//! direction is lost or doubled. [`Client::flush`] tells when all have arrived, across any number
//! of links, and [`Event::NotResumed`] which have not if the session is gone.
//!
//! ```no_run
//! use systole_client::{Client, Event, FlushError};
//!
//! # async fn example(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
//! client.send(b"buy 10").await?;
//! match client.flush().await {
//!     Ok(()) => println!("it has arrived, whatever happened to the link"),
//!     Err(FlushError::NotResumed { unacknowledged }) => println!("{unacknowledged} in doubt"),
//!     Err(error) => println!("{error}"),
//! }
//! while let Some(event) = client.next_event().await {
//!     if let Event::NotResumed { undelivered, .. } = event {
//!         println!("{} may have arrived", undelivered.uncertain);
//!         println!("{} have not: send them in the next session", undelivered.unsent);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A token of [`Options::token`] is shown at every login. One that expires needs
//! [`Options::token_source`], which gives a fresh one for each login: see [`token`].
//!
//! Every type that this API uses is exported here, so an application depends on this crate alone:
//!
//! ```no_run
//! use systole_client::reconnect::Backoff;
//! use systole_client::{Client, CloseReason, Codec, Event, Options, Policy, Span};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = Options::default();
//! options.codec = Codec::Native;
//! options.identity = "ada".to_owned();
//! // First probe after 5 s of silence, one each 2 s, three in all: the bound is 11 s.
//! options.policy = Some(Policy::new(Span::from_secs(5), Span::from_secs(2), 3)?);
//! options.reconnect = Some(Backoff::default().with_attempts(10));
//!
//! let client = Client::connect("127.0.0.1:7400", options).await?;
//! while let Some(event) = client.next_event().await {
//!     match event {
//!         Event::Lost { verdict, farewell, .. } => {
//!             println!("lost: {} ({})", verdict.cause, verdict.confidence.name());
//!             if farewell.is_some_and(|goodbye| goodbye.reason == CloseReason::Drained) {
//!                 println!("the gateway restarts");
//!             }
//!         }
//!         Event::Message(_) => client.close(CloseReason::Done).await?,
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod away;
mod backlog;
mod begin;
mod carry_over;
mod client;
mod connection;
mod dialer;
mod driver;
mod error;
mod event;
mod event_translator;
mod lookup;
mod loop_clock;
mod mailbox;
mod old_flow;
mod options;
mod shared;
pub mod token;
mod undelivered;

pub use client::Client;
pub use error::{CloseError, ConnectError, FlushError, SendError};
pub use event::{Ending, Event, SessionId};
pub use options::Options;
pub use systole_core::wire::{CloseReason, Codec};
pub use systole_core::{Policy, Span};
pub use undelivered::Undelivered;

/// What a verdict says: the cause of a loss, and the evidence for it.
pub mod cause {
    pub use systole_core::Time;
    pub use systole_core::cause::{Cause, Confidence, Direction, Scope, Verdict};
    pub use systole_core::diagnosis::{Ground, Grounds};
    pub use systole_core::wire::Malformed;
}

/// What a [`Policy`] is made of, and what to do with a server that hangs.
pub mod policy {
    pub use systole_core::link::Hung;
    pub use systole_core::policy::{Detection, PolicyError};
}

/// When a client reconnects, and when it does not.
pub mod reconnect {
    pub use systole_core::link::Goodbye;
    pub use systole_core::reconnect::{Backoff, BackoffError, Obstacle, Stop};
}

/// TLS: whom a client believes, and what it shows; see [`Options::tls`].
pub mod tls {
    pub use crate::error::TlsProgress;
    pub use systole_net::tls::{Believe, ClientTls, Distrust, Identity, Pin, TlsError};
}

/// The events of a session, which [`Event::Session`] wraps.
pub mod session {
    pub use systole_core::resume::NotResumed;
    pub use systole_core::session::{Event, Topic};
    pub use systole_core::wire::{Account, Saw};
}

/// Heartbeats as [`Event`] reports them, and the maximum lengths of what the native
/// protocol carries.
pub mod wire {
    pub use systole_core::link::BeatKind;
    pub use systole_core::wire::{MAX_HEARTBEAT_DATA, MAX_IDENTITY, MAX_TOKEN};
}
