//! The length of a frame.

/// The length of a frame, as far as its first bytes determine it.
#[derive(Clone, Copy)]
pub(super) enum Extent {
    /// The frame has exactly this length in bytes, which may not all have arrived.
    Whole(usize),
    /// At least this many bytes are needed to determine the length, more than have arrived.
    AtLeast(usize),
}
