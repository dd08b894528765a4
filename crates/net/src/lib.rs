//! What Systole needs of the operating system, and nothing else: the one clock, listening sockets,
//! the identity of machine and process, and the descriptor limit.
//!
//! Nothing here decides anything; decisions live in `systole-core`.

pub mod clock;
pub mod identity;
pub mod limits;
pub mod listener;

pub use clock::Clock;
