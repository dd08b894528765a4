//! Makes many runs, some in parallel, and shows the progress.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use systole_core::random::Random;
use systole_net::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::namespace;
use crate::progress::Progress;
use crate::record::Run;
use crate::scenario::{Role, Scenario, scenarios};
use crate::tools;
use crate::trouble::Trouble;

/// Maximum of labs in parallel: each has three to four namespaces and two processes. Heavy labs
/// always run alone.
pub const MAX_JOBS: usize = 64;
/// Maximum of repetitions of one scenario; more would take days.
pub const MAX_REPEAT: u32 = 10_000;

/// The selection of runs, and how to make them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Scenarios by name; if empty, all but the long ones.
    pub scenarios: Vec<String>,
    /// The only observer; if `None`, each observer that the scenario supports.
    pub role: Option<Role>,
    /// Repetitions of each scenario, 1 to [`MAX_REPEAT`].
    pub repeat: u32,
    /// If given, the minimum number of runs in all, spread evenly.
    pub matrix: Option<u32>,
    /// Labs in parallel, 1 to [`MAX_JOBS`].
    pub jobs: usize,
    /// Seed of all random choices.
    pub seed: u64,
    /// The `systole` binary, which runs as gateway and as peer.
    pub program: PathBuf,
}

/// The parameters of one run.
#[derive(Clone, Copy)]
struct Job {
    scenario: &'static Scenario,
    role: Role,
    repetition: u32,
    seed: u64,
}

impl Job {
    /// Returns the estimated time in milliseconds: the steps, and building and removing the lab.
    fn lasts_ms(&self) -> u64 {
        self.scenario.lasts_ms() + 2_000
    }
}

/// Makes all runs, and returns them in the order of the table.
///
/// On an interrupt or a panic everything that was built is removed, and the process exits.
///
/// # Errors
/// This machine cannot run a lab, or a scenario does not exist; nothing was built. An error in one
/// run is recorded in that run.
pub fn run(options: &Options) -> Result<Vec<Run>, Trouble> {
    let jobs = jobs(options)?;
    tools::check()?;
    clean_up_on_exit()?;
    let work_ms = jobs.iter().map(|job| job.lasts_ms()).sum();
    let mut progress = Progress::new(Clock::start(), jobs.len(), work_ms);
    // The longest first, so that none of them starts when all others are done.
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(jobs[*index].scenario.lasts_ms()));
    let (heavy, light): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|index| jobs[*index].scenario.is_heavy());
    let mut runs = make_runs(&jobs, &light, (options.jobs, &options.program), &mut progress);
    runs.extend(make_runs(&jobs, &heavy, (1, &options.program), &mut progress));
    progress.finish();
    runs.sort_by_key(|(index, _)| *index);
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

/// Returns name, fault, observers and explanation of each scenario.
pub fn list() -> Vec<[String; 4]> {
    let row = |scenario: &Scenario| {
        let roles: Vec<&str> = scenario.roles.iter().map(|role| role.name()).collect();
        let named = if scenario.long { " Runs only if it is named." } else { "" };
        let about = format!("{}{named}", scenario.about);
        [scenario.name, scenario.fault, &roles.join(", "), &about].map(ToOwned::to_owned)
    };
    scenarios().map(row).collect()
}

/// Removes what killed runs left behind, and returns the names of it.
///
/// # Errors
/// This machine cannot run a lab, so this process could remove nothing.
pub fn clean() -> Result<Vec<String>, Trouble> {
    tools::check()?;
    Ok(namespace::clean())
}

fn jobs(options: &Options) -> Result<Vec<Job>, Trouble> {
    for name in &options.scenarios {
        if !scenarios().any(|scenario| scenario.name == name) {
            let text = format!("no scenario is called {name}; --list names them");
            return Err(Trouble::new(text));
        }
    }
    let wanted = |scenario: &Scenario| {
        options.scenarios.is_empty() && !scenario.long
            || options.scenarios.iter().any(|name| name == scenario.name)
    };
    let pairs: Vec<(&Scenario, Role)> = scenarios()
        .filter(|scenario| wanted(scenario))
        .flat_map(|scenario| scenario.roles.iter().map(move |role| (scenario, *role)))
        .filter(|(_, role)| options.role.is_none_or(|wanted| wanted == *role))
        .collect();
    let each = u32::try_from(pairs.len()).unwrap_or(u32::MAX).max(1);
    let repeat = options.matrix.map_or(options.repeat, |runs| runs.div_ceil(each));
    let mut seeds = Random::new(options.seed);
    let mut jobs = Vec::new();
    for (scenario, role) in pairs {
        for repetition in 1..=repeat.min(MAX_REPEAT) {
            let seed = seeds.next_u64() >> 16;
            jobs.push(Job { scenario, role, repetition, seed });
        }
    }
    Ok(jobs)
}

/// Makes the runs of `order`, with `at_a_time` in parallel.
fn make_runs(
    jobs: &[Job],
    order: &[usize],
    (at_a_time, program): (usize, &Path),
    progress: &mut Progress,
) -> Vec<(usize, Run)> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_a_time.clamp(1, MAX_JOBS) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Job { scenario, role, repetition, seed } = jobs[*index];
                    let run = crate::run::run(scenario, role, repetition, seed, program);
                    let _ = sender.send((*index, run));
                }
            });
        }
        drop(sender);
        let done =
            receiver.iter().inspect(|(index, run)| progress.done(run, jobs[*index].lasts_ms()));
        done.collect()
    })
}

/// Has everything that this process built removed when a signal other than SIGKILL or a panic ends
/// it.
fn clean_up_on_exit() -> Result<(), Trouble> {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        namespace::abandon();
        std::process::exit(1);
    }));
    let doing = Trouble::while_doing("listening for interrupts");
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().map_err(&doing)?;
    let (ready, listening) = mpsc::channel();
    let waiting = move || {
        runtime.block_on(async {
            let mut signals = match ExitSignals::listen() {
                Ok(signals) => signals,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            let code = signals.next().await;
            namespace::abandon();
            std::process::exit(code);
        });
    };
    thread::Builder::new().spawn(waiting).map_err(&doing)?;
    let result = listening.recv();
    result.map_err(|_| Trouble::new("listening for interrupts ended"))?.map_err(doing)
}

/// The signals that end this process from outside.
struct ExitSignals {
    interrupted: Signal,
    terminated: Signal,
    /// `None` if the parent process set SIGHUP to be ignored, as `nohup` does.
    hung_up: Option<Signal>,
}

impl ExitSignals {
    fn listen() -> std::io::Result<ExitSignals> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = (!ignores_hangup(&status)).then(SignalKind::hangup);
        Ok(ExitSignals {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: hangup.map(signal).transpose()?,
        })
    }

    /// Waits for one of the signals, and returns its exit code.
    async fn next(&mut self) -> i32 {
        let hung_up = async {
            match &mut self.hung_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupted.recv() => 130,
            _ = self.terminated.recv() => 143,
            _ = hung_up => 129,
        }
    }
}

/// Whether the process status lists SIGHUP, the first signal, as ignored.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(scenarios: &[&str]) -> Options {
        Options {
            scenarios: scenarios.iter().map(|name| (*name).to_owned()).collect(),
            role: None,
            repeat: 2,
            matrix: None,
            jobs: 1,
            seed: 7,
            program: PathBuf::new(),
        }
    }

    #[test]
    fn each_observer_repeats_each_scenario_with_its_own_seed() {
        let found = jobs(&options(&["drop", "switch"])).unwrap();
        let named: Vec<_> =
            found.iter().map(|job| (job.scenario.name, job.role, job.repetition)).collect();
        let expected = [
            ("drop", Role::Gateway, 1),
            ("drop", Role::Gateway, 2),
            ("drop", Role::Client, 1),
            ("drop", Role::Client, 2),
            ("switch", Role::Gateway, 1),
            ("switch", Role::Gateway, 2),
        ];
        assert_eq!(named, expected);
        let seeds: std::collections::BTreeSet<u64> = found.iter().map(|job| job.seed).collect();
        assert_eq!(seeds.len(), 6);
    }

    #[test]
    fn a_matrix_has_at_least_the_runs_asked_for() {
        let found = jobs(&Options { matrix: Some(300), ..options(&[]) }).unwrap();
        assert!(found.len() >= 300, "{}", found.len());
        let often = |job: &&Job| job.scenario.name == "drop" && job.role == Role::Gateway;
        assert!(found.iter().filter(often).count() > 1);
    }

    #[test]
    fn an_ignored_hangup_is_recognized() {
        assert!(ignores_hangup("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }

    #[test]
    fn an_unknown_scenario_is_refused() {
        assert!(jobs(&options(&["nonsense"])).is_err());
    }
}
