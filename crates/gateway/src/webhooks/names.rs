//! The addresses of the services that the gateway calls.
//!
//! The system's resolver blocks its thread for as long as it likes: a name server that does not
//! answer costs half a minute. So a fixed number of threads look names up, each name once at a
//! time, and a request waits for them at most as long as it may. An answer is kept for a short
//! time, and used for longer while no newer one comes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use systole_core::Span;
use systole_net::Clock;

/// Threads that look names up. A name takes one at a time, so that this many silent name servers
/// are needed before a name of another one waits.
const THREADS: usize = 4;

/// Maximum number of names, far above what a configuration holds. A further one is not looked up.
const NAMES: usize = 1_024;

/// The time after which a request no longer takes an answer as it is: a change is followed within
/// this.
const KEPT: Span = Span::from_secs(30);

/// The age at which an answer is asked for again, while requests still use it: a name in use never
/// makes a request wait.
const RENEWED: Span = Span::from_secs(15);

/// The time for which a failure is an answer: a crowd of requests does not become one of lookups.
const FAILED_KEPT: Span = Span::from_secs(2);

/// How long a request waits for a lookup if there is an older answer.
const PATIENCE: Span = Span::from_secs(1);

/// The age beyond which an answer is not used, even if no newer one comes: a name server that is
/// down for a night harms nobody, and an address given up long ago gets no token.
const LONGEST_USE: Span = Span::from_secs(24 * 60 * 60);

/// The names of this process, as its resolver is one.
pub(super) static NAMES_OF_PROCESS: LazyLock<Names> =
    LazyLock::new(|| Names::new(Clock::start(), system));

/// Looks a name up; blocks. The ports of the result are 0.
type LookUp = fn(&str) -> Result<Vec<SocketAddr>, Failure>;

/// Why a lookup failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// Whether the name service has answered, and said that there is nothing.
    is_gone: bool,
    why: String,
}

/// The names that are looked up. Clones share them.
#[derive(Clone)]
pub(super) struct Names(Arc<Shared>);

struct Shared {
    clock: Clock,
    look_up: LookUp,
    table: Mutex<Table>,
    /// Notified when a name waits for a thread.
    asked: Condvar,
    /// Notified when a lookup has ended.
    answered: Condvar,
}

/// What is known of names, on the clock of a caller.
#[derive(Default)]
struct Table {
    names: BTreeMap<String, Name>,
    /// Names that wait for a thread, each once.
    queue: VecDeque<String>,
    threads: usize,
}

#[derive(Default)]
struct Name {
    /// The last answer with addresses, and when it came.
    addresses: Vec<SocketAddr>,
    found_at: Span,
    /// When the last lookup ended, if one has, and why it failed.
    checked_at: Option<Span>,
    failure: Option<String>,
    /// Since when it waits for a thread or is looked up.
    asked_at: Option<Span>,
}

/// What a request does about a name.
#[derive(PartialEq, Eq, Debug)]
enum Advice {
    Use(Vec<SocketAddr>),
    Fail(String),
    /// Look again when a lookup has ended, or after this time.
    Wait(Span),
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names(…)")
    }
}

impl Names {
    fn new(clock: Clock, look_up: LookUp) -> Names {
        let (table, asked, answered) = (Mutex::default(), Condvar::new(), Condvar::new());
        Names(Arc::new(Shared { clock, look_up, table, asked, answered }))
    }

    /// Starts the threads, unless they run, and looks these names up. Without a name it starts
    /// nothing.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start<'a>(&self, hosts: impl Iterator<Item = &'a str>) -> io::Result<()> {
        let now = self.0.clock.monotonic();
        let mut table = self.0.lock();
        for host in hosts {
            table.advise(now, host);
        }
        while table.threads < THREADS && !table.names.is_empty() {
            let shared = self.0.clone();
            let name = format!("lookup-{}", table.threads);
            drop(Builder::new().name(name).spawn(move || shared.work())?);
            table.threads += 1;
        }
        self.0.asked.notify_all();
        Ok(())
    }

    /// Returns the addresses of a name, with the port 0. Waits at most for `limit`.
    pub(super) fn find(&self, host: &str, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        let clock = self.0.clock;
        let deadline = clock.monotonic() + Span::from(limit);
        let mut table = self.0.lock();
        loop {
            let now = clock.monotonic();
            let advice = table.advise(now, host);
            if !table.queue.is_empty() {
                // Also where an older answer is used: nobody waits for the newer one.
                self.0.asked.notify_one();
            }
            let wait = match advice {
                Advice::Use(addresses) => return Ok(addresses),
                Advice::Fail(why) => return Err(io::Error::other(format!("{host}: {why}"))),
                Advice::Wait(wait) => wait.min(deadline.less(now)),
            };
            if table.threads == 0 {
                return Err(io::Error::other(format!("{host}: no thread looks names up")));
            }
            if wait == Span::ZERO {
                let why = format!("{host}: the name service has not answered in time");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            let waited = self.0.answered.wait_timeout(table, wait.into());
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut table = self.lock();
        loop {
            let Some(host) = table.queue.pop_front() else {
                table = self.asked.wait(table).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(table);
            let found = (self.look_up)(&host);
            table = self.lock();
            table.answer(self.clock.monotonic(), &host, found);
            self.answered.notify_all();
        }
    }
}

impl Table {
    /// Returns what a request does about a name at `now`, and has it looked up if that is due.
    fn advise(&mut self, now: Span, host: &str) -> Advice {
        if !self.names.contains_key(host) {
            if self.names.len() >= NAMES {
                return Advice::Fail(format!("more than {NAMES} names are looked up"));
            }
            self.names.insert(host.to_owned(), Name::default());
        }
        let Some(name) = self.names.get_mut(host) else {
            return Advice::Fail("it is unknown".to_owned());
        };
        let age = name.checked_at.map(|at| now.less(at));
        let (renewed, kept) = match name.failure {
            None => (RENEWED, KEPT),
            Some(_) => (FAILED_KEPT, FAILED_KEPT),
        };
        if age.is_none_or(|age| age >= renewed) && name.asked_at.is_none() {
            name.asked_at = Some(now);
            self.queue.push_back(host.to_owned());
        }
        let is_fresh = age.is_some_and(|age| age < kept);
        let is_usable = !name.addresses.is_empty() && now.less(name.found_at) < LONGEST_USE;
        let patience = name.asked_at.map_or(Span::ZERO, |at| (at + PATIENCE).less(now));
        match &name.failure {
            Some(_) if is_usable => Advice::Use(name.addresses.clone()),
            None if is_usable && (is_fresh || patience == Span::ZERO) => {
                Advice::Use(name.addresses.clone())
            }
            Some(why) if is_fresh => Advice::Fail(why.clone()),
            _ if is_usable => Advice::Wait(patience),
            _ => Advice::Wait(LONGEST_USE),
        }
    }

    /// Takes the result of a lookup.
    fn answer(&mut self, now: Span, host: &str, found: Result<Vec<SocketAddr>, Failure>) {
        let Some(name) = self.names.get_mut(host) else {
            return;
        };
        (name.asked_at, name.checked_at) = (None, Some(now));
        match found {
            Ok(addresses) => {
                (name.addresses, name.found_at, name.failure) = (addresses, now, None);
            }
            Err(Failure { is_gone, why }) => {
                if is_gone {
                    name.addresses.clear();
                }
                if name.failure.as_ref() != Some(&why) {
                    let hint = "the last answer is used for a day; see docs/webhooks.md";
                    tracing::warn!(name = host, why, hint, "a name was not looked up");
                }
                name.failure = Some(why);
            }
        }
    }
}

/// Asks the system's resolver.
fn system(host: &str) -> Result<Vec<SocketAddr>, Failure> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(host), None, Some(hints)).map_err(|error| {
        let is_gone = matches!(error.kind(), LookupErrorKind::NoName | LookupErrorKind::NoData);
        Failure { is_gone, why: io::Error::from(error).to_string() }
    })?;
    let found: Vec<_> = found.flatten().map(|found| found.sockaddr).collect();
    match found.is_empty() {
        true => Err(Failure { is_gone: true, why: "it has no address".to_owned() }),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HOST: &str = "hook.example";

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 0))
    }

    fn silent() -> Failure {
        Failure { is_gone: false, why: "try again".to_owned() }
    }

    /// A table that has found an address at 0 s.
    fn found() -> Table {
        let mut table = Table::default();
        assert_eq!(table.advise(Span::ZERO, HOST), Advice::Wait(LONGEST_USE));
        assert_eq!(table.queue.pop_front().as_deref(), Some(HOST));
        table.answer(Span::ZERO, HOST, Ok(vec![address(1)]));
        table
    }

    #[test]
    fn a_name_is_asked_for_once_in_a_while_and_a_change_is_followed() {
        let mut table = found();
        let known = Advice::Use(vec![address(1)]);
        for millis in 0..15_000 {
            assert_eq!(table.advise(Span::from_millis(millis), HOST), known);
        }
        assert!(table.queue.is_empty(), "no request has asked");
        for millis in 15_000..30_000 {
            assert_eq!(table.advise(Span::from_millis(millis), HOST), known, "nobody waits");
        }
        assert_eq!(table.queue.len(), 1);
        table.answer(KEPT, HOST, Ok(vec![address(2)]));
        assert_eq!(table.advise(KEPT, HOST), Advice::Use(vec![address(2)]));

        // After a pause the first request waits for the new answer, and not for long.
        let later = KEPT.times(10);
        assert_eq!(table.advise(later, HOST), Advice::Wait(PATIENCE));
        assert_eq!(table.advise(later + PATIENCE, HOST), Advice::Use(vec![address(2)]));
    }

    #[test]
    fn a_silent_name_server_costs_nobody_time_and_one_that_says_no_is_believed() {
        let mut table = found();
        let known = Advice::Use(vec![address(1)]);
        let mut now = KEPT;
        table.advise(now, HOST);
        for _ in 0..100 {
            now = now + Span::from_secs(20);
            table.queue.clear();
            table.answer(now, HOST, Err(silent()));
            assert_eq!(table.advise(now, HOST), known, "the last good one");
            assert!(table.queue.is_empty(), "it has just failed");
            now = now + FAILED_KEPT;
            assert_eq!(table.advise(now, HOST), known, "nobody waits for the next lookup");
            assert_eq!(table.queue.len(), 1);
        }
        table.advise(LONGEST_USE, HOST);
        table.answer(LONGEST_USE, HOST, Err(silent()));
        assert_eq!(table.advise(LONGEST_USE, HOST), Advice::Fail("try again".to_owned()));

        let mut table = found();
        let why = "no such name".to_owned();
        table.answer(KEPT, HOST, Err(Failure { is_gone: true, why: why.clone() }));
        assert_eq!(table.advise(KEPT, HOST), Advice::Fail(why));
        assert_eq!(table.advise(KEPT + FAILED_KEPT, HOST), Advice::Wait(LONGEST_USE));
    }

    #[test]
    fn what_is_looked_up_is_bounded_and_each_name_waits_once() {
        let mut table = Table::default();
        for number in 0..NAMES {
            for _ in 0..3 {
                table.advise(Span::ZERO, &format!("name-{number}"));
            }
        }
        assert_eq!((table.names.len(), table.queue.len()), (NAMES, NAMES));
        assert!(matches!(table.advise(Span::ZERO, HOST), Advice::Fail(_)), "no room");
        assert_eq!((table.names.len(), table.queue.len()), (NAMES, NAMES));
    }

    #[test]
    fn a_resolver_that_never_answers_holds_no_other_name_and_no_request_for_long() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let names = Names::new(Clock::start(), |host| {
            LOOKUPS.fetch_add(1, Ordering::Relaxed);
            if host == "silent.example" {
                loop {
                    std::thread::park();
                }
            }
            Ok(vec![address(1)])
        });
        let some = Duration::from_millis(20);
        assert!(names.find(HOST, some).is_err(), "nothing was started");
        names.start(std::iter::empty()).unwrap();
        names.start(["silent.example"].into_iter()).unwrap();
        for _ in 0..50 {
            let error = names.find("silent.example", Duration::from_millis(1)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        let long = Duration::from_secs(60);
        assert_eq!(names.find(HOST, long).unwrap(), [address(1)]);
        assert_eq!(names.0.lock().threads, THREADS);
        assert_eq!(LOOKUPS.load(Ordering::Relaxed), 2, "one for each name");
    }

    #[test]
    fn a_name_whose_old_answer_is_used_is_looked_up_meanwhile() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let names = Names::new(Clock::start(), |_| {
            let lookups = LOOKUPS.fetch_add(1, Ordering::Relaxed);
            Ok(vec![address(lookups as u8)])
        });
        names.start([HOST].into_iter()).unwrap();
        let long = Duration::from_secs(60);
        assert_eq!(names.find(HOST, long).unwrap(), [address(0)]);
        // A thread that has just started looks for names unasked, once.
        for round in 0..2 * THREADS as u8 {
            {
                // As if a lookup had failed, longer ago than that is an answer.
                let mut table = names.0.lock();
                let name = table.names.get_mut(HOST).unwrap();
                (name.failure, name.checked_at) = (Some("try again".to_owned()), None);
            }
            assert_eq!(names.find(HOST, long).unwrap(), [address(round)], "nobody waits");
            let clock = Clock::start();
            while names.0.lock().names[HOST].addresses != [address(round + 1)] {
                assert!(clock.monotonic() < Span::from(long), "it is not looked up");
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn the_system_knows_this_host() {
        let found = system("localhost").unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}
