//! Runs a gateway until it is told to stop.

mod control;
mod error;
mod options;
mod reload;
mod signals;
mod start;

use std::time::Duration;

use tokio::runtime;

pub use error::ServeError;
pub use options::ServeOptions;

use crate::config::Config;
use crate::logs::Logs;

/// Threads of the control plane: one can carry reports while another answers HTTP. The cores belong
/// to the shards.
const CONTROL_THREADS: usize = 2;

/// How long answers under way may take when all else has ended.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Serves until told to stop, then drains: by SIGTERM, SIGINT, or over the admin interface.
///
/// SIGHUP reads the configuration file again and puts in force what can change at run time.
///
/// # Errors
/// See [`ServeError`]: nothing was started, or it ended before its time.
pub fn serve(config: Config, options: ServeOptions) -> Result<(), ServeError> {
    let logs = Logs::start(&config.log).unwrap_or_else(|_| Logs::detached(&config.log));
    let bound = start::bind(&config)?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(ServeError::Thread)?;
    let result = runtime.block_on(async {
        let running = start::start(&config, bound, logs)?;
        control::run(running, config, options).await
    });
    match result {
        Ok(threads) => {
            for thread in threads {
                // Each has said that it has stopped; a panic was told by then.
                let _ = thread.join();
            }
            runtime.shutdown_timeout(LAST_ANSWERS);
            Ok(())
        }
        Err(error) => {
            runtime.shutdown_background();
            Err(error)
        }
    }
}
