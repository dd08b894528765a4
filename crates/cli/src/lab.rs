//! `systole lab`: injects real faults and judges the verdicts.

use std::io;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  systole lab --list                    list the scenarios and what each of them shows
  sudo systole lab                      run each scenario once, some in parallel
  sudo systole lab drop hang --repeat 5 --svg timelines
  sudo systole lab --matrix 300         write the confusion matrix in docs/diagnosis.md
  sudo systole lab --clean              remove what a killed run left behind

How to read it:
  right     the expected cause, within the bound
  unknown   within the bound, but without the cause: allowed, if rare
  late      after the bound
  missed    no verdict at all
  wrong     another cause, or a verdict on a living peer
  invalid   the fault had no effect or the lab failed: no result for the program

Exit code 0 if at least 95 % are right and the others unknown.";

/// Inject real network faults, and check that the verdicts are right
///
/// Builds networks of namespaces with a router in them, runs a gateway and clients there, injects
/// faults, and compares the verdicts with the expected ones. Needs root on Linux, iproute2,
/// nftables and conntrack. Touches no interface outside its own namespaces, and removes everything
/// it created.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Scenarios to run, as --list names them [default: all but the long ones]
    scenarios: Vec<String>,
    /// List the scenarios with explanations, and run nothing
    #[arg(long)]
    list: bool,
    /// Remove what killed runs left behind, and run nothing
    #[arg(long)]
    clean: bool,
    /// Judge the verdicts of this end only
    #[arg(long, value_enum)]
    observer: Option<Observer>,
    /// How often to run each scenario
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Make at least N runs, spread evenly over the scenarios, and write the confusion matrix
    #[arg(long, value_name = "N", conflicts_with = "repeat",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    matrix: Option<u32>,
    /// File for the confusion matrix, which is written between its two markers
    #[arg(long, value_name = "FILE", default_value = "docs/diagnosis.md", requires = "matrix")]
    document: PathBuf,
    /// Number of labs in parallel; those with hundreds of links run alone
    #[arg(long, value_name = "N", default_value_t = 6,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Seed of the random phase of the heartbeat at which a fault occurs
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Draw a timeline of each run into DIR
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

/// The end whose verdicts are judged.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Observer {
    Gateway,
    Client,
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn run(_: &Args, output: &mut Output) -> io::Result<Exit> {
    output.error("the lab needs Linux: network namespaces and nftables");
    Ok(Exit::Failure)
}

/// Fails: a peer of the lab needs Linux too.
#[cfg(not(target_os = "linux"))]
pub(crate) fn run_peer(_: &str, output: &mut Output) -> io::Result<Exit> {
    output.error("the lab needs Linux");
    Ok(Exit::Failure)
}

#[cfg(target_os = "linux")]
pub(crate) use linux::{run, run_peer};

#[cfg(target_os = "linux")]
mod linux {
    //! The command on Linux.

    use std::fs;
    use std::path::Path;

    use systole_lab::judge::Score;
    use systole_lab::{Options, Role, Run, matrix, report, svg};

    use super::{Args, Exit, Observer, Output, io};

    /// Percentage of runs that must be right; the others may be unknown.
    const MIN_RIGHT_PERCENT: usize = 95;

    pub(crate) fn run(args: &Args, output: &mut Output) -> io::Result<Exit> {
        if args.list {
            return list(output);
        }
        match execute(args, output) {
            Ok(exit) => Ok(exit),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(error),
            Err(error) => {
                output.error(&error.to_string());
                Ok(Exit::Failure)
            }
        }
    }

    /// Runs a peer of the lab until its standard input ends.
    pub(crate) fn run_peer(spec: &str, output: &mut Output) -> io::Result<Exit> {
        match systole_lab::run_peer(spec) {
            Ok(()) => Ok(Exit::Success),
            Err(trouble) => {
                output.error(&format!("a peer of the lab failed: {trouble}"));
                Ok(Exit::Failure)
            }
        }
    }

    fn list(output: &mut Output) -> io::Result<Exit> {
        for [name, fault, observers, about] in systole_lab::list() {
            output.line(&format!("{name}: {fault} (observed by {observers})\n    {about}"))?;
        }
        Ok(Exit::Success)
    }

    fn execute(args: &Args, output: &mut Output) -> io::Result<Exit> {
        if args.clean {
            let gone = systole_lab::clean().map_err(io::Error::other)?;
            for name in &gone {
                output.line(&format!("removed {name}"))?;
            }
            return Ok(Exit::Success);
        }
        if args.matrix.is_some() {
            // Fails now, before hours of runs, if the document is unusable.
            document(args, "")?;
        }
        let options = Options {
            scenarios: args.scenarios.clone(),
            role: args.observer.map(role),
            repeat: args.repeat,
            matrix: args.matrix,
            jobs: usize::from(args.jobs),
            seed: args.seed,
            program: std::env::current_exe()?,
        };
        let runs = systole_lab::run(&options).map_err(io::Error::other)?;
        if let Some(directory) = &args.svg {
            draw(&runs, directory)?;
        }
        if args.matrix.is_some() {
            write_matrix(&runs, args)?;
        }
        if args.json {
            output.line(&serde_json::to_string_pretty(&runs)?)?;
        } else {
            // With a matrix, right runs are only counted; the others are listed.
            let shown = |run: &&Run| args.matrix.is_none() || run.score != Score::Right;
            output.line(&report::table(runs.iter().filter(shown)))?;
            output.line(&report::summary(&runs))?;
        }
        Ok(if is_good(&runs) { Exit::Success } else { Exit::Failure })
    }

    fn is_good(runs: &[Run]) -> bool {
        let right = runs.iter().filter(|run| run.score == Score::Right).count();
        let allowed = |run: &Run| matches!(run.score, Score::Right | Score::Unknown);
        runs.iter().all(allowed) && right * 100 >= runs.len() * MIN_RIGHT_PERCENT
    }

    fn draw(runs: &[Run], directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        for run in runs {
            let name = format!("{}-{}-{}.svg", run.scenario, run.role.name(), run.repetition);
            let timeline = svg::timeline(run).map_err(io::Error::other)?;
            fs::write(directory.join(name), timeline)?;
        }
        Ok(())
    }

    fn write_matrix(runs: &[Run], args: &Args) -> io::Result<()> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let section = matrix::markdown(runs, &command(args), &format!("Linux {}", kernel.trim()));
        fs::write(&args.document, document(args, &section)?)
    }

    /// Returns the text of the document with `section` as its matrix.
    fn document(args: &Args, section: &str) -> io::Result<String> {
        let path = &args.document;
        let text = fs::read_to_string(path)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        matrix::replace(&text, section).ok_or_else(|| {
            io::Error::other(format!("{} has no markers for the matrix", path.display()))
        })
    }

    /// Returns the command line that repeats these runs.
    fn command(args: &Args) -> String {
        let mut words = vec!["systole lab".to_owned()];
        words.extend(args.scenarios.iter().cloned());
        if let Some(observer) = args.observer {
            words.push(format!("--observer {}", role(observer).name()));
        }
        if let Some(runs) = args.matrix {
            words.push(format!("--matrix {runs}"));
        }
        words.push(format!("--jobs {} --seed {}", args.jobs, args.seed));
        words.join(" ")
    }

    fn role(observer: Observer) -> Role {
        match observer {
            Observer::Gateway => Role::Gateway,
            Observer::Client => Role::Client,
        }
    }
}
