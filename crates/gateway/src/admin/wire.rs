//! One connection of the admin interface as a byte stream whose writes have a deadline.

use std::io::{self, Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::places::Place;

/// A TCP stream that fails when the peer takes no byte for too long.
///
/// Without it, a peer that reads nothing keeps its answer, its buffers and its place until it
/// closes: TCP itself waits for ever at a closed window.
pub(super) struct Wire {
    stream: TcpStream,
    place: Place,
    limit: Duration,
    /// Runs while a write waits for the peer.
    deadline: Option<Pin<Box<Sleep>>>,
    marks: Arc<Marks>,
}

/// What happened on a connection, for the task that serves it.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Whether bytes arrived since the last byte was written: the start of another request.
    begun: AtomicBool,
    /// Whether a request is being answered, or events are sent.
    answering: AtomicBool,
    /// Whether a write passed its deadline.
    late: AtomicBool,
}

impl Marks {
    /// Records that the head of a request is complete, and is answered from now on.
    pub(super) fn taken(&self) {
        self.answering.store(true, Ordering::Relaxed);
    }

    /// Records that an answer was made, which is still to be written.
    pub(super) fn answered(&self) {
        self.begun.store(false, Ordering::Relaxed);
        self.answering.store(false, Ordering::Relaxed);
    }

    /// Returns whether the peer has sent a part of a head, and is owed no answer.
    pub(super) fn waits_for_head(&self) -> bool {
        self.begun() && !self.answering.load(Ordering::Relaxed)
    }

    /// Returns whether a request was begun that was not answered.
    pub(super) fn begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns whether a write passed its deadline.
    pub(super) fn late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }
}

impl Wire {
    /// Wraps `stream`, whose peer has to take a byte within `limit`.
    pub(super) fn new(stream: TcpStream, place: Place, limit: Duration) -> (Wire, Arc<Marks>) {
        let marks = Arc::<Marks>::default();
        (Wire { stream, place, limit, deadline: None, marks: marks.clone() }, marks)
    }

    /// Waits for the first byte of the peer, and returns it without taking it; `None` if the peer
    /// has closed its side.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let count = self.stream.peek(&mut first).await?;
        Ok((count > 0).then_some(first[0]))
    }

    /// Applies the deadline to the result of a write.
    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = written {
            if self.deadline.take().is_some() {
                self.place.flowing();
            }
            self.marks.begun.store(false, Ordering::Relaxed);
            return Poll::Ready(result);
        }
        let limit = self.limit;
        let place = &self.place;
        let deadline = self.deadline.get_or_insert_with(|| {
            place.stalled();
            Box::pin(sleep(limit))
        });
        if deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.marks.late.store(true, Ordering::Relaxed);
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the peer does not read the answer")))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.marks.begun.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
