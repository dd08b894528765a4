//! What Systole needs of the operating system, and nothing else: the one clock, listening sockets,
//! the options of a connection and what the kernel knows of it, the identity of machine and
//! process, and the descriptor limit.
//!
//! Nothing here decides anything; decisions live in `systole-core`.

pub mod clock;
pub mod datagrams;
pub mod examine;
pub mod identity;
pub mod limits;
pub mod listener;
pub mod socket_options;
mod sockopt;
pub mod tcp_info;

pub use clock::Clock;
pub use examine::examine;
pub use socket_options::SocketOptions;
pub use sockopt::TcpSocket;
