//! The loop of a shard: poll, read the clock, feed, expire, flush. What the shard carries, the
//! streams of links or the datagrams of devices, is a type parameter.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use mio::{Events, Poll, Token};
use systole_core::Time;
use systole_core::driver::{Driver, Timed};
use systole_core::gather::{Gather, Turn, Wait};
use systole_core::hub::{Absence, HubCommand};
use systole_core::kernel::TcpSnapshot;
use systole_net::Clock;

use super::answer::Known;
use crate::identity;
use crate::loop_clock::LoopClock;
use crate::report::ReportChannels;
use crate::report_sender::ReportSender;
use crate::request::{Arrivals, Delivered, Order, Parcel, RequestQueue, Target};
use crate::stats::{Distributions, ShardStats};
use crate::wake::WakeUps;

/// The token of the wake-ups for requests.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// What a shard carries: the part of its loop that differs. All functions get the whole loop.
pub(crate) trait Traffic: Sized {
    /// The machine that decides.
    type Hub: Timed;

    /// Socket events per turn.
    const EVENTS: usize;

    /// Maximum number of deadline steps per turn, each bounded by the driver, before the next poll.
    const EXPIRIES_PER_TURN: usize;

    /// Reads what has come and feeds it to the hub. Returns how many sockets or datagrams were
    /// read.
    ///
    /// # Errors
    /// The shard cannot read any more, and ends.
    fn receive(shard: &mut ShardLoop<Self>, events: &Events) -> io::Result<usize>;

    /// Carries out the outputs of the hub.
    fn carry_out(shard: &mut ShardLoop<Self>);

    /// Returns the time up to which deadlines are handled now, and the horizon; `None` if none are.
    fn limits(shard: &mut ShardLoop<Self>) -> Option<(Time, Time)>;

    /// Reads the socket of one part, and judges the part if the socket was read until it was empty.
    fn poll_and_judge(shard: &mut ShardLoop<Self>, number: u32, limit: Time);

    /// Ends a turn: sends what waits, closes what has ended.
    fn end_turn(shard: &mut ShardLoop<Self>);

    /// Returns what is left to do, from which the next wait follows.
    fn left_over(shard: &mut ShardLoop<Self>, now: Time) -> LeftOver;

    /// Publishes the counters that differ.
    fn publish_stats(shard: &mut ShardLoop<Self>);

    /// Ends all sessions, so that each end is a fact.
    fn end_sessions(shard: &mut ShardLoop<Self>);

    /// Whether this shard carries sessions of this listener.
    fn has_listener(shard: &ShardLoop<Self>, listener: u16) -> bool;

    /// Shows the session with this number to `visit`, if it is online here.
    fn find(shard: &ShardLoop<Self>, session: u64, visit: &mut dyn FnMut(&dyn Known));

    /// Returns the kernel's view of this session's connection, if it has one.
    fn tcp(_: &ShardLoop<Self>, _session: u64) -> Option<TcpSnapshot> {
        None
    }

    /// Searches at most `limit` places from `from` upwards for sessions that are online, and shows
    /// them to `visit` until it returns false. Returns where the next search continues.
    fn search(
        shard: &ShardLoop<Self>,
        from: u32,
        limit: usize,
        visit: &mut dyn FnMut(&dyn Known) -> bool,
    ) -> Option<u32>;

    /// Shows the session with this number to `visit`, if it is away here.
    fn find_away(_: &ShardLoop<Self>, _session: u64, _visit: &mut dyn FnMut(&Absence<'_>)) {}

    /// Shows at most `limit` sessions that are away, from the place `from` upwards, to `visit`.
    /// Returns where the next search continues.
    fn search_away(
        _: &ShardLoop<Self>,
        _from: u32,
        _limit: usize,
        _visit: &mut dyn FnMut(&Absence<'_>),
    ) -> Option<u32> {
        None
    }

    /// Shows the sessions of an identity that are away to `visit`.
    fn away_of_identity(_: &ShardLoop<Self>, _: &str, _visit: &mut dyn FnMut(&Absence<'_>)) {}

    /// Moves a session to another shard. Returns whether it was moved.
    fn hand_over(shard: &mut ShardLoop<Self>, session: u64, to: &Arrivals) -> bool;

    /// Takes over a session that another shard has sent.
    fn arrive(shard: &mut ShardLoop<Self>, parcel: Parcel);

    /// Takes the answer to a login whose token was given away.
    fn logged_in(_: &mut ShardLoop<Self>, _: identity::Answer) {}

    /// Sends a message from outside to a session, the sessions of an identity, or some of all.
    fn deliver(shard: &mut ShardLoop<Self>, to: Target, message: &[u8]) -> Delivered;

    /// Shows the sessions of an identity to `visit`.
    fn of_identity(shard: &ShardLoop<Self>, identity: &str, visit: &mut dyn FnMut(&dyn Known));

    /// Gives an order to one session. Returns whether the session is online here.
    fn order(shard: &mut ShardLoop<Self>, session: u64, order: Order) -> bool;

    /// Gives a command to all sessions.
    fn command(shard: &mut ShardLoop<Self>, command: HubCommand<'static>);

    /// Takes no new sessions, except those of peers that are in the queues of the listeners.
    fn stop_accepting(shard: &mut ShardLoop<Self>);
}

/// What is left to do after a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LeftOver {
    /// The heartbeats sent in this turn.
    pub(crate) sent: u64,
    /// Whether data was received or sent in this turn.
    pub(crate) data: bool,
    /// Whether the next turn has work already.
    pub(crate) busy: bool,
    /// Whether a session allows only short rests.
    pub(crate) demanding: bool,
    /// The next deadline that is not the hub's.
    pub(crate) deadline: Option<Time>,
}

/// What the control plane and a loop share.
#[derive(Debug)]
pub(crate) struct LoopSetup {
    pub(crate) poll: Poll,
    pub(crate) wake_ups: WakeUps,
    pub(crate) requests: RequestQueue,
    pub(crate) reports: ReportChannels,
    pub(crate) clock: Clock,
    pub(crate) stats: Arc<ShardStats>,
    pub(crate) distributions: Distributions,
}

/// One shard's loop and all it owns.
#[derive(Debug)]
pub(crate) struct ShardLoop<T: Traffic> {
    pub(crate) poll: Poll,
    pub(crate) wake_ups: WakeUps,
    pub(crate) hub: Driver<T::Hub>,
    pub(crate) clock: LoopClock,
    gather: Gather,
    requests: RequestQueue,
    pub(crate) reports: ReportSender,
    pub(crate) stats: Arc<ShardStats>,
    pub(crate) distributions: Distributions,
    pub(crate) stopping: bool,
    pub(crate) traffic: T,
}

impl<T: Traffic> ShardLoop<T> {
    pub(crate) fn new(setup: LoopSetup, hub: T::Hub, gather: Gather, traffic: T) -> ShardLoop<T> {
        let LoopSetup { poll, wake_ups, requests, reports, clock, stats, distributions } = setup;
        ShardLoop {
            poll,
            wake_ups,
            hub: Driver::new(Time::ZERO, hub),
            clock: LoopClock::new(clock, Arc::clone(&stats), distributions.clone()),
            gather,
            requests,
            reports: ReportSender::new(reports, Arc::clone(&stats)),
            stats,
            distributions,
            stopping: false,
            traffic,
        }
    }

    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(T::EVENTS);
        let mut wait = Wait::default();
        while !self.stopping {
            match self.turn(&mut events, wait) {
                Ok(next) => wait = next,
                Err(error) => {
                    tracing::error!(%error, "the shard cannot use its sockets, and ends");
                    break;
                }
            }
        }
        T::end_sessions(&mut self);
        // The other shards end later, and may hand over sessions until then.
        while let Some(first) = self.requests.last_arrival() {
            T::arrive(&mut self, first);
            while let Some(parcel) = self.requests.last_arrival() {
                T::arrive(&mut self, parcel);
            }
            T::end_sessions(&mut self);
        }
        self.publish_stats();
        self.reports.flush_blocking();
    }

    /// Runs one turn, and returns how long to wait before the next.
    fn turn(&mut self, events: &mut Events, wait: Wait) -> io::Result<Wait> {
        if let Err(error) = self.wake_ups.wait(&mut self.poll, events, wait)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        self.clock.begin_turn(wait.total());
        if events.iter().any(|event| event.token() == WAKER) {
            // A request that comes from now on wakes the loop again.
            self.wake_ups.take();
        }
        // Requests first, so that bytes that came after a request are handled under it.
        self.take_requests();
        let read = T::receive(self, events)?;
        self.expire();
        self.reports.flush();
        T::end_turn(self);
        self.publish_stats();
        Ok(self.next_wait(read))
    }

    fn take_requests(&mut self) {
        self.requests.begin_turn();
        self.take_arrivals();
        while let Some(request) = self.requests.next() {
            // A request about a link that has just come finds it.
            self.take_arrivals();
            self.answer(request);
        }
    }

    fn take_arrivals(&mut self) {
        while let Some(parcel) = self.requests.next_arrival() {
            T::arrive(self, parcel);
        }
    }

    /// Expires deadlines. A part that is due later than the horizon, the time up to which every
    /// socket has been read, is judged after its own socket was read.
    pub(crate) fn expire(&mut self) {
        let Some((limit, horizon)) = T::limits(self) else {
            return;
        };
        for _ in 0..T::EXPIRIES_PER_TURN {
            if self.hub.next_deadline().is_none_or(|at| at > limit) {
                return;
            }
            self.hub.expire(limit, horizon);
            T::carry_out(self);
            self.clock.record_work();
            while let Some(number) = self.hub.poll_read() {
                T::poll_and_judge(self, number, limit);
            }
        }
    }

    /// Returns how long to wait after this turn, in which `read` sockets or datagrams were read.
    pub(crate) fn next_wait(&mut self, read: usize) -> Wait {
        let (began, now) = (self.clock.now(), self.clock.read_now());
        let LeftOver { sent, data, busy, demanding, deadline } = T::left_over(self, now);
        let deadlines = [self.hub.next_deadline(), self.reports.retry_at(now), deadline];
        self.gather.wait(&Turn {
            began,
            now,
            read,
            sent,
            data,
            busy: busy || self.requests.may_hold_more(),
            demanding,
            deadline: deadlines.into_iter().flatten().min(),
        })
    }

    pub(crate) fn publish_stats(&mut self) {
        T::publish_stats(self);
        self.stats.facts_waiting.set(self.reports.waiting() as u64);
        self.stats.turns.add(1);
    }
}
