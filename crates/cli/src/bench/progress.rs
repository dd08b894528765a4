//! The progress of a run on stderr: a bar on a terminal, else a line for each part of the run, and
//! one at least every minute while a part lasts.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use systole_core::Span;
use systole_net::Clock;

/// The longest time without a line, where there is no terminal.
const EVERY: Span = Span::from_secs(60);
/// Length from which a run is announced in minutes.
const MINUTES: Duration = Duration::from_secs(120);

/// Shows what a run does, and how many of its links are up.
pub(crate) struct Progress {
    bar: ProgressBar,
    clock: Clock,
    doing: RefCell<String>,
    printed: Cell<Span>,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{spinner} {msg:36} {bar:30} {pos}/{len} links");
        bar.set_style(style.expect("the template is legal"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress {
            bar,
            clock: Clock::start(),
            doing: RefCell::default(),
            printed: Cell::new(Span::ZERO),
        }
    }

    /// Reports how long the whole run will take, if nothing goes wrong.
    pub(crate) fn announce(&self, whole: Duration) {
        self.print(&format!("about {} in all", rounded(whole)));
    }

    /// Reports the begin of a part, with the number of its links.
    pub(crate) fn begin(&self, what: &str, links: usize) {
        self.bar.set_length(links as u64);
        self.bar.set_position(0);
        self.bar.set_message(what.to_owned());
        what.clone_into(&mut self.doing.borrow_mut());
        self.print(what);
    }

    /// Reports a change within a part.
    pub(crate) fn show(&self, what: String) {
        self.doing.borrow_mut().clone_from(&what);
        self.bar.set_message(what);
        self.tick();
    }

    /// Reports the number of links that are up.
    pub(crate) fn links(&self, up: usize) {
        self.bar.set_position(up as u64);
        self.tick();
    }

    /// Repeats the last report once a minute has passed.
    pub(crate) fn tick(&self) {
        if self.bar.is_hidden() && self.clock.monotonic().less(self.printed.get()) >= EVERY {
            self.print(&self.doing.borrow());
        }
    }

    /// Prints a line where a bar would not show.
    fn print(&self, text: &str) {
        if self.bar.is_hidden() {
            self.printed.set(self.clock.monotonic());
            // Progress that cannot be printed is no reason to end a run.
            let _ = writeln!(io::stderr(), "bench: {text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Formats a length in seconds, or in minutes if there are many.
fn rounded(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    if length < MINUTES { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_rounded() {
        let rounded = |seconds| rounded(Duration::from_secs_f64(seconds));
        assert_eq!(rounded(9.6), "10 s");
        assert_eq!(rounded(119.0), "119 s");
        assert_eq!(rounded(1_614.0), "27 min");
    }
}
