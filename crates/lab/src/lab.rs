//! Many runs, some at a time, with their progress shown.

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

/// The most labs that may stand at a time: each is three to four namespaces and two processes.
/// Heavy ones have the machine to themselves whatever is asked for.
pub const MAX_JOBS: usize = 64;
/// The most repetitions of one scenario; more would take days.
pub const MAX_REPEAT: u32 = 10_000;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// These scenarios by name; all but the long ones if empty.
    pub scenarios: Vec<String>,
    /// With this observer alone; with each that makes sense if `None`.
    pub role: Option<Role>,
    /// How often each, 1 to [`MAX_REPEAT`].
    pub repeat: u32,
    /// If given, at least so many runs in all, spread evenly.
    pub matrix: Option<u32>,
    /// How many labs at a time, 1 to [`MAX_JOBS`].
    pub jobs: usize,
    /// What chance is drawn from.
    pub seed: u64,
    /// The `systole` binary, which is gateway and peer.
    pub program: PathBuf,
}

/// One run to be made.
#[derive(Clone, Copy)]
struct Job {
    scenario: &'static Scenario,
    role: Role,
    repetition: u32,
    seed: u64,
}

impl Job {
    /// About how long it takes, in milliseconds: its steps, and building and removing the lab.
    fn lasts_ms(&self) -> u64 {
        self.scenario.lasts_ms() + 2_000
    }
}

/// Makes all runs; their order is that of the table.
///
/// On an interrupt or a panic everything that was built is removed, and the process ends.
///
/// # Errors
/// This machine cannot run a lab, or a scenario does not exist; nothing was built. What goes wrong
/// in one run is told in that run.
pub fn run(options: &Options) -> Result<Vec<Run>, Trouble> {
    let jobs = jobs(options)?;
    tools::check()?;
    clean_up_at_the_end()?;
    let work_ms = jobs.iter().map(|job| job.lasts_ms()).sum();
    let mut progress = Progress::new(Clock::start(), jobs.len(), work_ms);
    // The longest first, so that none of them is begun when all others are done.
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(jobs[*index].scenario.lasts_ms()));
    let (heavy, light): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|index| jobs[*index].scenario.is_heavy());
    let mut runs = work(&jobs, &light, (options.jobs, &options.program), &mut progress);
    runs.extend(work(&jobs, &heavy, (1, &options.program), &mut progress));
    progress.finish();
    runs.sort_by_key(|(index, _)| *index);
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

/// The names of all scenarios, with their faults, observers and explanations.
pub fn list() -> Vec<[String; 4]> {
    let row = |scenario: &Scenario| {
        let roles: Vec<&str> = scenario.roles.iter().map(|role| role.name()).collect();
        let named = if scenario.long { " Runs only if it is named." } else { "" };
        let about = format!("{}{named}", scenario.about);
        [scenario.name, scenario.fault, &roles.join(", "), &about].map(ToOwned::to_owned)
    };
    scenarios().map(row).collect()
}

/// Removes what killed runs left, and tells what it was.
///
/// # Errors
/// This machine cannot run a lab, so there is nothing that this process could remove.
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

/// Makes the runs of `order`, so many at a time.
fn work(
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

/// Whatever ends this process, short of SIGKILL, removes what it built.
fn clean_up_at_the_end() -> Result<(), Trouble> {
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
            let mut endings = match Endings::listen() {
                Ok(endings) => endings,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            let code = endings.next().await;
            namespace::abandon();
            std::process::exit(code);
        });
    };
    thread::Builder::new().spawn(waiting).map_err(&doing)?;
    let result = listening.recv();
    result.map_err(|_| Trouble::new("listening for interrupts ended"))?.map_err(doing)
}

/// The signals that end a program from outside.
struct Endings {
    interrupted: Signal,
    terminated: Signal,
    /// `None` where whoever started us wants it ignored, as `nohup` does.
    hung_up: Option<Signal>,
}

impl Endings {
    fn listen() -> std::io::Result<Endings> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = (!ignores_hangup(&status)).then(SignalKind::hangup);
        Ok(Endings {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: hangup.map(signal).transpose()?,
        })
    }

    /// Waits for one of them, and returns the exit code that says which.
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

/// Whether the process status shows SIGHUP, the first signal, among those that are ignored.
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
    fn a_hangup_that_is_ignored_stays_so() {
        assert!(ignores_hangup("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }

    #[test]
    fn an_unknown_scenario_is_refused() {
        assert!(jobs(&options(&["nonsense"])).is_err());
    }
}
