//! Network namespaces of one test: two hosts and a router, deleted when the test ends.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace of a test: one of the two ends, or the router between them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    Here,
    There,
    Router,
}

/// A path from `10.1.0.2` (here) through a router to `10.2.0.2` (there).
pub(crate) struct Net {
    name: String,
}

impl Net {
    /// Creates the namespaces. Prints a note and returns `None` where that is impossible and
    /// `SYSTOLE_REQUIRE_TOOLS` is not set.
    pub(crate) fn make(test: &str) -> Option<Net> {
        if !rustix::process::geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
            let required = std::env::var_os("SYSTOLE_REQUIRE_TOOLS").is_some();
            assert!(!required, "{test}: needs root and the command `ip`");
            eprintln!("{test}: skipped, it needs root and the command `ip`");
            return None;
        }
        // Created before the commands run, so that `drop` also cleans up after a failure.
        let net = Net { name: format!("sy{}{test}", std::process::id()) };
        let (here, there, router) = (net.of(Host::Here), net.of(Host::There), net.of(Host::Router));
        for line in [
            format!("netns add {here}"),
            format!("netns add {there}"),
            format!("netns add {router}"),
            format!("link add eth netns {here} type veth peer name r1 netns {router}"),
            format!("link add eth netns {there} type veth peer name r2 netns {router}"),
            format!("-n {here} addr add 10.1.0.2/24 dev eth"),
            format!("-n {there} addr add 10.2.0.2/24 dev eth"),
            format!("-n {router} addr add 10.1.0.1/24 dev r1"),
            format!("-n {router} addr add 10.2.0.1/24 dev r2"),
            format!("-n {here} link set eth up"),
            format!("-n {there} link set eth up"),
            format!("-n {router} link set r1 up"),
            format!("-n {router} link set r2 up"),
            format!("-n {here} route add default via 10.1.0.1"),
            format!("-n {there} route add default via 10.2.0.1"),
        ] {
            ip(&line);
        }
        net.within(Host::Router, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
        Some(net)
    }

    /// Runs the command `ip` in one of the namespaces.
    pub(crate) fn ip(&self, host: Host, line: &str) {
        ip(&format!("-n {} {line}", self.of(host)));
    }

    /// Runs `work` on a thread in one of the namespaces.
    pub(crate) fn within<T: Send>(&self, host: Host, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.of(host));
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let space = File::open(path).unwrap();
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(space.as_fd(), kind).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Opens a connection; returns the end here and the accepted end there.
    pub(crate) fn connect(&self) -> (TcpStream, TcpStream) {
        let listener = self.within(Host::There, || TcpListener::bind("10.2.0.2:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let here = self.within(Host::Here, || TcpStream::connect(addr).unwrap());
        (here, listener.accept().unwrap().0)
    }

    fn of(&self, host: Host) -> String {
        let letter = match host {
            Host::Here => 'h',
            Host::There => 't',
            Host::Router => 'r',
        };
        format!("{}-{letter}", self.name)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in [Host::Here, Host::There, Host::Router] {
            // A namespace that was never created cannot be deleted; the error is ignored.
            let _ = Command::new("ip").args(["netns", "del", &self.of(host)]).output();
        }
    }
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
}
