//! The transport that a listener or a client was configured with.

use super::{End, Held, Opened, Plain, Tls, Transport};

/// One of the transports. The plain one takes no memory of its own.
#[derive(Debug, Default)]
pub enum Layer {
    /// Nothing between the link and the connection.
    #[default]
    Plain,
    /// TLS.
    Tls(Box<Tls>),
}

// The kind takes no room beside the pointer.
const _: () = assert!(size_of::<Layer>() == size_of::<usize>());

impl From<Tls> for Layer {
    fn from(tls: Tls) -> Layer {
        Layer::Tls(Box::new(tls))
    }
}

impl Layer {
    /// Returns the TLS; `None` where there is none.
    pub fn tls(&self) -> Option<&Tls> {
        match self {
            Layer::Plain => None,
            Layer::Tls(tls) => Some(tls),
        }
    }
}

/// Calls a method of the transport at hand.
macro_rules! of_each {
    ($layer:expr, $transport:ident => $call:expr) => {
        match $layer {
            Layer::Plain => {
                let $transport = &mut Plain;
                $call
            }
            Layer::Tls($transport) => $call,
        }
    };
}

impl Transport for Layer {
    #[inline]
    fn open(&mut self, buffer: &mut [u8], received: usize) -> Opened {
        of_each!(self, it => it.open(buffer, received))
    }

    #[inline]
    fn holds_more(&self) -> bool {
        self.tls().is_some_and(Tls::holds_more)
    }

    #[inline]
    fn has_closed(&self) -> bool {
        self.tls().is_some_and(Tls::has_closed)
    }

    #[inline]
    fn held(&self) -> Held {
        self.tls().map(Tls::held).unwrap_or_default()
    }

    fn end(&mut self) -> Option<End> {
        of_each!(self, it => it.end())
    }

    #[inline]
    fn seal<'a>(&'a mut self, plaintext: &'a [u8]) -> &'a [u8] {
        match self {
            Layer::Plain => plaintext,
            Layer::Tls(tls) => tls.seal(plaintext),
        }
    }

    #[inline]
    fn sent(&mut self, count: usize) -> usize {
        of_each!(self, it => it.sent(count))
    }

    #[inline]
    fn has_unsent(&self) -> bool {
        self.tls().is_some_and(Tls::has_unsent)
    }

    #[inline]
    fn is_open(&self) -> bool {
        self.tls().is_none_or(Tls::is_open)
    }

    fn finish(&mut self) {
        of_each!(self, it => it.finish());
    }
}
