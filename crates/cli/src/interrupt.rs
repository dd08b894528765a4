//! The signals that ask a command to end: Ctrl-C (SIGINT) and SIGTERM.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handlers of both signals.
#[derive(Debug)]
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// Installs the handlers within a Tokio runtime: from then on, neither signal ends the process.
    pub(crate) fn install() -> io::Result<Interrupt> {
        Ok(Interrupt {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one of the signals. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
