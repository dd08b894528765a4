//! What is wanted of all links, done a bounded number at a time.

use alloc::vec::Vec;

use super::{Hub, HubCommand};
use crate::link::{self, Goodbye};
use crate::policy::Policy;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// How many links one step of a sweep touches: each may send a frame, which costs the shell a
/// system call, and between two steps the loop looks at its sockets.
pub(super) const SWEEP_STEP: usize = 256;

/// One pass over all links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sweep {
    task: Task,
    /// The first link not yet visited.
    next: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    Retune { listener: u16, policy: Policy },
    Drain { reconnect_within: Span },
}

impl Task {
    /// Whether this task makes `other` pointless.
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
            HubCommand::Drain { reconnect_within } => self.begin(Task::Drain { reconnect_within }),
            HubCommand::ReportHeartbeats(report) => {
                for settings in &mut self.listeners {
                    settings.report_heartbeats = report;
                }
            }
        }
    }

    /// At most one retune per listener and one drain are under way: a newer one replaces an older.
    fn begin(&mut self, task: Task) {
        self.sweeps.retain(|sweep| !task.supersedes(&sweep.task));
        self.sweeps.push(Sweep { task, next: 0 });
    }

    /// One step of the oldest sweep.
    pub(super) fn sweep(&mut self, now: Time) {
        let Some(&Sweep { task, next }) = self.sweeps.first() else {
            return;
        };
        let occupied = |(link, slot): (u32, &Option<super::Slot>)| {
            let listener = slot.as_ref()?.listener;
            Some((link, listener))
        };
        let visited: Vec<(u32, u16)> =
            self.slots.iter_from(next).filter_map(occupied).take(SWEEP_STEP).collect();
        for &(link, of) in &visited {
            let command = match task {
                Task::Retune { listener, .. } if listener != of => continue,
                Task::Retune { policy, .. } => link::Command::Retune(policy),
                Task::Drain { reconnect_within } => link::Command::Close(Goodbye {
                    reason: CloseReason::Drained,
                    stay_away: false,
                    return_after: self.random.up_to(reconnect_within),
                }),
            };
            self.input(now, link, link::Input::Command(command));
        }
        match visited.last() {
            Some(&(link, _)) if visited.len() == SWEEP_STEP => {
                if let Some(sweep) = self.sweeps.first_mut() {
                    sweep.next = link + 1;
                }
            }
            Some(_) | None => {
                self.sweeps.remove(0);
            }
        }
    }
}
