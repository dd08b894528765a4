//! Commands for all links, applied to a bounded number of links per step.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Hub, HubCommand, Slot};
use crate::link::{self, Goodbye};
use crate::policy::Policy;
use crate::time::{Span, Time};
use crate::wire::{CloseReason, DataKind};

/// The number of messages for many links that may be under way. Each takes a pass over all links,
/// for which later commands wait. If more gather, the passes are too slow for them.
pub const MAX_MESSAGES: usize = 16;

/// The memory of all messages for many links together, in bytes. A longer message is refused. The
/// link of a slow reader could not take more at once: its outbox holds 256 KiB by default.
pub const MESSAGE_MEMORY: usize = 1 << 20;

/// The number of links that one step of a sweep handles. Each may send a frame, which costs the
/// shell a system call, and the loop polls its sockets only between steps.
pub(super) const SWEEP_STEP: usize = 256;

/// The number of slots that one step of a sweep visits, empty ones included: at most 0.1 ms, since
/// each visit may cost a cache miss.
pub(super) const SWEEP_SLOTS: usize = 4_096;

/// The bytes of messages that one step of a sweep sends, unless one message is longer. They wait in
/// one buffer until the shell has polled them.
pub(super) const SWEEP_BYTES: usize = 256 * 1024;

/// A pass over all links that is in progress.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    pub(super) task: Task,
    /// The first slot not yet visited.
    pub(super) next: u32,
    /// The number of its command.
    pub(super) number: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Task {
    Retune { listener: u16, policy: Policy },
    Send { listener: Option<u16>, message: Box<[u8]>, kind: DataKind },
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
            (Task::Retune { .. }, Task::Drain { .. })
            | (Task::Send { .. }, Task::Retune { .. } | Task::Send { .. } | Task::Drain { .. })
            | (Task::Retune { .. } | Task::Drain { .. }, Task::Send { .. }) => false,
        }
    }

    /// Returns whether this task is for the link in `slot`. A link before the end of its handshake
    /// drops a message itself.
    fn concerns(&self, slot: &Slot) -> bool {
        match self {
            Task::Retune { listener, .. } => *listener == slot.listener,
            Task::Send { listener, .. } => listener.is_none_or(|wanted| wanted == slot.listener),
            Task::Drain { .. } => true,
        }
    }

    /// Returns the message that this task sends; empty if it sends none.
    fn message(&self) -> &[u8] {
        match self {
            Task::Send { message, .. } => message,
            Task::Retune { .. } | Task::Drain { .. } => &[],
        }
    }
}

impl Hub {
    pub(super) fn command(&mut self, command: HubCommand<'_>) {
        self.commands += 1;
        match command {
            HubCommand::Retune { listener, policy } => {
                let index = usize::from(listener);
                let settings = self.listeners.get_mut(index).zip(self.retuned.get_mut(index));
                let Some((settings, retuned)) = settings else {
                    return;
                };
                (settings.policy, *retuned) = (policy, self.commands);
                self.begin(Task::Retune { listener, policy });
            }
            HubCommand::Send { listener, bytes, kind } => {
                if self.has_room_for(bytes) {
                    self.begin(Task::Send { listener, message: bytes.into(), kind });
                } else {
                    self.counters.messages_refused += 1;
                }
            }
            HubCommand::Drain { limit, reconnect_within } => {
                self.leave_limit = limit;
                self.draining = Some(reconnect_within);
                self.begin(Task::Drain { reconnect_within });
            }
            HubCommand::ReportHeartbeats(report) => {
                for settings in &mut self.listeners {
                    settings.report_heartbeats = report;
                }
            }
        }
    }

    /// Returns whether one more message for many links may be under way.
    fn has_room_for(&self, message: &[u8]) -> bool {
        let sends = self.sweeps.iter().filter(|sweep| matches!(sweep.task, Task::Send { .. }));
        let held: usize = self.sweeps.iter().map(|sweep| sweep.task.message().len()).sum();
        sends.count() < MAX_MESSAGES && message.len() <= MESSAGE_MEMORY - held
    }

    /// Starts a sweep. It replaces an older retune of the same listener or an older drain, and
    /// messages are limited, so that the number of sweeps stays bounded.
    fn begin(&mut self, task: Task) {
        self.sweeps.retain(|sweep| !task.supersedes(&sweep.task));
        self.sweeps.push_back(Sweep { task, next: 0, number: self.commands });
    }

    /// Closes a link that is drained.
    pub(super) fn drain(&mut self, now: Time, link: u32, reconnect_within: Span) {
        let goodbye = Goodbye {
            reason: CloseReason::Drained,
            stay_away: false,
            return_after: self.random.up_to(reconnect_within),
        };
        let command = link::Command::close(goodbye);
        self.handle_link(now, link, link::World::Command(command));
    }

    /// Performs one step of the oldest sweep.
    pub(super) fn sweep(&mut self, now: Time) {
        let Some(mut sweep) = self.sweeps.pop_front() else {
            return;
        };
        let task = &sweep.task;
        let most = (SWEEP_BYTES / task.message().len().max(1)).clamp(1, SWEEP_STEP);
        let mut scan = self.slots.scan(sweep.next, SWEEP_SLOTS);
        let concerned = scan.by_ref().filter(|(_, slot)| task.concerns(slot));
        let found: Vec<u32> = concerned.map(|(link, _)| link).take(most).collect();
        let cursor = scan.cursor();
        let number = sweep.number;
        for link in found {
            // A link that has come from another hub may have had it there; a drain would have ended
            // it, even if that hub has counted a command that this one never received.
            if self.reached(link) < number || matches!(task, Task::Drain { .. }) {
                self.apply(now, link, task);
            }
        }
        if let Some(cursor) = cursor {
            sweep.next = cursor;
            self.sweeps.push_front(sweep);
        } else if matches!(sweep.task, Task::Drain { .. }) && self.drain_away(now) {
            sweep.next = u32::MAX;
            self.sweeps.push_front(sweep);
        }
    }

    /// Performs a task for one link.
    pub(super) fn apply(&mut self, now: Time, link: u32, task: &Task) {
        if !self.slots.get(link).is_some_and(|slot| task.concerns(slot)) {
            return;
        }
        let command = match task {
            Task::Retune { policy, .. } => link::Command::Retune(*policy),
            Task::Send { .. } if self.is_within_message(link) => {
                self.counters.messages_missed += 1;
                return;
            }
            Task::Send { message, kind, .. } => {
                link::Command::Send { bytes: message, more: false, kind: *kind }
            }
            Task::Drain { reconnect_within } => return self.drain(now, link, *reconnect_within),
        };
        self.handle_link(now, link, link::World::Command(command));
    }

    /// Returns the number of the last command for all links that a link received before it moved
    /// here; 0 for a link that was opened here.
    pub(super) fn reached(&self, link: u32) -> u64 {
        if self.ahead.is_empty() {
            return 0;
        }
        self.ahead.get(&link).copied().unwrap_or(0)
    }

    fn is_within_message(&self, link: u32) -> bool {
        self.slots.get(link).is_some_and(|slot| slot.peer.is_within_message())
    }
}
