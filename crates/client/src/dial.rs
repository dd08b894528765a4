//! Dialing: the parameters of a link, and its connected socket.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use systole_core::link::Introduction;
use systole_core::wire::{BootId, InstanceId};
use systole_core::witness::Past;
use tokio::net::{TcpStream, lookup_host};

use crate::{ConnectError, Options};

/// Parameters of one link.
pub(crate) struct LinkParams {
    pub(crate) addr: String,
    pub(crate) options: Options,
    pub(crate) introduction: Introduction,
    /// How the previous link ended.
    pub(crate) past: Option<Past>,
    pub(crate) boot_id: BootId,
    pub(crate) instance_id: InstanceId,
    /// Number of this link among those of the client, from 1.
    pub(crate) link_number: u64,
    /// Number of the attempt to reconnect; 0 for the first link.
    pub(crate) attempt: u32,
    pub(crate) seed: u64,
}

/// Resolves `addr` and connects to the first address that accepts. Each address has an equal share
/// of the time, so that a silent one does not prevent a try of the next.
pub(crate) async fn connect(addr: &str, limit: Duration) -> Result<TcpStream, ConnectError> {
    let unresolved = |why: String| ConnectError::Resolve { name: addr.to_owned(), why };
    let found = match tokio::time::timeout(limit, lookup_host(addr)).await {
        Ok(found) => found.map_err(|error| unresolved(error.to_string()))?.collect::<Vec<_>>(),
        Err(_) => return Err(ConnectError::Timeout(limit)),
    };
    let share = limit / u32::try_from(found.len()).unwrap_or(u32::MAX).max(1);
    let mut last = unresolved("it has none".to_owned());
    for addr in found {
        match tokio::time::timeout(share, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => match SockRef::from(&stream).set_out_of_band_inline(true) {
                Ok(()) => return Ok(stream),
                Err(error) => last = ConnectError::from_io(&error),
            },
            Ok(Err(error)) => last = ConnectError::from_io(&error),
            Err(_) => last = ConnectError::Timeout(share),
        }
    }
    Err(last)
}

/// Duplicates the socket and registers the duplicate with the runtime.
pub(crate) fn reregister(stream: &TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(SockRef::from(stream).try_clone()?.into())
}
