//! The grounds of a cause: the findings that support it.

/// One finding that can support a diagnosis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Ground {
    /// The peer's application sent nothing for longer than the bound.
    ApplicationSilent,
    /// The peer's kernel acknowledged recently.
    KernelFresh,
    /// The peer's kernel acknowledged nothing for two intervals, or for a second if that is longer.
    KernelSilent,
    /// The peer acknowledged bytes that we sent since suspicion began.
    BytesAcknowledged,
    /// The peer acknowledged none of the bytes that we sent since suspicion began.
    NothingAcknowledged,
    /// The peer's receive window is closed.
    WindowClosed,
    /// Bytes wait here because the peer's window does not admit them.
    BytesWaiting,
    /// One segment was retransmitted repeatedly.
    Retransmitting,
    /// Segments of the peer arrived although none of ours was acknowledged.
    PeerStillHeard,
    /// None of the bytes that we sent have left this machine.
    NothingLeft,
    /// Retransmissions were tried, and none left this machine; or our neighbour table has no answer
    /// of the next hop.
    NeighbourSilent,
    /// Our own interface or address is gone.
    InterfaceDown,
    /// A router reported that the peer cannot be reached.
    RouterSaidUnreachable,
    /// The connection was reset.
    Reset,
    /// Our kernel gave up on the connection. That alone proves nothing about the peer.
    KernelGaveUp,
    /// A segment of ours was never acknowledged before the reset.
    SegmentOwed,
    /// All bytes that we sent were acknowledged before the reset.
    NothingOwed,
    /// The peer closed its side of the stream without a CLOSE.
    SideClosed,
    /// The round trip was longer than what the bound left for an answer, and the bound was
    /// stretched for it.
    Congested,
    /// Large segments were retransmitted in vain while the peer acknowledged small ones.
    LargeSegmentsLost,
    /// Segments of the peer wait here behind one that never arrives.
    SegmentMissing,
    /// The silent next hop is a gateway, and not the peer itself.
    GatewaySilent,
}

impl Ground {
    /// All grounds, in the order of their bits.
    pub const ALL: [Ground; 22] = [
        Ground::ApplicationSilent,
        Ground::KernelFresh,
        Ground::KernelSilent,
        Ground::BytesAcknowledged,
        Ground::NothingAcknowledged,
        Ground::WindowClosed,
        Ground::BytesWaiting,
        Ground::Retransmitting,
        Ground::PeerStillHeard,
        Ground::NothingLeft,
        Ground::NeighbourSilent,
        Ground::InterfaceDown,
        Ground::RouterSaidUnreachable,
        Ground::Reset,
        Ground::KernelGaveUp,
        Ground::SegmentOwed,
        Ground::NothingOwed,
        Ground::SideClosed,
        Ground::Congested,
        Ground::LargeSegmentsLost,
        Ground::SegmentMissing,
        Ground::GatewaySilent,
    ];

    /// Returns the sentence that describes this ground to an operator.
    pub const fn text(self) -> &'static str {
        match self {
            Ground::ApplicationSilent => "its application said nothing for longer than the bound",
            Ground::KernelFresh => "its kernel acknowledged recently",
            Ground::KernelSilent => "its kernel has acknowledged nothing lately",
            Ground::BytesAcknowledged => "what we sent was acknowledged",
            Ground::NothingAcknowledged => "nothing we sent was acknowledged",
            Ground::WindowClosed => "its receive window is closed",
            Ground::BytesWaiting => "bytes are waiting to be sent",
            Ground::Retransmitting => "a segment was sent again and again",
            Ground::PeerStillHeard => "segments of it arrived while none of ours got through",
            Ground::NothingLeft => "nothing we sent has left this machine",
            Ground::NeighbourSilent => "what we send again does not leave: the next hop is silent",
            Ground::InterfaceDown => "our own interface or address is gone",
            Ground::RouterSaidUnreachable => "a router said that it cannot be reached",
            Ground::Reset => "the connection was reset",
            Ground::KernelGaveUp => "our kernel gave up on the connection",
            Ground::SegmentOwed => "a segment of ours was never acknowledged",
            Ground::NothingOwed => "all that we had sent was acknowledged",
            Ground::SideClosed => "it closed its side without a goodbye",
            Ground::Congested => "the path was congested, and the bound was stretched for it",
            Ground::LargeSegmentsLost => {
                "large segments were sent again in vain, while small ones arrived"
            }
            Ground::SegmentMissing => "segments of it wait here behind one that never arrives",
            Ground::GatewaySilent => "the next hop is a gateway, and not the peer itself",
        }
    }
}

/// A set of [`Ground`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Grounds(u32);

crate::plain::plain_struct! { Grounds { 0: bits } }

impl Grounds {
    /// Creates a set of these grounds.
    pub fn of(grounds: &[Ground]) -> Grounds {
        Grounds(grounds.iter().fold(0, |bits, ground| bits | 1 << *ground as u8))
    }

    /// Returns the set with `ground` added.
    #[must_use]
    pub const fn with(self, ground: Ground) -> Grounds {
        Grounds(self.0 | 1 << ground as u8)
    }

    /// Returns the set without `ground`.
    #[must_use]
    pub const fn without(self, ground: Ground) -> Grounds {
        Grounds(self.0 & !(1 << ground as u8))
    }

    /// Returns true if the set contains `ground`.
    pub const fn contains(self, ground: Ground) -> bool {
        self.0 & (1 << ground as u8) != 0
    }

    /// Iterates over the grounds of the set.
    pub fn iter(self) -> impl Iterator<Item = Ground> {
        Ground::ALL.into_iter().filter(move |ground| self.contains(*ground))
    }
}
