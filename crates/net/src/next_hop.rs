//! The next hop to a peer: whether it is the peer itself, and whether it answers. Asks the routes
//! and the neighbour table of this machine (Linux `rtnetlink`).

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};
use systole_core::kernel::NextHop;

/// `AF_NETLINK`; its protocol 0 is that of routes and neighbours.
const AF_NETLINK: i32 = 16;
/// `RTM_NEWNEIGH`, which answers [`GET_NEIGHBOUR`].
const NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;
/// `RTM_NEWROUTE`, which answers [`GET_ROUTE`].
const ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;

const HEADER: usize = 16;
/// The length of `struct rtmsg` and of `struct ndmsg`.
const BODY: usize = 12;

/// `RTA_DST` of a route, and `NDA_DST` of a neighbour.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
/// `RTA_VIA`: a gateway of the other family.
const VIA: u16 = 18;

/// The states of a neighbour that does not answer: `NUD_INCOMPLETE`, while the first questions are
/// out, and `NUD_FAILED`.
const SILENT: u16 = 0x01 | 0x20;

/// The longest answer that is read. Those that are asked for here have some hundred bytes.
const LONGEST: usize = 4_096;

/// Asks for next hops, over one socket that is opened for the first question.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    socket: Option<Socket>,
}

/// A route: the next hop and its interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Route {
    gateway: Option<IpAddr>,
    interface: u32,
}

impl NextHops {
    /// Returns the next hop from our address `local` to `remote`; `None` if the kernel does not
    /// say. A neighbour of which the kernel does not say whether it answers (before Linux 5.0, or
    /// because it was forgotten) counts as one that is not silent.
    pub(crate) fn look_up(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<NextHop> {
        let remote_ip = remote.ip().to_canonical();
        let scope = match remote {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(remote) => remote.scope_id(),
        };
        let asked = route_request(local.ip().to_canonical(), remote_ip, scope);
        let route = parse_route(&self.ask(&asked)?)?;
        let hop = route.gateway.unwrap_or(remote_ip);
        let answer = self.ask(&neighbour_request(hop, route.interface));
        let state = answer.and_then(|answer| parse_neighbour(&answer));
        let is_silent = state.is_some_and(|state| state & SILENT != 0);
        Some(NextHop { is_peer: hop == remote_ip, is_silent })
    }

    /// The kernel has answered when the request is sent, so the read never waits.
    fn ask(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let kind = Type::RAW.nonblocking().cloexec();
                Socket::new(Domain::from(AF_NETLINK), kind, None).ok()?
            }
        };
        socket.send(request).ok()?;
        let mut answer = vec![0; LONGEST];
        let length = (&socket).read(&mut answer).ok()?;
        answer.truncate(length);
        self.socket = Some(socket);
        Some(answer)
    }
}

fn route_request(local: IpAddr, remote: IpAddr, scope: u32) -> Vec<u8> {
    let bits = 8 * bytes_of(remote).len() as u8;
    // The family, the lengths of both prefixes; everything else is the kernel's choice.
    let body = [family(remote), bits, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut request = request(GET_ROUTE, body);
    push(&mut request, DESTINATION, &bytes_of(remote));
    push(&mut request, SOURCE, &bytes_of(local));
    if scope > 0 {
        push(&mut request, INTERFACE, &scope.to_ne_bytes());
    }
    finish(request)
}

fn neighbour_request(hop: IpAddr, interface: u32) -> Vec<u8> {
    let mut body = [0; BODY];
    body[0] = family(hop);
    body[4..8].copy_from_slice(&interface.to_ne_bytes());
    let mut request = request(GET_NEIGHBOUR, body);
    push(&mut request, DESTINATION, &bytes_of(hop));
    finish(request)
}

/// Returns a message without attributes, whose length is not set yet.
fn request(kind: u16, body: [u8; BODY]) -> Vec<u8> {
    let mut request = vec![0; HEADER];
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    request.extend_from_slice(&body);
    request
}

fn push(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = 4 + value.len() as u16;
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(value);
}

fn finish(mut request: Vec<u8>) -> Vec<u8> {
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Parses the answer to a question for a route. Never panics; `None` for an error, and for a route
/// over several interfaces.
fn parse_route(answer: &[u8]) -> Option<Route> {
    let (_, attributes) = parse(answer, ROUTE)?;
    let (mut gateway, mut interface) = (None, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            GATEWAY => gateway = Some(address(value)?),
            VIA => gateway = Some(address(value.get(2..)?)?),
            INTERFACE => interface = Some(u32::from_ne_bytes(value.try_into().ok()?)),
            _ => {}
        }
    }
    Some(Route { gateway, interface: interface? })
}

/// Parses the answer to a question for a neighbour, into its state. Never panics.
fn parse_neighbour(answer: &[u8]) -> Option<u16> {
    let (body, _) = parse(answer, NEIGHBOUR)?;
    Some(u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?))
}

/// Returns the body and the attributes of the first message, if it is of this kind.
fn parse(answer: &[u8], kind: u16) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(answer.get(..4)?.try_into().ok()?);
    let message = answer.get(..usize::try_from(length).ok()?)?;
    let found = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let content = message.get(HEADER..).filter(|_| found == kind)?;
    content.split_at_checked(BODY)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The attributes of a message, up to the first that is not complete.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?);
        let value = self.0.get(4..length)?;
        // Each begins at a multiple of four bytes.
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, body: [u8; BODY], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut answer = request(kind, body);
        for (kind, value) in attributes {
            push(&mut answer, *kind, value);
            answer.resize(answer.len().next_multiple_of(4), 0);
        }
        finish(answer)
    }

    #[test]
    fn a_route_has_its_gateway_of_either_family() {
        let interface = 7_u32.to_ne_bytes();
        let gateway = |attribute: (u16, &[u8])| {
            // An attribute of an odd length before the others.
            let attributes = [(99, &[1, 2, 3][..]), attribute, (INTERFACE, &interface)];
            parse_route(&answer(ROUTE, [0; BODY], &attributes)).map(|route| route.gateway)
        };
        let v6 = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let via = [&[10, 0][..], &v6].concat();
        assert_eq!(gateway((98, &[])), Some(None), "the peer is on the link");
        assert_eq!(gateway((GATEWAY, &[10, 0, 0, 1])), Some(Some([10, 0, 0, 1].into())));
        assert_eq!(gateway((GATEWAY, &v6)), Some(Some(v6.into())));
        assert_eq!(gateway((VIA, &via)), Some(Some(v6.into())));
        assert_eq!(gateway((GATEWAY, &[1, 2])), None);
        assert_eq!(parse_route(&answer(ROUTE, [0; BODY], &[])), None, "no interface");
    }

    #[test]
    fn errors_and_cut_answers_are_refused() {
        let interface = 7_u32.to_ne_bytes();
        let route = answer(ROUTE, [0; BODY], &[(INTERFACE, &interface)]);
        assert!(parse_route(&route).is_some());
        for length in 0..route.len() {
            assert_eq!(parse_route(&route[..length]), None, "{length}");
        }
        // NLMSG_ERROR.
        assert_eq!(parse_route(&answer(2, [0; BODY], &[(INTERFACE, &interface)])), None);
        assert_eq!(parse_neighbour(&route), None);
    }

    #[test]
    fn the_way_to_this_machine_itself_has_no_gateway_and_nobody_silent() {
        let mut hops = NextHops::default();
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let address = address.parse().unwrap();
            if let Some(hop) = hops.look_up(address, address) {
                assert_eq!(hop, NextHop { is_peer: true, is_silent: false }, "{address}");
            } else {
                assert!(!address.ip().to_canonical().is_ipv4(), "IPv6 may be off, IPv4 is not");
            }
        }
        let foreign = "192.0.2.1:1".parse().unwrap();
        assert_eq!(hops.look_up(foreign, foreign), None, "not our address");
    }
}
