//! Socket options that the `socket2` crate lacks or has on some systems only.
//!
//! On systems without an option, setting it returns `Unsupported` and reading it returns `None`.

use std::io;

use socket2::Socket;

/// A TCP socket that can be borrowed: of the standard library, of mio or of Tokio.
#[cfg(unix)]
pub trait TcpSocket: std::os::fd::AsFd {}
#[cfg(unix)]
impl<S: std::os::fd::AsFd> TcpSocket for S {}

/// A TCP socket that can be borrowed: of the standard library, of mio or of Tokio.
#[cfg(windows)]
pub trait TcpSocket: std::os::windows::io::AsSocket {}
#[cfg(windows)]
impl<S: std::os::windows::io::AsSocket> TcpSocket for S {}

#[cfg(all(test, target_os = "linux"))]
pub(crate) use system::{has_recverr, rto_max_ms};
pub(crate) use system::{
    holds_unreadable, set_notsent_lowat, set_recverr_v4, set_recverr_v6, set_rto_max_ms,
    set_user_timeout_ms, tcp_info,
};

#[cfg(target_os = "linux")]
mod system {
    use std::sync::OnceLock;
    use std::time::Duration;

    use nix::sys::socket::{getsockopt, setsockopt, sockopt};
    use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

    use super::{Socket, io};
    use crate::tcp_info::{LENGTHS, MAX_LEN};

    /// Option number of `TCP_RTO_MAX_MS` (linux/tcp.h, Linux 6.15), which the libc crate lacks.
    const TCP_RTO_MAX_MS: libc::c_int = 44;

    sockopt_impl!(RtoMaxMs, Both, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, u32);

    // The nine values of `SO_MEMINFO` (linux/sock_diag.h, Linux 4.12); the first is the memory that
    // received segments take.
    sockopt_impl!(MemInfo, GetOnly, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9]);

    // The binding requires exactly as many bytes as it asked for, and a kernel returns no more than
    // it has: hence one type per length.
    sockopt_impl!(Info104, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; 104]);
    sockopt_impl!(Info144, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; 144]);
    sockopt_impl!(Info160, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; 160]);
    sockopt_impl!(Info192, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; 192]);
    sockopt_impl!(Info232, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; 232]);

    pub(crate) fn set_rto_max_ms(socket: &Socket, millis: u32) -> io::Result<()> {
        Ok(setsockopt(socket, RtoMaxMs, &millis)?)
    }

    #[cfg(test)]
    pub(crate) fn rto_max_ms(socket: &Socket) -> Option<u32> {
        getsockopt(socket, RtoMaxMs).ok()
    }

    #[cfg(test)]
    pub(crate) fn has_recverr(socket: &Socket, v6: bool) -> bool {
        if v6 {
            getsockopt(socket, sockopt::Ipv6RecvErr).unwrap_or(false)
        } else {
            getsockopt(socket, sockopt::Ipv4RecvErr).unwrap_or(false)
        }
    }

    pub(crate) fn set_user_timeout_ms(socket: &Socket, millis: u32) -> io::Result<()> {
        let timeout = Duration::from_millis(millis.into());
        socket.set_tcp_user_timeout((millis > 0).then_some(timeout))
    }

    pub(crate) fn set_notsent_lowat(socket: &Socket, bytes: u32) -> io::Result<()> {
        socket.set_tcp_notsent_lowat(bytes)
    }

    pub(crate) fn set_recverr_v4(socket: &Socket) -> io::Result<()> {
        Ok(setsockopt(socket, sockopt::Ipv4RecvErr, &true)?)
    }

    pub(crate) fn set_recverr_v6(socket: &Socket) -> io::Result<()> {
        Ok(setsockopt(socket, sockopt::Ipv6RecvErr, &true)?)
    }

    /// Returns whether the socket holds received segments although no byte can be read.
    pub(crate) fn holds_unreadable(socket: &Socket) -> Option<bool> {
        // In this order: a segment that arrives in between makes a byte readable, or is no longer
        // counted.
        let [received, ..] = getsockopt(socket, MemInfo).ok()?;
        Some(received > 0 && rustix::io::ioctl_fionread(socket).ok()? == 0)
    }

    /// Reads `TCP_INFO`: the length that this kernel certainly has, and the bytes.
    pub(crate) fn tcp_info(socket: &Socket) -> Option<(usize, [u8; MAX_LEN])> {
        static LEN: OnceLock<usize> = OnceLock::new();
        let len = *LEN.get_or_init(|| {
            let release = rustix::system::uname();
            min_length(&release.release().to_string_lossy())
        });
        let mut bytes = [0; MAX_LEN];
        let part = &mut bytes[..len];
        match len {
            232 => part.copy_from_slice(&getsockopt(socket, Info232).ok()?),
            192 => part.copy_from_slice(&getsockopt(socket, Info192).ok()?),
            160 => part.copy_from_slice(&getsockopt(socket, Info160).ok()?),
            144 => part.copy_from_slice(&getsockopt(socket, Info144).ok()?),
            104 => part.copy_from_slice(&getsockopt(socket, Info104).ok()?),
            _ => return None,
        }
        Some((len, bytes))
    }

    /// Returns the length of `TCP_INFO` that a kernel of this release (`uname -r`) has at least.
    ///
    /// Distributors backport fields to older releases, which only lengthens the structure. A
    /// release that cannot be parsed counts as the oldest.
    fn min_length(release: &str) -> usize {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|digits| digits.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let known = LENGTHS.iter().rev().find(|(since, _)| *since <= version);
        known.map_or(LENGTHS[0].1, |(_, len)| *len)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_length_follows_the_release() {
            for (release, len) in [
                ("6.18.44-fc", 232),
                ("5.4.0-generic", 232),
                ("5.3.18-150300", 224),
                ("4.18.0-553.el8_10.x86_64", 192),
                ("4.10", 192),
                ("4.9.337", 160),
                ("4.6.0", 160),
                ("4.4.0", 144),
                ("4.1.52", 104),
                ("3.10.0-1160.el7", 104),
                ("2.6.32", 104),
                ("10.0", 232),
                ("", 104),
                ("unknown", 104),
                ("99999999999999999999.1", 104),
            ] {
                assert_eq!(min_length(release), len, "{release}");
            }
        }

        #[test]
        fn this_kernel_returns_each_length() {
            let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            assert!(getsockopt(&socket, Info104).is_ok());
            assert!(getsockopt(&socket, Info144).is_ok());
            assert!(getsockopt(&socket, Info160).is_ok());
            assert!(getsockopt(&socket, Info192).is_ok());
            assert!(getsockopt(&socket, Info232).is_ok());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Socket, io};
    use crate::tcp_info::MAX_LEN;

    pub(crate) fn set_rto_max_ms(_socket: &Socket, _millis: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_user_timeout_ms(_socket: &Socket, _millis: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_notsent_lowat(_socket: &Socket, _bytes: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_recverr_v4(_socket: &Socket) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn set_recverr_v6(_socket: &Socket) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn holds_unreadable(_socket: &Socket) -> Option<bool> {
        None
    }

    pub(crate) fn tcp_info(_socket: &Socket) -> Option<(usize, [u8; MAX_LEN])> {
        None
    }
}
