//! A client that notices when its server is gone, says why, and comes back.
//!
//! [`Client::connect`] opens a link; [`Client::next_event`] tells what becomes of it. The
//! decisions are those of [`systole_core::Link`], the same machine that the gateway runs, so both
//! ends compute the same bound. For code without Tokio that machine can be used directly: see the
//! examples `blocking_client` and `blocking_server`.
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

mod client;
mod connection;
mod dial;
mod driver;
mod error;
mod event;
mod loop_clock;
mod mailbox;
mod news;
mod options;
mod shared;
mod wishes;

pub use client::Client;
pub use error::{ConnectError, SendError};
pub use event::{Ending, Event};
pub use options::Options;
