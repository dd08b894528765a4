//! The kinds of event that a flight keeps, and the ten bits each of them takes.

use core::fmt;

use crate::cause::Cause;
use crate::kernel::SocketError;
use crate::time::Span;
use crate::wire::CloseReason;

/// The bits of an argument, of a count, and of the argument's mantissa where it is a size.
const ARGUMENT_BITS: u32 = 5;
pub(super) const COUNT_BITS: u32 = 6;
const MANTISSA: u32 = 1;

/// The largest argument; what is more counts as that.
const MOST: u16 = (1 << ARGUMENT_BITS) - 1;

/// Round trips are kept in units of 2^6 µs: from 64 µs to 3 s.
const ROUND_TRIP_SHIFT: u32 = 6;

/// Something that happened on a link and says something about its peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Incident {
    /// The link was opened.
    Opened,
    /// The handshake was complete.
    Introduced,
    /// A read brought bytes.
    Heard {
        /// How many: exact up to 4, beyond that rounded down by less than a third, and 49,152 at
        /// most. Of several reads that of the largest.
        bytes: u32,
    },
    /// It answered a heartbeat.
    Pong {
        /// After how long: rounded down by less than a third or 64 µs, and 3 s at most. Of several
        /// answers that of the slowest.
        rtt: Span,
    },
    /// A probe went out.
    Probe {
        /// Which of this silence, from 1; 31 at most.
        number: u8,
    },
    /// A heartbeat went out to keep the path open.
    Keepalive,
    /// Data was sent.
    DataSent,
    /// A probe had been out for longer than it should.
    Suspect,
    /// The suspicion was over.
    Recovered,
    /// The bound passed, unenforced.
    Overdue,
    /// The kernel's view was taken.
    Examined(Findings),
    /// The kernel's view was asked for, and there was none.
    Unexaminable,
    /// The socket reported an error.
    Error(SocketError),
    /// No suspicion and no verdict from here on for a while.
    Held,
    /// The hold was ended.
    Released,
    /// Another policy was put in force.
    Retuned,
    /// The peer's side of the stream was closed.
    Fin,
    /// A heartbeat went out to a peer that had closed its side, to see whether it reads on.
    Confirm,
    /// We said goodbye.
    CloseSaid(CloseReason),
    /// The peer said goodbye.
    CloseHeard(CloseReason),
    /// Its kernel answered and its application did not, for longer than the bound.
    Hung,
    /// The link was given up, or ended.
    Verdict {
        /// The cause's place in [`Cause::NAMES`].
        cause: u8,
    },
}

/// What an examination showed, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Findings(u8);

impl Findings {
    /// The peer's kernel acknowledged recently.
    pub const FRESH: Findings = Findings(1);
    /// The peer's window is closed.
    pub const WINDOW_CLOSED: Findings = Findings(2);
    /// Bytes wait that were not yet sent.
    pub const WAITING: Findings = Findings(4);
    /// A segment is sent again and again.
    pub const RETRANSMITTING: Findings = Findings(8);
    /// Our own interface or address is gone.
    pub const LOCAL_DOWN: Findings = Findings(16);

    /// These and `others`, if `condition` holds.
    pub const fn with(self, others: Findings, condition: bool) -> Findings {
        if condition { Findings(self.0 | others.0) } else { self }
    }

    /// Whether `others` are among them.
    pub const fn contains(self, others: Findings) -> bool {
        self.0 & others.0 == others.0
    }
}

/// A kind and its argument; none is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Code(u16);

impl Code {
    pub(super) const NOTHING: Code = Code(0);
    pub(super) const OPENED: Code = Code::of(Kind::Opened, 0);

    const fn of(kind: Kind, argument: u16) -> Code {
        let argument = if argument < MOST { argument } else { MOST };
        Code((kind as u16) << ARGUMENT_BITS | argument)
    }

    /// Of what [`Code::word`] returned.
    pub(super) const fn of_word(word: u16) -> Code {
        Code(word >> COUNT_BITS)
    }

    /// This and a squeezed count in 16 bits.
    pub(super) const fn word(self, count: u16) -> u16 {
        self.0 << COUNT_BITS | count
    }

    /// Whether the two can be one entry; of sizes the larger is told.
    #[inline]
    pub(super) const fn is_like(self, other: Code) -> bool {
        let sizes = (Kind::Heard as u16) << ARGUMENT_BITS;
        if other.0 >= sizes {
            self.0 >> ARGUMENT_BITS == other.0 >> ARGUMENT_BITS
        } else {
            self.0 == other.0
        }
    }

    /// Whether bytes were heard by that alone.
    #[inline]
    pub(super) const fn implies_heard(self) -> bool {
        let kind = self.0 >> ARGUMENT_BITS;
        kind == Kind::Pong as u16 || kind == Kind::Introduced as u16
    }

    /// What it stands for; `None` for nothing.
    pub(super) fn incident(self) -> Option<Incident> {
        let argument = self.0 & MOST;
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u16 == self.0 >> ARGUMENT_BITS)?;
        Some(match kind {
            Kind::Opened => Incident::Opened,
            Kind::Introduced => Incident::Introduced,
            Kind::Probe => Incident::Probe { number: argument as u8 },
            Kind::Keepalive => Incident::Keepalive,
            Kind::DataSent => Incident::DataSent,
            Kind::Suspect => Incident::Suspect,
            Kind::Recovered => Incident::Recovered,
            Kind::Overdue => Incident::Overdue,
            Kind::Examined => Incident::Examined(Findings(argument as u8)),
            Kind::Unexaminable => Incident::Unexaminable,
            Kind::Error => Incident::Error(*ERRORS.get(usize::from(argument))?),
            Kind::Held => Incident::Held,
            Kind::Released => Incident::Released,
            Kind::Retuned => Incident::Retuned,
            Kind::Fin => Incident::Fin,
            Kind::CloseSaid => Incident::CloseSaid(CloseReason::from_byte(argument as u8)),
            Kind::CloseHeard => Incident::CloseHeard(CloseReason::from_byte(argument as u8)),
            Kind::Hung => Incident::Hung,
            Kind::Confirm => Incident::Confirm,
            Kind::Verdict => Incident::Verdict { cause: argument as u8 },
            Kind::Heard => Incident::Heard { bytes: expand(argument, MANTISSA) },
            Kind::Pong => {
                let micros = u64::from(expand(argument, MANTISSA)) << ROUND_TRIP_SHIFT;
                Incident::Pong { rtt: Span::from_micros(micros) }
            }
        })
    }
}

/// The kinds; from [`Kind::Heard`] on the argument is a size.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Opened = 1,
    Introduced,
    Probe,
    Keepalive,
    DataSent,
    Suspect,
    Recovered,
    Overdue,
    Examined,
    Unexaminable,
    Error,
    Held,
    Released,
    Retuned,
    Fin,
    CloseSaid,
    CloseHeard,
    Hung,
    Confirm,
    Verdict,
    Heard,
    Pong,
}

impl Kind {
    const ALL: [Kind; 22] = [
        Kind::Opened,
        Kind::Introduced,
        Kind::Probe,
        Kind::Keepalive,
        Kind::DataSent,
        Kind::Suspect,
        Kind::Recovered,
        Kind::Overdue,
        Kind::Examined,
        Kind::Unexaminable,
        Kind::Error,
        Kind::Held,
        Kind::Released,
        Kind::Retuned,
        Kind::Fin,
        Kind::CloseSaid,
        Kind::CloseHeard,
        Kind::Hung,
        Kind::Confirm,
        Kind::Verdict,
        Kind::Heard,
        Kind::Pong,
    ];
}

/// In the order of their argument.
const ERRORS: [SocketError; 6] = [
    SocketError::Reset,
    SocketError::Refused,
    SocketError::TimedOut,
    SocketError::HostUnreachable,
    SocketError::NetworkUnreachable,
    SocketError::Local,
];

impl Incident {
    #[inline]
    pub(super) fn code(self) -> Code {
        match self {
            Incident::Opened => Code::OPENED,
            Incident::Introduced => Code::of(Kind::Introduced, 0),
            Incident::Heard { bytes } => Code::of(Kind::Heard, squeeze(bytes, MANTISSA)),
            Incident::Pong { rtt } => {
                let units = rtt.as_micros() >> ROUND_TRIP_SHIFT;
                let units = u32::try_from(units).unwrap_or(u32::MAX);
                Code::of(Kind::Pong, squeeze(units, MANTISSA))
            }
            Incident::Probe { number } => Code::of(Kind::Probe, u16::from(number)),
            Incident::Keepalive => Code::of(Kind::Keepalive, 0),
            Incident::DataSent => Code::of(Kind::DataSent, 0),
            Incident::Suspect => Code::of(Kind::Suspect, 0),
            Incident::Recovered => Code::of(Kind::Recovered, 0),
            Incident::Overdue => Code::of(Kind::Overdue, 0),
            Incident::Examined(findings) => Code::of(Kind::Examined, u16::from(findings.0)),
            Incident::Unexaminable => Code::of(Kind::Unexaminable, 0),
            Incident::Error(error) => {
                let index = ERRORS.iter().position(|known| *known == error);
                Code::of(Kind::Error, index.unwrap_or(ERRORS.len() - 1) as u16)
            }
            Incident::Held => Code::of(Kind::Held, 0),
            Incident::Released => Code::of(Kind::Released, 0),
            Incident::Retuned => Code::of(Kind::Retuned, 0),
            Incident::Fin => Code::of(Kind::Fin, 0),
            Incident::CloseSaid(why) => Code::of(Kind::CloseSaid, u16::from(why.to_byte())),
            Incident::CloseHeard(why) => Code::of(Kind::CloseHeard, u16::from(why.to_byte())),
            Incident::Confirm => Code::of(Kind::Confirm, 0),
            Incident::Hung => Code::of(Kind::Hung, 0),
            Incident::Verdict { cause } => Code::of(Kind::Verdict, u16::from(cause)),
        }
    }

    /// The verdict of this cause.
    pub const fn verdict(cause: Cause) -> Incident {
        Incident::Verdict { cause: cause.index() as u8 }
    }
}

impl fmt::Display for Incident {
    /// For people, as in `heard 2 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Incident::Opened => "opened",
            Incident::Introduced => "handshake complete",
            Incident::Heard { bytes: 1 } => "heard 1 byte",
            Incident::Heard { bytes } if *bytes < 4 => return write!(f, "heard {bytes} bytes"),
            Incident::Heard { bytes } => match next_size(*bytes) {
                Some(next) => return write!(f, "heard up to {} bytes", next - 1),
                None => return write!(f, "heard {bytes} bytes or more"),
            },
            Incident::Pong { rtt } => {
                let units = u32::try_from(rtt.as_micros() >> ROUND_TRIP_SHIFT);
                return match next_size(units.unwrap_or(u32::MAX)) {
                    Some(next) => {
                        let within = Span::from_micros(u64::from(next) << ROUND_TRIP_SHIFT);
                        write!(f, "pong within {within}")
                    }
                    None => write!(f, "pong after {rtt} or more"),
                };
            }
            Incident::Probe { number } => return write!(f, "sent probe {number}"),
            Incident::Keepalive => "sent a keepalive",
            Incident::DataSent => "sent data",
            Incident::Suspect => "suspected",
            Incident::Recovered => "no longer suspected",
            Incident::Overdue => "the bound passed; the policy only tells",
            Incident::Examined(findings) => return findings.fmt(f),
            Incident::Unexaminable => "the kernel's view could not be had",
            Incident::Error(error) => error_text(*error),
            Incident::Held => "put on hold",
            Incident::Released => "released from hold",
            Incident::Retuned => "another policy in force",
            Incident::Fin => "the peer closed its side",
            Incident::CloseSaid(reason) => return write!(f, "said goodbye: {reason}"),
            Incident::CloseHeard(reason) => return write!(f, "the peer said goodbye: {reason}"),
            Incident::Confirm => "asked whether it still reads",
            Incident::Hung => "its kernel answers, its application does not",
            Incident::Verdict { cause } => {
                let name = Cause::NAMES.get(usize::from(*cause)).unwrap_or(&"unknown");
                return write!(f, "verdict: {name}");
            }
        })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_fresh = self.contains(Findings::FRESH);
        f.write_str(if is_fresh {
            "its kernel acknowledges"
        } else {
            "nothing of its kernel lately"
        })?;
        for (finding, text) in [
            (Findings::WINDOW_CLOSED, ", its window is closed"),
            (Findings::WAITING, ", bytes wait"),
            (Findings::RETRANSMITTING, ", sending again and again"),
            (Findings::LOCAL_DOWN, ", our own network is down"),
        ] {
            if self.contains(finding) {
                f.write_str(text)?;
            }
        }
        Ok(())
    }
}

const fn error_text(error: SocketError) -> &'static str {
    match error {
        SocketError::Reset => "error: reset by the other end",
        SocketError::Refused => "error: refused by the other end",
        SocketError::TimedOut => "error: the kernel gave up",
        SocketError::HostUnreachable => "error: host unreachable",
        SocketError::NetworkUnreachable => "error: network unreachable",
        SocketError::Local => "error: our own",
    }
}

/// The smallest size that is told from `size` as the larger one, if any is.
fn next_size(size: u32) -> Option<u32> {
    let squeezed = squeeze(size, MANTISSA);
    (squeezed < MOST).then(|| expand(squeezed + 1, MANTISSA))
}

/// A number as a tiny float of an exponent and `mantissa` bits, rounded down: exact up to
/// 2^(`mantissa` + 1), and in the order of the numbers.
#[inline]
pub(super) const fn squeeze(number: u32, mantissa: u32) -> u16 {
    if number < 2 << mantissa {
        return number as u16;
    }
    let shift = 31 - number.leading_zeros() - mantissa;
    (shift << mantissa) as u16 + (number >> shift) as u16
}

/// The smallest number that [`squeeze`] makes that of.
pub(super) const fn expand(squeezed: u16, mantissa: u32) -> u32 {
    let squeezed = squeezed as u32;
    if squeezed < 2 << mantissa {
        return squeezed;
    }
    let shift = (squeezed >> mantissa) - 1;
    (squeezed & ((1 << mantissa) - 1) | 1 << mantissa) << shift
}
