//! The signals that ask a command to end: Ctrl-C (SIGINT) and SIGTERM.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::exit::Exit;

/// Time in which a command that was asked to end prints what it has to say. Then the process ends
/// without: its output is blocked, by a pipe that nobody reads or a terminal on Ctrl-S.
const GRACE: Duration = Duration::from_secs(2);

/// The first of the signals.
#[derive(Debug)]
pub(crate) struct Interrupt {
    asked: oneshot::Receiver<()>,
}

/// Returns a runtime for a command that prints and can be interrupted: with a thread beside the one
/// that prints, on which signals and connections are served while the output is blocked.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

impl Interrupt {
    /// Installs the handlers within a runtime of [`runtime`]: from then on, both signals end the
    /// process well. As process 1 of a container it would ignore a signal without a handler.
    pub(crate) fn install() -> io::Result<Interrupt> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (asks, asked) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // The command may have ended meanwhile.
            let _ = asks.send(());
            tokio::time::sleep(GRACE).await;
            std::process::exit(Exit::Failure as i32);
        });
        Ok(Interrupt { asked })
    }

    /// Waits for one of the signals. Cancel-safe; it returns once.
    pub(crate) async fn wait(&mut self) {
        // The task that sends it lives as long as the runtime.
        let _ = (&mut self.asked).await;
    }
}
