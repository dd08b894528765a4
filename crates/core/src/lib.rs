//! The decisions of Systole, as pure state machines: when a peer is probed, when it becomes
//! suspect, when the verdict falls, and what goes on the wire.
//!
//! Nothing here reads a clock, opens a socket, logs, or draws a random number. Every machine has
//! one door in, [`Machine::handle`] with an explicit time, and one door out,
//! [`Machine::poll_output`]. This drives one [`Link`] in virtual time, from the open to the verdict
//! on a silent peer:
//!
//! ```
//! use systole_core::link::{Answer, Output, SessionKey, Settings, Side, World};
//! use systole_core::{Link, Machine, Policy, Time, session, wire::Codec};
//!
//! // First probe after 10 s of silence, one each 3 s, three in all: the bound is 19 s.
//! let settings = Settings::new(Codec::Line, Side::Accepting, Policy::kernel_like());
//! let mut link = Link::new(Time::ZERO, settings, 1);
//! link.handle(Time::ZERO, World::Received(b"hello\n"));
//! link.handle(Time::ZERO, Answer::admitted(SessionKey::default()));
//! let mut probes = 0;
//! let verdict = 'open: loop {
//!     while let Some(output) = link.poll_output() {
//!         match output {
//!             Output::Transmit { bytes, .. } => probes += u32::from(bytes == b"ping\n"),
//!             Output::Session(session::Event::Left(verdict)) => break 'open verdict,
//!             _ => {}
//!         }
//!     }
//!     let deadline = link.next_deadline().expect("an open link has a deadline");
//!     link.handle(deadline.at, Answer::Deadline);
//! };
//! assert_eq!((probes, verdict.at), (3, Time::from_millis(19_000)));
//! ```
//!
//! # One link
//! - [`policy`]: idle, interval and probes, which make the bound
//! - [`liveness`]: probes, suspicion and the verdict of one link
//! - [`link`]: one connection with its handshake, heartbeats, data, inquiry and departure
//! - [`wire`]: frames and their codecs
//! - [`session`]: the events of a session, whatever carries it
//! - [`window`]: the messages of a session that outlive a link
//! - [`dial`]: which address of a name a client connects to
//! - [`reconnect`]: when a client connects again
//!
//! # Many links
//! - [`hub`]: the links of one gateway shard
//! - [`beacon`]: devices that state that they are alive in single datagrams
//!
//! # Why a link ended
//! - [`cause`]: the verdict and its cause
//! - [`kernel`]: what an examination of a socket shows, and how long the kernel must not give up
//! - [`diagnosis`]: from examinations to a cause
//! - [`flight`]: the latest events of one link
//! - [`witness`]: what a client remembers of a link for its next connection
//! - [`ledger`]: verdicts that are revised when the peer returns
//! - [`denial`]: why a login is refused
//! - [`outage`]: verdicts that belong to one outage
//!
//! # Running the machines
//! - [`machine`]: the shape that all machines have
//! - [`driver`]: a machine with its timing wheel
//! - [`tap`]: recording and replay
//! - [`vigilance`]: the clock that stands still while the observer is stalled
//! - [`gather`]: when a loop rests so that its next turn finds more work
//! - [`wheel`], [`pages`]: containers for deadlines and for large tables
//! - [`budget`]: memory that many links share, and who gives way
//! - [`origin`]: where an entry of a bounded table came from, and whose entry makes room
//! - [`random`]: numbers from a seed
//! - [`text`]: text from outside, escaped for those who print it
#![no_std]

extern crate alloc;

pub mod beacon;
pub mod budget;
pub mod cause;
pub mod denial;
pub mod diagnosis;
pub mod dial;
pub mod driver;
pub mod flight;
pub mod gather;
mod grounds;
pub mod home;
pub mod hub;
pub mod kernel;
pub mod ledger;
pub mod link;
pub mod liveness;
pub mod machine;
mod name;
pub mod origin;
pub mod outage;
pub mod pages;
mod plain;
pub mod policy;
pub mod random;
pub mod reconnect;
pub mod resume;
pub mod session;
pub mod tap;
pub mod text;
mod time;
pub mod vigilance;
pub mod wheel;
pub mod window;
pub mod wire;
pub mod witness;

pub use cause::{Cause, Verdict};
pub use hub::Hub;
pub use link::Link;
pub use machine::Machine;
pub use policy::Policy;
pub use time::{Span, Time};
