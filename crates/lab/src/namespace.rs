//! Network namespaces: creates them, enters them, and deletes them in every case.
//!
//! Everything that a run creates in the system has the prefix `sysl-PID-`: the namespaces, and a
//! directory for files. Interfaces and addresses exist inside namespaces only. So cleaning up needs
//! no list: it removes everything with the prefix, and the processes inside.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use systole_core::Span;

use crate::process::pause;
use crate::tools;
use crate::trouble::Trouble;

/// Directory in which iproute2 keeps the names of namespaces.
const NAMES: &str = "/run/netns";
const MARK: &str = "sysl-";
/// Time in which the creation of a namespace completes.
const CREATION_TIME: Span = Span::from_millis(200);

/// Set once a signal or a panic ends the process: nothing new may be created then.
static CLOSED: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace; deleted when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

/// The name prefix and the directory of one lab; the directory is deleted when dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    prefix: String,
    directory: PathBuf,
}

impl Workspace {
    pub(crate) fn new() -> Result<Workspace, Trouble> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{number}", own_mark());
        let directory = std::env::temp_dir().join(&prefix);
        fs::create_dir(&directory).map_err(Trouble::while_doing("a directory for the lab"))?;
        Ok(Workspace { prefix, directory })
    }

    /// Returns the path of a file of this lab.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Creates a namespace with its loopback up.
    pub(crate) fn namespace(&self, role: &str) -> Result<Namespace, Trouble> {
        if CLOSED.load(Ordering::SeqCst) {
            return Err(Trouble::new("interrupted"));
        }
        let name = format!("{}-{role}", self.prefix);
        tools::run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let namespace = Namespace { name };
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Namespace {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` commands, one per line.
    pub(crate) fn ip(&self, lines: &[&str]) -> Result<(), Trouble> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        tools::run(&mut command, &format!("{}\n", lines.join("\n"))).map(drop)
    }

    /// Runs one `ip` command, and returns its output.
    pub(crate) fn ip_output(&self, line: &str) -> Result<String, Trouble> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(line.split(' '));
        tools::run(&mut command, "")
    }

    /// Runs a program in the namespace to its end, and returns its output.
    pub(crate) fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String, Trouble> {
        self.enter(|| tools::run(Command::new(program).args(args), input))?
    }

    /// Sets kernel parameters of the namespace, by their path below `/proc/sys/net`.
    pub(crate) fn set(&self, parameters: &[(&str, &str)]) -> Result<(), Trouble> {
        self.enter(|| {
            for (name, value) in parameters {
                let path = Path::new("/proc/sys/net").join(name);
                fs::write(path, value).map_err(Trouble::while_doing(name))?;
            }
            Ok(())
        })?
    }

    /// Starts a program in the namespace.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Child, Trouble> {
        if CLOSED.load(Ordering::SeqCst) {
            return Err(Trouble::new("interrupted"));
        }
        let name = format!("{command:?}");
        self.enter(|| command.spawn())?.map_err(Trouble::while_doing(&name))
    }

    /// Calls `inside` on a new thread in the namespace. Sockets that it opens, and processes that
    /// it starts, stay in the namespace.
    pub(crate) fn enter<R: Send>(&self, inside: impl FnOnce() -> R + Send) -> Result<R, Trouble> {
        let doing = Trouble::while_doing("a thread inside a namespace");
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                let file = File::open(Path::new(NAMES).join(&self.name))?;
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&file),
                    Some(LinkNameSpaceType::Network),
                )?;
                Ok::<R, io::Error>(inside())
            });
            match thread.map_err(&doing)?.join() {
                Ok(result) => result.map_err(&doing),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes everything of this process at once, and prevents anything new. For signals and panics.
pub(crate) fn abandon() {
    CLOSED.store(true, Ordering::SeqCst);
    clean_mark(&own_mark());
    // Another thread may have been creating a namespace when `CLOSED` was set.
    pause(CREATION_TIME);
    clean_mark(&own_mark());
}

/// Removes what killed runs left behind: everything whose process has ended. Returns the names.
pub(crate) fn clean() -> Vec<String> {
    let mut gone: Vec<String> = leftovers();
    gone.retain(|name| owner(name).is_some_and(|pid| test_kill_process(pid).is_err()));
    for name in &gone {
        clean_mark(name);
    }
    gone
}

/// Returns the names of everything with the mark of any run.
fn leftovers() -> Vec<String> {
    let mut found = names_in(Path::new(NAMES), MARK);
    found.extend(names_in(&std::env::temp_dir(), MARK));
    found.sort();
    found.dedup();
    found
}

fn own_mark() -> String {
    format!("{MARK}{}-", std::process::id())
}

/// Returns the process that created something with this name.
fn owner(name: &str) -> Option<Pid> {
    let number = name.strip_prefix(MARK)?.split('-').next()?;
    Pid::from_raw(number.parse().ok()?)
}

fn clean_mark(mark: &str) {
    for name in names_in(Path::new(NAMES), mark) {
        remove(&name);
    }
    let directory = std::env::temp_dir();
    for name in names_in(&directory, mark) {
        let _ = fs::remove_dir_all(directory.join(name));
    }
}

fn names_in(directory: &Path, mark: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(mark)).collect()
}

/// Kills the processes of a namespace and deletes it, if it still exists.
fn remove(name: &str) {
    if let Ok(pids) = tools::run(Command::new("ip").args(["netns", "pids", name]), "") {
        for pid in pids.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
            if pid != rustix::process::getpid() {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    let _ = tools::run(Command::new("ip").args(["netns", "del", name]), "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_the_name() {
        let owner = |name| owner(name).map(Pid::as_raw_pid);
        assert_eq!(owner("sysl-12-0-gw"), Some(12));
        assert_eq!(owner("sysl-12-0"), Some(12));
        assert_eq!(owner("sysl-x-0"), None);
        assert_eq!(owner("other-12-0"), None);
    }

    #[test]
    fn files_of_a_living_process_are_kept() {
        let place = Workspace::new().unwrap();
        assert!(place.file("x").parent().is_some_and(Path::is_dir));
        let ours = own_mark();
        assert!(!clean().iter().any(|name| name.starts_with(&ours)));
        assert!(place.file("x").parent().is_some_and(Path::is_dir));
    }
}
