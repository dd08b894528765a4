//! The plain form of causes, for records and saved states.

use super::{Cause, Confidence, Direction, Scope, Verdict};
use crate::plain::{plain_enum, plain_struct};

plain_enum! { Cause {
    0 => PeerClosed { 0: reason }
    1 => PeerExited {}
    2 => PeerReset {}
    3 => PeerRebooted {}
    4 => MiddleboxForgot {}
    5 => AppHung {}
    6 => NotReading {}
    7 => SlowConsumer {}
    8 => PathLost { direction: direction, scope: scope }
    9 => Unreachable {}
    10 => LocalNetworkDown {}
    11 => LocalNeighbourGone {}
    12 => HandshakeTimeout {}
    13 => Protocol { 0: malformed }
    14 => Kicked {}
    15 => Drained {}
    16 => Finished {}
    17 => LocalFault {}
    18 => Unknown {}
    19 => MiddleboxReset {}
    20 => Replaced {}
    21 => Unauthorized {}
    22 => Flooding {}
    23 => GatewayLost {}
    24 => Refused { 0: denial }
} }

plain_struct! { Verdict { cause, confidence, at, due, stretch, last_heard, probes, grounds } }

plain_enum! { Direction {
    0 => Both {}
    1 => Outbound {}
    2 => Inbound {}
} }

plain_enum! { Scope {
    0 => Unknown {}
    1 => Flow {}
    2 => Host {}
    3 => Many {}
    4 => LargePackets {}
} }

plain_enum! { Confidence {
    0 => Medium {}
    1 => High {}
    2 => Certain {}
} }
