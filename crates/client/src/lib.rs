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

mod carry_over;
mod client;
mod connection;
mod dial;
mod driver;
mod error;
mod event;
mod event_translator;
mod loop_clock;
mod mailbox;
mod options;
mod shared;

pub use client::Client;
pub use error::{CloseError, ConnectError, SendError};
pub use event::{Ending, Event};
pub use options::Options;
