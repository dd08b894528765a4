//! By what right a session outlives its link: the token that its client shows.

use alloc::boxed::Box;
use core::fmt;

use crate::link::SessionKey;
use crate::plain::{plain_enum, plain_struct};
use crate::resume::{Digest, Fresh, Token};
use crate::time::Span;

/// By what right a session outlives its link, and for how long.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) lasts: Span,
    pub(super) right: Right,
}

plain_struct! { Stay { lasts, right } }

#[derive(Debug)]
pub(super) enum Right {
    /// On the accepting side: the digest of the token that the peer must show.
    Expects { digest: Digest, former: Option<Box<Former>> },
    /// On the connecting side: what to show.
    Shows(Box<Credentials>),
}

plain_enum! { Right {
    0 => Expects { digest: digest, former: former }
    1 => Shows { 0: credentials }
} }

/// The token that the peer has shown last, while it is not known whether the peer has got the next
/// one. A peer whose WELCOME was lost shows it again, and gets the same next one: of two copies of
/// its HELLO, whichever comes last, neither locks it out.
#[derive(Debug)]
pub(super) struct Former {
    digest: Digest,
    next: Token,
    /// The gap that the WELCOME with the next one has told.
    gap: u32,
}

plain_struct! { Former { digest, next, gap } }

#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) key: SessionKey,
    pub(super) token: Secret,
}

plain_struct! { Credentials { key, token } }

/// Bytes that no log may show.
#[derive(Default)]
pub(super) struct Secret(pub(super) Box<[u8]>);

plain_struct! { Secret { 0: bytes } }

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secret bytes>", self.0.len())
    }
}

impl Stay {
    pub(super) fn expects(&self, digest: &Digest) -> bool {
        match &self.right {
            Right::Expects { digest: present, former } => {
                present == digest || former.as_ref().is_some_and(|it| it.digest == *digest)
            }
            Right::Shows(_) => false,
        }
    }

    /// Returns the next token of a peer that has shown one, and the gap that it is told: the given
    /// ones, but for those of a WELCOME that the peer may not have got.
    pub(super) fn renew(&mut self, shown: Digest, fresh: Fresh, gap: u32) -> (Token, u32) {
        if let Right::Expects { former: Some(former), .. } = &mut self.right
            && former.digest == shown
        {
            former.gap = former.gap.saturating_add(gap);
            return (former.next, former.gap);
        }
        let Fresh { token, digest } = fresh;
        let former = Some(Box::new(Former { digest: shown, next: token, gap }));
        self.right = Right::Expects { digest, former };
        (token, gap)
    }

    /// Notes that the peer has been heard since WELCOME, so that it knows its token.
    #[inline]
    pub(super) fn confirm(&mut self) {
        if let Right::Expects { former, .. } = &mut self.right
            && former.is_some()
        {
            *former = None;
        }
    }
}
