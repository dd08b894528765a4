//! From a plan and a name to a connected socket.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use systole_core::link::Introduction;
use systole_core::wire::{BootId, InstanceId};
use systole_core::witness::Past;
use tokio::net::{TcpStream, lookup_host};

use crate::{ConnectError, Options};

/// How to open a link.
pub(crate) struct Plan {
    pub(crate) addr: String,
    pub(crate) options: Options,
    pub(crate) introduction: Introduction,
    /// How the link before this one ended.
    pub(crate) past: Option<Past>,
    pub(crate) boot_id: BootId,
    pub(crate) instance_id: InstanceId,
    /// The number of this link among the client's, from 1.
    pub(crate) link: u64,
    /// Which attempt to reconnect it is; 0 for the first link.
    pub(crate) attempt: u32,
    pub(crate) seed: u64,
}

/// Finds the addresses of `addr` and connects to the first that accepts. Each has the same share of
/// the time, so that one that is silent does not hide the next.
pub(crate) async fn connect(addr: &str, within: Duration) -> Result<TcpStream, ConnectError> {
    let unresolved = |why: String| ConnectError::Resolve { name: addr.to_owned(), why };
    let found = match tokio::time::timeout(within, lookup_host(addr)).await {
        Ok(found) => found.map_err(|error| unresolved(error.to_string()))?.collect::<Vec<_>>(),
        Err(_) => return Err(ConnectError::Timeout(within)),
    };
    let share = within / u32::try_from(found.len()).unwrap_or(u32::MAX).max(1);
    let mut last = unresolved("it has none".to_owned());
    for addr in found {
        match tokio::time::timeout(share, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => {
                return Ok(stream);
            }
            Ok(Err(error)) => last = ConnectError::from_io(&error),
            Err(_) => last = ConnectError::Timeout(share),
        }
    }
    Err(last)
}

/// The same connection as a socket that the runtime has not seen.
pub(crate) fn register_anew(stream: &TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(SockRef::from(stream).try_clone()?.into())
}
