//! The incidents of a flight recorder, and their encoding in ten bits each.

use core::fmt;

use crate::cause::Cause;
use crate::kernel::SocketError;
use crate::time::Span;
use crate::wire::CloseReason;

/// The bits of an argument, of a count, and of the mantissa of an argument that is a size.
const ARGUMENT_BITS: u32 = 5;
pub(super) const COUNT_BITS: u32 = 6;
const SIZE_MANTISSA: u32 = 1;

/// The maximum argument. Larger values are stored as this one.
const MAX_ARGUMENT: u16 = (1 << ARGUMENT_BITS) - 1;

/// The unit of round-trip times is 2^6 µs: they range from 64 µs to 3 s.
const ROUND_TRIP_SHIFT: u32 = 6;

/// An event on a link that is evidence about the peer or explains the verdict.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Incident {
    /// The link was opened.
    Opened,
    /// The handshake was completed.
    Introduced,
    /// A read returned bytes.
    Heard {
        /// The number of bytes: exact up to 4, above that rounded down by less than a third, at
        /// most 49,152. An entry of several reads holds the largest.
        bytes: u32,
    },
    /// The peer answered a heartbeat.
    Pong {
        /// The round-trip time: rounded down by less than a third or 64 µs, at most 3 s. An entry
        /// of several answers holds the slowest.
        rtt: Span,
    },
    /// A probe was sent.
    Probe {
        /// The number of the probe in this silence, from 1, at most 31.
        number: u8,
    },
    /// A heartbeat was sent to keep mappings on the path open.
    Keepalive,
    /// A heartbeat was sent because the application wanted one.
    Requested,
    /// Data was sent.
    DataSent,
    /// The link became suspect: a probe was unanswered for too long.
    Suspect,
    /// New evidence ended the suspicion.
    Recovered,
    /// The bound passed, and the policy does not enforce a verdict.
    Overdue,
    /// The socket was examined.
    Examined(Findings),
    /// An examination was requested, but the kernel's view was not available.
    Unexaminable,
    /// The socket reported an error.
    Error(SocketError),
    /// A hold began: no suspicion and no verdict until it ends.
    Held,
    /// The hold ended.
    Released,
    /// Another policy came into force.
    Retuned,
    /// The peer closed its side of the stream.
    Fin,
    /// A heartbeat was sent to a half-closed peer, to check whether the peer still reads.
    Confirm,
    /// This end sent CLOSE.
    CloseSaid(CloseReason),
    /// The peer sent CLOSE.
    CloseHeard(CloseReason),
    /// The peer's kernel answered but its application did not, for longer than the bound.
    Hung,
    /// The verdict fell.
    Verdict {
        /// The position of the cause in [`Cause::NAMES`].
        cause: u8,
    },
}

/// The findings of one examination, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Findings(u8);

impl Findings {
    /// The peer's kernel acknowledged recently.
    pub const FRESH: Findings = Findings(1);
    /// The peer's receive window is closed.
    pub const WINDOW_CLOSED: Findings = Findings(2);
    /// Bytes wait in the socket buffer.
    pub const WAITING: Findings = Findings(4);
    /// A segment is retransmitted repeatedly.
    pub const RETRANSMITTING: Findings = Findings(8);
    /// Our own interface or address is gone.
    pub const LOCAL_DOWN: Findings = Findings(16);

    /// Returns these findings, with `others` added if `condition` is true.
    pub const fn with(self, others: Findings, condition: bool) -> Findings {
        if condition { Findings(self.0 | others.0) } else { self }
    }

    /// Returns true if these findings contain all of `others`.
    pub const fn contains(self, others: Findings) -> bool {
        self.0 & others.0 == others.0
    }
}

/// An encoded incident: its kind and its argument. 0 encodes no incident.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Code(u16);

crate::plain::plain_struct! { Code { 0: bits } if Code::is_legal }

impl Code {
    pub(super) const NOTHING: Code = Code(0);
    pub(super) const OPENED: Code = Code::of(Kind::Opened, 0);

    const fn of(kind: Kind, argument: u16) -> Code {
        let argument = if argument < MAX_ARGUMENT { argument } else { MAX_ARGUMENT };
        Code((kind as u16) << ARGUMENT_BITS | argument)
    }

    /// Returns whether the code fits into a word beside its count.
    const fn is_legal(code: &Code) -> bool {
        code.0 >> (u16::BITS - COUNT_BITS) == 0
    }

    /// Extracts the code from a word made by [`Code::word`].
    pub(super) const fn of_word(word: u16) -> Code {
        Code(word >> COUNT_BITS)
    }

    /// Packs the code and a compressed count into 16 bits.
    pub(super) const fn word(self, count: u16) -> u16 {
        self.0 << COUNT_BITS | count
    }

    /// Returns true if both incidents can share one entry. An entry of sizes keeps the largest.
    #[inline]
    pub(super) const fn is_like(self, other: Code) -> bool {
        let sizes = (Kind::Heard as u16) << ARGUMENT_BITS;
        if other.0 >= sizes {
            self.0 >> ARGUMENT_BITS == other.0 >> ARGUMENT_BITS
        } else {
            self.0 == other.0
        }
    }

    /// Returns true if the incident implies that bytes were read.
    #[inline]
    pub(super) const fn implies_heard(self) -> bool {
        let kind = self.0 >> ARGUMENT_BITS;
        kind == Kind::Pong as u16 || kind == Kind::Introduced as u16
    }

    /// Decodes the incident; `None` if the code encodes none.
    pub(super) fn incident(self) -> Option<Incident> {
        let argument = self.0 & MAX_ARGUMENT;
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u16 == self.0 >> ARGUMENT_BITS)?;
        Some(match kind {
            Kind::Opened => Incident::Opened,
            Kind::Introduced => Incident::Introduced,
            Kind::Probe => Incident::Probe { number: argument as u8 },
            Kind::Keepalive => Incident::Keepalive,
            Kind::Requested => Incident::Requested,
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
            Kind::Heard => Incident::Heard { bytes: decompress(argument, SIZE_MANTISSA) },
            Kind::Pong => {
                let micros = u64::from(decompress(argument, SIZE_MANTISSA)) << ROUND_TRIP_SHIFT;
                Incident::Pong { rtt: Span::from_micros(micros) }
            }
        })
    }
}

/// The kind of an incident. From [`Kind::Heard`] on the argument is a size.
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
    Requested,
    Verdict,
    Heard,
    Pong,
}

impl Kind {
    const ALL: [Kind; 23] = [
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
        Kind::Requested,
        Kind::Verdict,
        Kind::Heard,
        Kind::Pong,
    ];
}

/// Socket errors, in the order of their argument.
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
            Incident::Heard { bytes } => Code::of(Kind::Heard, compress(bytes, SIZE_MANTISSA)),
            Incident::Pong { rtt } => {
                let units = rtt.as_micros() >> ROUND_TRIP_SHIFT;
                let units = u32::try_from(units).unwrap_or(u32::MAX);
                Code::of(Kind::Pong, compress(units, SIZE_MANTISSA))
            }
            Incident::Probe { number } => Code::of(Kind::Probe, u16::from(number)),
            Incident::Keepalive => Code::of(Kind::Keepalive, 0),
            Incident::Requested => Code::of(Kind::Requested, 0),
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

    /// Creates the incident of a verdict with this cause.
    pub const fn verdict(cause: Cause) -> Incident {
        Incident::Verdict { cause: cause.index() as u8 }
    }
}

impl fmt::Display for Incident {
    /// Writes the incident for operators, as in `heard 2 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Incident::Opened => "opened",
            Incident::Introduced => "handshake complete",
            Incident::Heard { bytes: 0 } => "heard bytes without content",
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
            Incident::Requested => "sent a heartbeat on request",
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
            "its kernel acknowledged lately"
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
        SocketError::Refused => "error: port unreachable",
        SocketError::TimedOut => "error: the kernel gave up",
        SocketError::HostUnreachable => "error: host unreachable",
        SocketError::NetworkUnreachable => "error: network unreachable",
        SocketError::Local => "error: our own",
    }
}

/// Returns the smallest size above `size` that has another code, if there is one.
fn next_size(size: u32) -> Option<u32> {
    let compressed = compress(size, SIZE_MANTISSA);
    (compressed < MAX_ARGUMENT).then(|| decompress(compressed + 1, SIZE_MANTISSA))
}

/// Compresses a number to a small float with `mantissa` bits, rounded down: exact up to
/// 2^(`mantissa` + 1), and monotonic.
#[inline]
pub(super) const fn compress(number: u32, mantissa: u32) -> u16 {
    if number < 2 << mantissa {
        return number as u16;
    }
    let shift = 31 - number.leading_zeros() - mantissa;
    (shift << mantissa) as u16 + (number >> shift) as u16
}

/// Returns the smallest number that [`compress`] maps to `compressed`.
pub(super) const fn decompress(compressed: u16, mantissa: u32) -> u32 {
    let compressed = compressed as u32;
    if compressed < 2 << mantissa {
        return compressed;
    }
    let shift = (compressed >> mantissa) - 1;
    (compressed & ((1 << mantissa) - 1) | 1 << mantissa) << shift
}
