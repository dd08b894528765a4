//! The echo: logic that sends data back to its sender, piece by piece.

use std::collections::VecDeque;
use std::ops::Range;

use systole_core::wire::DataKind;

use super::Piece;

/// The pieces that are to be echoed, and one buffer for their bytes.
#[derive(Debug, Default)]
pub struct Echo {
    queue: VecDeque<Queued>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Queued {
    link: u32,
    bytes: Range<usize>,
    more: bool,
    kind: DataKind,
}

impl Echo {
    pub(super) fn handle_data(&mut self, link: u32, piece: Piece<'_>) {
        let Piece { bytes, more, kind } = piece;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let bytes = start..self.bytes.len();
        self.queue.push_back(Queued { link, bytes, more, kind });
    }

    #[inline]
    pub(super) fn poll_send(&mut self) -> Option<(u32, Piece<'_>)> {
        let Some(Queued { link, bytes, more, kind }) = self.queue.pop_front() else {
            self.bytes.clear();
            return None;
        };
        let bytes = self.bytes.get(bytes).unwrap_or_default();
        Some((link, Piece { bytes, more, kind }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_echoed_in_order_to_their_senders_and_their_memory_is_used_again() {
        let mut echo = Echo::default();
        let pieces = [
            (7, Piece { bytes: b"he", more: true, kind: DataKind::Eleven }),
            (7, Piece { bytes: b"llo", more: false, kind: DataKind::Eleven }),
            (3, Piece { bytes: b"", more: false, kind: DataKind::TwentyOne }),
        ];
        for _ in 0..1_000 {
            pieces.iter().for_each(|&(link, piece)| echo.handle_data(link, piece));
            for piece in pieces {
                assert_eq!(echo.poll_send(), Some(piece));
            }
            assert_eq!(echo.poll_send(), None);
        }
        assert!(echo.bytes.capacity() < 100, "{}", echo.bytes.capacity());
    }
}
