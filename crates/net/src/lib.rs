//! Operating-system services for Systole: the one clock, addresses as people write them, listening
//! sockets, the options of a connection, its reads and writes, TLS, the kernel's evidence about it,
//! the identity of machine and process, and the descriptor limit.
//!
//! This crate decides nothing; decisions live in `systole-core`.

pub mod address;
pub mod clock;
pub mod datagrams;
pub mod examine;
pub mod identity;
pub mod inherited;
pub mod limits;
pub mod listener;
#[cfg(target_os = "linux")]
mod next_hop;
pub mod obstacle;
pub mod socket_options;
mod sockopt;
pub mod tcp_info;
#[cfg(feature = "tls")]
pub mod tls;
pub mod transport;

pub use clock::Clock;
pub use examine::{RouteLookup, examine};
pub use socket_options::SocketOptions;
pub use sockopt::TcpSocket;
