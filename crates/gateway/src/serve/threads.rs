//! Threads beside the control plane: what may block runs there, and a lack of threads is an error.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder};

use tokio::sync::oneshot;

/// Runs `work`, which may block, on a thread of its own. Dropping the receiver does not end it.
///
/// Not a task of the runtime: that panics if the system refuses a thread.
///
/// # Errors
/// The system refuses the thread.
pub(super) fn run_aside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (sender, receiver) = oneshot::channel();
    // Nobody receives if the wait has ended.
    let work = move || drop(sender.send(work()));
    Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(receiver)
}

/// Finds out whether the system grants `count` more threads. Libraries that start threads panic
/// without them.
///
/// # Errors
/// The system refuses one of them.
pub(super) fn ensure(count: usize) -> io::Result<()> {
    let before = tasks();
    let gate = Arc::new(Mutex::new(()));
    let shut = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let mut started = Vec::new();
    let mut result = Ok(());
    for _ in 0..count {
        let gate = gate.clone();
        match Builder::new().spawn(move || drop(gate.lock())) {
            Ok(thread) => started.push(thread),
            Err(error) => result = Err(error),
        }
    }
    drop(shut);
    for thread in started {
        // It cannot panic.
        let _ = thread.join();
    }
    // The system counts a thread for a moment longer than a join takes.
    for _ in 0..MAX_LOOKS {
        if tasks() <= before {
            break;
        }
        thread::yield_now();
    }
    result
}

/// Maximum number of looks at the threads that end: some 20 ms.
const MAX_LOOKS: usize = 1_000;

/// Returns the number of threads of this process; 0 where the system does not tell.
fn tasks() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_beside_returns_its_result() {
        assert_eq!(run_aside("aside", || 7).unwrap().await, Ok(7));
        ensure(4).unwrap();
    }
}
