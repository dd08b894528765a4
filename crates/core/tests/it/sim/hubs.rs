//! The hubs of the simulated gateway: two with the same listeners, between which links move. Their
//! clocks do not compare. From time to time a hub is saved and goes on as a new machine.

use systole_core::driver::Driver;
use systole_core::home::Homes;
use systole_core::hub::{self, Counters, Hub, HubCommand, Output, Presence};
use systole_core::link::{self, Settings};
use systole_core::session::Event;
use systole_core::tap::record::{Recorder, ReplaySummary, replay};
use systole_core::{Span, Time};

/// The number of hubs.
pub(super) const HUBS: usize = 2;

/// The hubs of one gateway.
pub(super) struct Hubs {
    drivers: [Driver<Hub, Recorder<Hub>>; HUBS],
    settings: [hub::Settings; HUBS],
    /// How much later each hub's clock shows than the gateway's.
    ahead: [Span; HUBS],
    pub(super) reloads: u64,
    pub(super) moves: u64,
}

impl Hubs {
    pub(super) fn new(listeners: &[Settings], seed: u64, frame_memory: usize) -> Hubs {
        let settings = [0, 1].map(|shard| hub::Settings {
            shard,
            homes: Homes { shards: HUBS as u16, key: seed },
            listeners: listeners.to_vec(),
            seed: seed ^ u64::from(shard),
            frame_memory,
            window_memory: hub::WINDOW_MEMORY,
            away: hub::AWAY_SESSIONS,
        });
        let drivers = settings.each_ref().map(|settings| {
            let recorder = Recorder::new(Time::ZERO, settings);
            Driver::tapped(Time::ZERO, Hub::new(settings.clone()), recorder)
        });
        // An hour: more than the age of most links.
        let ahead = [Span::ZERO, Span::from_secs(3_600)];
        Hubs { drivers, settings, ahead, reloads: 0, moves: 0 }
    }

    /// Returns the settings of each listener.
    pub(super) fn listeners(&self) -> &[Settings] {
        self.drivers[0].machine().listeners()
    }

    /// Feeds an input to one hub.
    pub(super) fn handle<'a>(&mut self, now: Time, home: usize, input: impl Into<hub::Input<'a>>) {
        self.drivers[home].handle(now + self.ahead[home], input);
    }

    /// Gives a command to all hubs.
    pub(super) fn command(&mut self, now: Time, command: HubCommand<'_>) {
        for (driver, ahead) in self.drivers.iter_mut().zip(self.ahead) {
            driver.handle(now + ahead, hub::World::Command(command));
        }
    }

    /// Performs one step of the work for all links. Returns whether there was any.
    pub(super) fn sweep(&mut self, now: Time) -> bool {
        let hubs = self.drivers.iter_mut().zip(self.ahead);
        hubs.map(|(driver, ahead)| driver.sweep(now + ahead)).fold(false, |any, it| any | it)
    }

    pub(super) fn expire(&mut self, now: Time, horizon: Time) {
        for (driver, ahead) in self.drivers.iter_mut().zip(self.ahead) {
            driver.expire(now + ahead, horizon + ahead);
        }
    }

    pub(super) fn poll_read(&mut self) -> Option<u32> {
        self.drivers.iter_mut().find_map(Driver::poll_read)
    }

    pub(super) fn judge(&mut self, now: Time, home: usize, link: u32) {
        self.drivers[home].judge(now + self.ahead[home], link);
    }

    /// Returns the next output of one hub, with the times of the gateway's clock.
    pub(super) fn poll_output(&mut self, home: usize) -> Option<Output<'_>> {
        self.drivers[home].poll_output().map(|output| back(output, self.ahead[home]))
    }

    /// Returns whether no output waits.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.drivers.iter_mut().all(|driver| driver.poll_output().is_none())
    }

    /// Saves each hub and goes on with new ones of the same settings. The replay of the record, by
    /// a hub that is never saved, shows whether that made a difference.
    pub(super) fn reload(&mut self, now: Time) {
        for ((driver, settings), ahead) in
            self.drivers.iter_mut().zip(&self.settings).zip(self.ahead)
        {
            let fresh = Hub::new(settings.clone());
            driver.reload(now + ahead, fresh).expect("the state is whole");
        }
        self.reloads += 1;
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let deadlines = self.drivers.iter().zip(self.ahead);
        deadlines.filter_map(|(driver, ahead)| Some(driver.next_deadline()? - ahead)).min()
    }

    /// Returns the presence of a link, and how much later its times are than the gateway's.
    pub(super) fn presence(&self, home: usize, link: u32) -> Option<(Presence<'_>, Span)> {
        Some((self.drivers[home].machine().presence(link)?, self.ahead[home]))
    }

    /// Returns the number of established links.
    pub(super) fn online(&self) -> u32 {
        let online = |driver: &Driver<Hub, _>| driver.machine().presences(0, usize::MAX).count();
        self.drivers.iter().map(online).sum::<usize>() as u32
    }

    /// Returns the counters of each hub.
    pub(super) fn counters(&self) -> [Counters; HUBS] {
        self.drivers.each_ref().map(|driver| driver.machine().counters())
    }

    /// Replays both records, each on a new hub, and returns the sums.
    pub(super) fn replay(self) -> ReplaySummary {
        let summaries = self.drivers.map(|driver| {
            let record = driver.into_tap().into_record();
            match replay::<Hub>(&record) {
                Ok(summary) => summary,
                Err(error) => panic!("the replay of the record: {error}"),
            }
        });
        let [first, second] = summaries;
        ReplaySummary {
            inputs: first.inputs + second.inputs,
            outputs: first.outputs + second.outputs,
            unrecorded: first.unrecorded + second.unrecorded,
            ..first
        }
    }
}

/// Returns an output with its times moved back by `ahead`.
fn back(output: Output<'_>, ahead: Span) -> Output<'_> {
    let Output::Link { link, output: link::Output::Session(mut event) } = output else {
        return output;
    };
    if let Event::Left(verdict) = &mut event {
        for time in [&mut verdict.at, &mut verdict.due, &mut verdict.last_heard] {
            *time = *time - ahead;
        }
    }
    if let Event::Overdue { due: time } | Event::Hung { until: time, .. } = &mut event {
        *time = *time - ahead;
    }
    Output::Link { link, output: link::Output::Session(event) }
}
