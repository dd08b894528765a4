//! Parser of the Linux `struct tcp_info` (linux/tcp.h), of any length and from any kernel.

use systole_core::Span;
use systole_core::kernel::TcpSnapshot;

/// Length in bytes up to the last field read here; newer kernels have more.
pub const MAX_LEN: usize = 232;

/// Linux releases and the minimum length of the structure since each, for the fields read here.
pub const LENGTHS: [((u32, u32), usize); 6] = [
    ((0, 0), 104),
    ((4, 2), 144),
    ((4, 6), 160),
    ((4, 10), 192),
    ((4, 19), 224),
    ((5, 4), MAX_LEN),
];

/// Offset of each field in bytes; a part of the kernel's interface to user space that never
/// changes.
mod at {
    pub(super) const RETRANSMITS: usize = 2;
    pub(super) const PROBES: usize = 3;
    pub(super) const BACKOFF: usize = 4;
    pub(super) const OPTIONS: usize = 5;
    pub(super) const SND_MSS: usize = 16;
    pub(super) const UNACKED: usize = 24;
    pub(super) const SACKED: usize = 28;
    pub(super) const LAST_DATA_SENT: usize = 44;
    pub(super) const LAST_ACK_RECV: usize = 56;
    pub(super) const RTT: usize = 68;
    pub(super) const RTTVAR: usize = 72;
    pub(super) const TOTAL_RETRANS: usize = 100;
    pub(super) const BYTES_ACKED: usize = 120;
    pub(super) const BYTES_RECEIVED: usize = 128;
    pub(super) const NOTSENT_BYTES: usize = 144;
    pub(super) const RWND_LIMITED: usize = 176;
    pub(super) const BYTES_SENT: usize = 200;
    pub(super) const BYTES_RETRANS: usize = 208;
    pub(super) const RCV_OOOPACK: usize = 224;
    pub(super) const SND_WND: usize = 228;
}

/// Bit of the options that a connection with timestamps has (`TCPI_OPT_TIMESTAMPS`).
const TIMESTAMPS: u8 = 1;

/// Parses what the kernel wrote, in the byte order of this machine. Never panics.
///
/// A segment that ever arrived out of order counts as a [`TcpSnapshot::gap`]. The structure
/// does not show whether it still waits.
///
/// Returns `None` for fewer than the 104 bytes that every kernel since 2.6 writes. A later field
/// that `bytes` does not hold completely is `None`.
pub fn parse(bytes: &[u8]) -> Option<TcpSnapshot> {
    let total_retrans = u32_at(bytes, at::TOTAL_RETRANS)?;
    Some(TcpSnapshot {
        unacked: u32_at(bytes, at::UNACKED)?,
        sacked: u32_at(bytes, at::SACKED)?,
        segment: u32_at(bytes, at::SND_MSS)?,
        notsent: u32_at(bytes, at::NOTSENT_BYTES),
        retransmits: *bytes.get(at::RETRANSMITS)?,
        backoff: *bytes.get(at::BACKOFF)?,
        probes: *bytes.get(at::PROBES)?,
        last_ack: Span::from_millis(u64::from(u32_at(bytes, at::LAST_ACK_RECV)?)),
        last_sent: Span::from_millis(u64::from(u32_at(bytes, at::LAST_DATA_SENT)?)),
        rtt: Span::from_micros(u64::from(u32_at(bytes, at::RTT)?)),
        rttvar: Span::from_micros(u64::from(u32_at(bytes, at::RTTVAR)?)),
        timestamps: *bytes.get(at::OPTIONS)? & TIMESTAMPS != 0,
        total_retrans,
        bytes_acked: u64_at(bytes, at::BYTES_ACKED),
        bytes_sent: u64_at(bytes, at::BYTES_SENT),
        bytes_retrans: u64_at(bytes, at::BYTES_RETRANS),
        bytes_received: u64_at(bytes, at::BYTES_RECEIVED),
        send_window: u32_at(bytes, at::SND_WND),
        window_limited: u64_at(bytes, at::RWND_LIMITED).map(Span::from_micros),
        gap: u32_at(bytes, at::RCV_OOOPACK).map(|segments| segments > 0),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lengths of the structure, with the release that introduced each.
    const HISTORIC: [(usize, &str); 12] = [
        (104, "2.6"),
        (120, "3.15"),
        (136, "4.1"),
        (144, "4.2"),
        (160, "4.6"),
        (168, "4.9"),
        (192, "4.10"),
        (200, "4.18"),
        (224, "4.19"),
        (232, "5.4"),
        (240, "6.2"),
        (280, "6.18"),
    ];

    /// Returns a structure in which each field read here has a different value.
    fn sample() -> Vec<u8> {
        let mut bytes = vec![0xee; 280];
        bytes[at::RETRANSMITS] = 1;
        bytes[at::PROBES] = 2;
        bytes[at::BACKOFF] = 3;
        bytes[at::OPTIONS] = 0b110_0111;
        for (at, value) in [
            (at::UNACKED, 4_u32),
            (at::LAST_DATA_SENT, 5),
            (at::LAST_ACK_RECV, 6),
            (at::RTT, 7),
            (at::RTTVAR, 16),
            (at::TOTAL_RETRANS, 8),
            (at::NOTSENT_BYTES, 9),
            (at::SND_WND, 10),
            (at::SACKED, 16),
            (at::SND_MSS, 17),
            (at::RCV_OOOPACK, 18),
        ] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [
            (at::BYTES_ACKED, 11_u64),
            (at::BYTES_RECEIVED, 12),
            (at::RWND_LIMITED, 13),
            (at::BYTES_SENT, 14),
            (at::BYTES_RETRANS, 15),
        ] {
            bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn each_historic_length_yields_its_fields() {
        let bytes = sample();
        for (len, release) in HISTORIC {
            let expected = TcpSnapshot {
                unacked: 4,
                sacked: 16,
                segment: 17,
                notsent: (len >= 160).then_some(9),
                retransmits: 1,
                backoff: 3,
                probes: 2,
                last_ack: Span::from_millis(6),
                last_sent: Span::from_millis(5),
                rtt: Span::from_micros(7),
                rttvar: Span::from_micros(16),
                timestamps: true,
                total_retrans: 8,
                bytes_acked: (len >= 136).then_some(11),
                bytes_received: (len >= 136).then_some(12),
                bytes_sent: (len >= 224).then_some(14),
                bytes_retrans: (len >= 224).then_some(15),
                send_window: (len >= 232).then_some(10),
                window_limited: (len >= 192).then_some(Span::from_micros(13)),
                gap: (len >= 232).then_some(true),
            };
            assert_eq!(parse(&bytes[..len]), Some(expected), "{len} bytes, Linux {release}");
        }
    }

    #[test]
    fn timestamps_are_one_of_the_options() {
        let mut bytes = sample();
        for (options, expected) in [(0, false), (1, true), (0b110_0110, false)] {
            bytes[at::OPTIONS] = options;
            assert_eq!(parse(&bytes).map(|tcp| tcp.timestamps), Some(expected), "{options}");
        }
    }

    #[test]
    fn no_length_panics() {
        let bytes = sample();
        for len in 0..=bytes.len() {
            assert_eq!(parse(&bytes[..len]).is_some(), len >= 104, "{len}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn field_offsets_match_the_c_library() {
        use core::mem::offset_of;

        use nix::libc::tcp_info;
        for (ours, theirs) in [
            (at::RETRANSMITS, offset_of!(tcp_info, tcpi_retransmits)),
            (at::PROBES, offset_of!(tcp_info, tcpi_probes)),
            (at::BACKOFF, offset_of!(tcp_info, tcpi_backoff)),
            (at::UNACKED, offset_of!(tcp_info, tcpi_unacked)),
            (at::SACKED, offset_of!(tcp_info, tcpi_sacked)),
            (at::SND_MSS, offset_of!(tcp_info, tcpi_snd_mss)),
            (at::RCV_OOOPACK, offset_of!(tcp_info, tcpi_rcv_ooopack)),
            (at::LAST_DATA_SENT, offset_of!(tcp_info, tcpi_last_data_sent)),
            (at::LAST_ACK_RECV, offset_of!(tcp_info, tcpi_last_ack_recv)),
            (at::RTT, offset_of!(tcp_info, tcpi_rtt)),
            (at::RTTVAR, offset_of!(tcp_info, tcpi_rttvar)),
            (at::OPTIONS, offset_of!(tcp_info, tcpi_options)),
            (at::TOTAL_RETRANS, offset_of!(tcp_info, tcpi_total_retrans)),
            (at::BYTES_ACKED, offset_of!(tcp_info, tcpi_bytes_acked)),
            (at::BYTES_RECEIVED, offset_of!(tcp_info, tcpi_bytes_received)),
            (at::NOTSENT_BYTES, offset_of!(tcp_info, tcpi_notsent_bytes)),
            (at::RWND_LIMITED, offset_of!(tcp_info, tcpi_rwnd_limited)),
            (at::BYTES_SENT, offset_of!(tcp_info, tcpi_bytes_sent)),
            (at::BYTES_RETRANS, offset_of!(tcp_info, tcpi_bytes_retrans)),
            (at::SND_WND, offset_of!(tcp_info, tcpi_snd_wnd)),
        ] {
            assert_eq!(ours, theirs);
        }
        assert_eq!(MAX_LEN, offset_of!(tcp_info, tcpi_snd_wnd) + 4);
    }
}
