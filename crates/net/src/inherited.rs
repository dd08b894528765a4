//! Listening sockets that the parent of this process has opened and passes to it, as systemd and
//! other supervisors do: sd_listen_fds(3).

use std::io;
use std::net::TcpListener;

use socket2::SockRef;

/// Takes the listening TCP sockets that the parent passed: descriptors from 3 on, their number in
/// `LISTEN_FDS`, this process in `LISTEN_PID` unless the variable is missing.
///
/// Call it before other threads start, since it removes both variables: a second call, or a child,
/// gets none. The sockets do not block, which holds for the parent's descriptors too.
///
/// # Errors
/// A descriptor is not a TCP socket that listens. The parent has passed something else, or has
/// passed nothing and a variable is left over.
#[cfg(unix)]
pub fn take_listeners() -> io::Result<Vec<TcpListener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        if let Some(socket) = passed.take_tcp_listener(index)? {
            listeners.push(adopt(socket)?);
        }
    }
    Ok(listeners)
}

/// Returns no sockets: this system passes none.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn take_listeners() -> io::Result<Vec<TcpListener>> {
    Ok(Vec::new())
}

/// Returns a descriptor of one listening socket for each of `shards` shards. All of them take from
/// the same queue.
///
/// # Errors
/// The process has no descriptor left.
pub fn share(socket: TcpListener, shards: usize) -> io::Result<Vec<TcpListener>> {
    let copies = (1..shards).map(|_| socket.try_clone());
    let mut sockets = copies.collect::<io::Result<Vec<_>>>()?;
    sockets.push(socket);
    Ok(sockets)
}

/// Checks that a socket listens, and prepares it as [`listener::bind`](crate::listener::bind) does.
#[cfg(unix)]
fn adopt(socket: TcpListener) -> io::Result<TcpListener> {
    let listening = SockRef::from(&socket);
    if !listening.is_listener()? {
        let text = "it is a connection or a socket that does not listen, not a listening socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    listening.set_out_of_band_inline(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(all(test, unix))]
mod tests {
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_connection_is_not_taken_for_a_listening_socket() {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let connection = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let error = adopt(TcpListener::from(OwnedFd::from(connection))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let socket = adopt(socket).unwrap();
        assert!(SockRef::from(&socket).out_of_band_inline().unwrap());
        drop(socket.accept().unwrap());
        assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn all_shards_take_from_the_queue_of_a_shared_socket() {
        let socket = adopt(TcpListener::bind(("127.0.0.1", 0)).unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let sockets = share(socket, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        let clients = [0; 3].map(|_| TcpStream::connect(address).unwrap());
        for (socket, client) in sockets.iter().zip(clients) {
            let (_, from) = socket.accept().unwrap();
            assert_eq!(from, client.local_addr().unwrap(), "in the order of the queue");
        }
    }
}
