//! The plain form of a liveness machine, for a saved state.

use super::detection::Lead;
use super::{Liveness, MAX_UNCONFIRMED, Pending, State};
use crate::plain::{plain_enum, plain_struct};

plain_struct! { Liveness {
    last_heard,
    last_sent,
    silent_since,
    beat_sent,
    state,
    rtt_us,
    answer_us,
    sequence,
    unconfirmed,
    role,
    pending,
    lead,
    ambiguous,
    held,
    retuned
} if is_legal }

fn is_legal(liveness: &Liveness) -> bool {
    liveness.unconfirmed <= MAX_UNCONFIRMED
}

plain_enum! { State {
    0 => Handshake { until: until }
    1 => Listening { lead: lead }
    2 => Probing { sent: sent, suspect: suspect, since: since }
    3 => Kept { sent: sent, probed: probed, until: until }
    4 => Overdue { sent: sent, stretch_ms: stretch_ms, due: due }
    5 => HalfClosed { overdue: overdue, until: until }
    6 => Dead {
        sent: sent,
        in_handshake: in_handshake,
        suspect: suspect,
        stretch_ms: stretch_ms,
        due: due
    }
} }

plain_enum! { Lead {
    0 => First { 0: millis }
    1 => Own {}
} }

plain_struct! { Pending { 0: bits } }
