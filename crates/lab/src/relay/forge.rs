//! Forged packets: resets, which a middlebox needs to end a connection of others, and refusals.
//! Pure.

use std::net::Ipv4Addr;

use etherparse::icmpv6::{ParameterProblemCode, ParameterProblemHeader};
use etherparse::{Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::gateway::NATIVE_PORT;

/// Hops that a forged packet may pass; a router's own packets have as many.
const HOPS: u8 = 64;
/// Position of the number of the protocol in an IPv6 header.
const PROTOCOL_AT: u32 = 6;
/// Length of the longest quotation in a refusal, which every path carries.
const QUOTED: usize = 1_200;

/// What the last segments showed of the connection under test.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    outwards: Option<Side>,
    inwards: Option<Side>,
}

/// The last segment in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Side {
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    /// The sequence number after the segment, which the receiver expects next.
    next: u32,
}

impl Flow {
    /// Notes a packet if it belongs to the connection under test.
    pub(super) fn observe(&mut self, packet: &[u8]) {
        let Some(side) = side(packet) else { return };
        if side.from.1 == NATIVE_PORT {
            self.outwards = Some(side);
        } else if side.to.1 == NATIVE_PORT {
            self.inwards = Some(side);
        }
    }

    /// Returns a reset for each end, as from the other: a receiver believes one with exactly the
    /// number that it expects next.
    pub(super) fn resets(self) -> impl Iterator<Item = Vec<u8>> {
        [self.outwards, self.inwards].into_iter().flatten().filter_map(Side::reset)
    }
}

impl Side {
    fn reset(self) -> Option<Vec<u8>> {
        let builder = PacketBuilder::ipv4(self.from.0.octets(), self.to.0.octets(), HOPS)
            .tcp(self.from.1, self.to.1, self.next, 0)
            .rst();
        let mut packet = Vec::new();
        builder.write(&mut packet, &[]).ok().map(|()| packet)
    }
}

/// Returns the destination of an IPv4 packet.
pub(super) fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    match SlicedPacket::from_ip(packet).ok()?.net? {
        NetSlice::Ipv4(ip) => Some(ip.header().destination_addr()),
        NetSlice::Ipv6(_) | NetSlice::Arp(_) => None,
    }
}

/// Returns the answer of a host that does not know TCP to an IPv6 segment.
pub(super) fn refusal(segment: &[u8]) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ip(segment).ok()?;
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Tcp(_))) = (packet.net, packet.transport)
    else {
        return None;
    };
    let problem = ParameterProblemHeader {
        code: ParameterProblemCode::UnrecognizedNextHeader,
        pointer: PROTOCOL_AT,
    };
    let builder = PacketBuilder::ipv6(ip.header().destination(), ip.header().source(), HOPS)
        .icmpv6(Icmpv6Type::ParameterProblem(problem));
    let mut answer = Vec::new();
    let quoted = segment.get(..QUOTED).unwrap_or(segment);
    builder.write(&mut answer, quoted).ok().map(|()| answer)
}

fn side(packet: &[u8]) -> Option<Side> {
    let packet = SlicedPacket::from_ip(packet).ok()?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport)
    else {
        return None;
    };
    let length = u32::try_from(tcp.payload().len()).ok()?;
    let flags = u32::from(tcp.syn()) + u32::from(tcp.fin());
    Some(Side {
        from: (ip.header().source_addr(), tcp.source_port()),
        to: (ip.header().destination_addr(), tcp.destination_port()),
        next: tcp.sequence_number().wrapping_add(length).wrapping_add(flags),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [u8; 4] = [10, 2, 0, 1];
    const SERVER: [u8; 4] = [10, 1, 0, 1];

    fn segment(from: ([u8; 4], u16), to: ([u8; 4], u16), sequence: u32, bytes: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ipv4(from.0, to.0, 9).tcp(from.1, to.1, sequence, 512);
        let mut packet = Vec::new();
        builder.write(&mut packet, bytes).unwrap();
        packet
    }

    #[test]
    fn a_refusal_goes_back_to_the_sender_and_quotes_the_segment() {
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 9).tcp(40_000, NATIVE_PORT, 7, 512);
        let mut sent = Vec::new();
        builder.write(&mut sent, b"abc").unwrap();
        let answer = refusal(&sent).unwrap();
        let parsed = SlicedPacket::from_ip(&answer).unwrap();
        let Some(NetSlice::Ipv6(ip)) = parsed.net else { panic!("{answer:?}") };
        assert_eq!((ip.header().source(), ip.header().destination()), ([2; 16], [1; 16]));
        assert!(answer.ends_with(&sent));
        assert_eq!(refusal(&answer), None);
    }

    #[test]
    fn resets_have_the_number_that_each_end_expects_next() {
        let mut flow = Flow::default();
        assert_eq!(flow.resets().count(), 0);
        flow.observe(&segment((CLIENT, 40_000), (SERVER, NATIVE_PORT), 100, b"abc"));
        flow.observe(&segment((SERVER, NATIVE_PORT), (CLIENT, 40_000), u32::MAX, b"de"));
        flow.observe(&segment((SERVER, 7_420), (CLIENT, 40_001), 7, b"other"));
        let resets: Vec<Side> = flow.resets().filter_map(|packet| side(&packet)).collect();
        let (client, server) = ((CLIENT.into(), 40_000), (SERVER.into(), NATIVE_PORT));
        let expected = [
            Side { from: server, to: client, next: 1 },
            Side { from: client, to: server, next: 103 },
        ];
        assert_eq!(resets, expected);
        assert_eq!(destination(&flow.resets().next().unwrap()), Some(CLIENT.into()));
    }
}
