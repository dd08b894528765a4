//! The end of a link: closing its socket, and the record that the next link reports from.

use std::io;

use systole_core::link::Closing;
use systole_core::witness::Past;
use tokio::io::AsyncWriteExt;

use super::{Connection, LINGER, failure};
use crate::loop_clock::LoopClock;
use crate::shared::Shared;

impl Connection {
    /// Returns the record of this link for the next handshake; `None` in codecs without sessions.
    pub(super) fn past(&mut self, clock: &LoopClock) -> Option<Past> {
        let (session, now) = (self.translator.session, clock.now());
        let bound = self.link.policy().bound().unwrap_or_default();
        let verdict = self.translator.verdict?;
        (session != 0).then_some(Past {
            session,
            ids: self.link.peer_ids()?,
            cause: verdict.cause,
            saw: Past::saw(verdict.cause, self.network_changed),
            unheard: verdict.at.since(verdict.last_heard),
            silent: self.hearing.longest_silence(now),
            ended: now,
            ended_at: clock.boottime(),
            bound,
        })
    }

    /// Closes the socket; after a close requested by the application, CLOSE is sent first.
    pub(super) async fn close(&mut self, shared: &Shared) {
        match self.closing {
            Closing::Flush if self.close_requested => {
                // The link has ended; whether CLOSE arrived cannot be reported any more.
                let _ = tokio::time::timeout(LINGER, self.linger()).await;
            }
            Closing::Flush | Closing::Abort => {
                let _ = self.flush();
            }
        }
        shared.release(std::mem::take(&mut self.queued_cost));
    }

    /// Sends the outbox and waits for the server to close its side: closing a socket with unread
    /// bytes resets the connection, and CLOSE might be lost.
    async fn linger(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            self.stream.writable().await?;
            self.flush()?;
        }
        self.stream.shutdown().await?;
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if failure(&error).is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }
}
