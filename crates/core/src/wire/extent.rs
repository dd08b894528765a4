//! How far a frame reaches.

/// How long a frame is, judged by its first bytes.
#[derive(Clone, Copy)]
pub(super) enum Extent {
    /// Exactly so many bytes, which need not be there yet.
    Whole(usize),
    /// So many bytes must be there to tell; more than were looked at.
    AtLeast(usize),
}
