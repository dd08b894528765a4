//! Runs a gateway until it is stopped: binds, starts the shards, handles signals, drains.

mod announce;
mod control;
mod error;
mod inherited;
mod options;
mod probe;
mod reload;
mod signals;
mod start;
mod threads;
mod told;

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime;

pub use error::ServeError;
pub use inherited::inherited_sockets;
pub use options::ServeOptions;
pub use probe::{unbindable, unopenable};

use crate::config::Config;
use crate::logs::Logs;
use crate::ready::ReadyFile;

/// Number of control-plane threads: one can forward reports while another answers HTTP. The cores
/// are for the shards.
const CONTROL_THREADS: usize = 2;

/// Number of threads that write the log.
const LOG_THREADS: usize = 1;

/// Time limit for HTTP answers still in progress after the drain.
const ANSWERS_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs a gateway until SIGTERM, SIGINT or a drain request of the admin interface, then drains it.
///
/// SIGHUP reloads the configuration file and applies the settings that can change at run time.
///
/// # Errors
/// The gateway could not start, or ended other than by a complete drain; see [`ServeError`]. If it
/// had started, the log has the error ([`ServeError::is_logged`]).
pub fn serve(config: Config, options: ServeOptions) -> Result<(), ServeError> {
    threads::ensure(CONTROL_THREADS + LOG_THREADS).map_err(ServeError::Thread)?;
    let logs = Logs::start(&config.log).map_err(ServeError::Thread)?;
    let result = run(config, options, logs.clone());
    if let Err(error) = &result
        && error.is_logged()
    {
        let text = error.to_string();
        let (text, hint) =
            text.split_once("\nhint: ").map_or((&*text, None), |(t, h)| (t, Some(h)));
        tracing::error!(hint, "{text}");
    }
    logs.flush();
    result
}

fn run(config: Config, mut options: ServeOptions, logs: Logs) -> Result<(), ServeError> {
    let inherited = std::mem::take(&mut options.inherited);
    let bound = start::bind(&config, inherited)?;
    // After the addresses are bound: a gateway that is started twice leaves the first one's file.
    let ready_file = options.ready_file.take().map(prepare).transpose()?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(ServeError::Thread)?;
    let result = runtime.block_on(async {
        let running = start::start(&config, bound, logs)?;
        control::run(running, config, options, ready_file).await
    });
    match result {
        Ok(threads) => {
            for thread in threads {
                // Every shard has reported its end; a panic is in the log already.
                let _ = thread.join();
            }
            runtime.shutdown_timeout(ANSWERS_TIMEOUT);
            Ok(())
        }
        Err(error) => {
            runtime.shutdown_background();
            Err(error)
        }
    }
}

fn prepare(path: PathBuf) -> Result<ReadyFile, ServeError> {
    ReadyFile::prepare(&path).map_err(|error| ServeError::ReadyFile { path, error })
}
