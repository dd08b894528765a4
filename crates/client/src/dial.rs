//! From a name to a connected socket.

use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use crate::ConnectError;

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
