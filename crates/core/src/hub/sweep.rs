//! Commands for all links, applied to a bounded number of links per step.

use alloc::vec::Vec;

use super::{Hub, HubCommand};
use crate::link::{self, Goodbye};
use crate::policy::Policy;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// The number of links that one step of a sweep handles. Each may send a frame, which costs the
/// shell a system call, and the loop polls its sockets only between steps.
pub(super) const SWEEP_STEP: usize = 256;

/// The number of slots that one step of a sweep visits, empty ones included: at most 0.1 ms, since
/// each visit may cost a cache miss.
pub(super) const SWEEP_SLOTS: usize = 4_096;

/// A pass over all links that is in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sweep {
    task: Task,
    /// The first slot not yet visited.
    pub(super) next: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    Retune { listener: u16, policy: Policy },
    Drain { reconnect_within: Span },
}

impl Task {
    /// Returns whether this task makes `other` unnecessary.
    fn supersedes(&self, other: &Task) -> bool {
        match (self, other) {
            (Task::Retune { listener, .. }, Task::Retune { listener: other, .. }) => {
                listener == other
            }
            (Task::Drain { .. }, Task::Retune { .. } | Task::Drain { .. }) => true,
            (Task::Retune { .. }, Task::Drain { .. }) => false,
        }
    }
}

impl Hub {
    pub(super) fn command(&mut self, command: HubCommand) {
        match command {
            HubCommand::Retune { listener, policy } => {
                let Some(settings) = self.listeners.get_mut(usize::from(listener)) else {
                    return;
                };
                settings.policy = policy;
                self.begin(Task::Retune { listener, policy });
            }
            HubCommand::Drain { limit, reconnect_within } => {
                self.leave_limit = limit;
                self.begin(Task::Drain { reconnect_within });
            }
            HubCommand::ReportHeartbeats(report) => {
                for settings in &mut self.listeners {
                    settings.report_heartbeats = report;
                }
            }
        }
    }

    /// Starts a sweep. It replaces an older retune of the same listener or an older drain, so that
    /// the number of sweeps stays bounded.
    fn begin(&mut self, task: Task) {
        self.sweeps.retain(|sweep| !task.supersedes(&sweep.task));
        self.sweeps.push(Sweep { task, next: 0 });
    }

    /// Performs one step of the oldest sweep.
    pub(super) fn sweep(&mut self, now: Time) {
        let Some(&Sweep { task, next }) = self.sweeps.first() else {
            return;
        };
        let mut scan = self.slots.scan(next, SWEEP_SLOTS);
        let found: Vec<(u32, u16)> =
            scan.by_ref().take(SWEEP_STEP).map(|(link, slot)| (link, slot.listener)).collect();
        let cursor = scan.cursor();
        for (link, its_listener) in found {
            let command = match task {
                Task::Retune { listener, .. } if listener != its_listener => continue,
                Task::Retune { policy, .. } => link::Command::Retune(policy),
                Task::Drain { reconnect_within } => link::Command::Close(Goodbye {
                    reason: CloseReason::Drained,
                    stay_away: false,
                    return_after: self.random.up_to(reconnect_within),
                }),
            };
            self.handle_link(now, link, link::Input::Command(command));
        }
        match (cursor, self.sweeps.first_mut()) {
            (Some(cursor), Some(sweep)) => sweep.next = cursor,
            (None, Some(_)) => drop(self.sweeps.remove(0)),
            (_, None) => {}
        }
    }
}
