//! The queue of tokens for webhooks, of which no address can take everything.
//!
//! A service may need seconds for an answer. So one address must keep neither all threads that ask
//! nor all places of the queue: of both it may have as many as are left free by all together. One
//! alone gets half, two get a third each, and an address that has none finds something free.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use systole_core::origin::Origin;

/// A queue with shares. `T` waits, and is then under way until its [`Turn`] ends.
struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// The origins of what waits or is under way: never more than places and threads.
    origins: BTreeMap<Origin, Share<T>>,
    free_places: usize,
    free_threads: usize,
    next_serial: u64,
    waiting: usize,
    is_closed: bool,
}

/// What one origin has in the queue and under way.
struct Share<T> {
    /// In the order of their serial numbers.
    waiting: VecDeque<(u64, T)>,
    under_way: usize,
}

/// The end at which tokens are queued. The queue is closed when its last clone is dropped.
pub(super) struct Entrance<T>(Arc<Closing<T>>);

/// Closes the queue when it is dropped.
struct Closing<T>(Arc<Queue<T>>);

/// The end at which tokens are taken.
pub(super) struct Exit<T>(Arc<Queue<T>>);

/// The place of a token that was queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    origin: Origin,
    serial: u64,
}

/// A token under way. Its origin has the thread back when this is dropped.
pub(super) struct Turn<T> {
    queue: Arc<Queue<T>>,
    origin: Origin,
}

/// Makes a queue with so many places, whose tokens are under way on so many threads.
pub(super) fn queue<T>(places: usize, threads: usize) -> (Entrance<T>, Exit<T>) {
    let state = State {
        origins: BTreeMap::new(),
        free_places: places,
        free_threads: threads,
        next_serial: 0,
        waiting: 0,
        is_closed: false,
    };
    let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
    (Entrance(Arc::new(Closing(queue.clone()))), Exit(queue))
}

impl<T> Entrance<T> {
    /// Queues something from an address. Returns `None` if its share or the queue is full.
    pub(super) fn push(&self, from: IpAddr, item: T) -> Option<Ticket> {
        let Closing(queue) = &*self.0;
        let ticket = queue.lock().push(from.into(), item)?;
        queue.changed.notify_one();
        Some(ticket)
    }

    /// Takes something out of the queue. Returns `None` if it does not wait any more.
    pub(super) fn withdraw(&self, ticket: Ticket) -> Option<T> {
        let Closing(queue) = &*self.0;
        queue.lock().withdraw(ticket)
    }
}

impl<T> Exit<T> {
    /// Waits for the next one. Returns `None` if the queue is closed and empty.
    pub(super) fn take(&self) -> Option<(T, Turn<T>)> {
        let mut state = self.0.lock();
        loop {
            if let Some((origin, item)) = state.take() {
                return Some((item, Turn { queue: self.0.clone(), origin }));
            }
            if state.is_closed && state.waiting == 0 {
                return None;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the next one if there is one that may be under way now.
    #[cfg(test)]
    pub(super) fn try_take(&self) -> Option<(T, Turn<T>)> {
        let (origin, item) = self.0.lock().take()?;
        Some((item, Turn { queue: self.0.clone(), origin }))
    }
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn push(&mut self, origin: Origin, item: T) -> Option<Ticket> {
        let waiting = self.origins.get(&origin).map_or(0, |share| share.waiting.len());
        if waiting >= self.free_places {
            return None;
        }
        let empty = || Share { waiting: VecDeque::new(), under_way: 0 };
        let share = self.origins.entry(origin).or_insert_with(empty);
        let serial = self.next_serial;
        share.waiting.push_back((serial, item));
        self.next_serial += 1;
        self.free_places -= 1;
        self.waiting += 1;
        Some(Ticket { origin, serial })
    }

    fn withdraw(&mut self, Ticket { origin, serial }: Ticket) -> Option<T> {
        let share = self.origins.get_mut(&origin)?;
        let place = share.waiting.binary_search_by_key(&serial, |(serial, _)| *serial).ok()?;
        let (_, item) = share.waiting.remove(place)?;
        self.free_places += 1;
        self.waiting -= 1;
        self.forget_if_empty(origin);
        Some(item)
    }

    /// Takes the oldest one of the origin with the fewest under way. It looks at all origins: some
    /// microseconds at most, for what then takes milliseconds.
    fn take(&mut self) -> Option<(Origin, T)> {
        let free = self.free_threads;
        let may_start = self.origins.iter_mut().filter(|(_, share)| share.under_way < free);
        let first = may_start.filter_map(|(origin, share)| {
            let (serial, _) = share.waiting.front()?;
            Some(((share.under_way, *serial), *origin, share))
        });
        let (_, origin, share) = first.min_by_key(|(rank, ..)| *rank)?;
        let (_, item) = share.waiting.pop_front()?;
        share.under_way += 1;
        self.free_threads -= 1;
        self.free_places += 1;
        self.waiting -= 1;
        Some((origin, item))
    }

    fn finish(&mut self, origin: Origin) {
        self.free_threads += 1;
        if let Some(share) = self.origins.get_mut(&origin) {
            share.under_way -= 1;
        }
        self.forget_if_empty(origin);
    }

    fn forget_if_empty(&mut self, origin: Origin) {
        let share = self.origins.get(&origin);
        if share.is_some_and(|share| share.under_way == 0 && share.waiting.is_empty()) {
            self.origins.remove(&origin);
        }
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        self.queue.lock().finish(self.origin);
        // The shares of all have grown.
        self.queue.changed.notify_all();
    }
}

impl<T> Drop for Closing<T> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl<T> Clone for Entrance<T> {
    fn clone(&self) -> Entrance<T> {
        Entrance(self.0.clone())
    }
}

impl<T> fmt::Debug for Entrance<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entrance(…)")
    }
}

impl<T> fmt::Debug for Exit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exit(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_address_gets_half_and_another_is_next() {
        let (entrance, exit) = queue(1_024, 16);
        let queued = (0..2_000).filter(|_| entrance.push(address(1), 'a').is_some()).count();
        assert_eq!(queued, 512);
        let mut hanging: Vec<_> = std::iter::from_fn(|| exit.try_take()).collect();
        assert_eq!(hanging.len(), 8, "the others stay free");
        assert!(entrance.push(address(2), 'b').is_some());
        let other = exit.try_take().map(|(item, _)| item);
        assert_eq!(other, Some('b'), "it waits for nothing");
        assert!(exit.try_take().is_none());
        hanging.pop();
        assert_eq!(exit.try_take().map(|(item, _)| item), Some('a'));
    }

    #[test]
    fn many_addresses_fill_everything_and_leave_nothing_behind() {
        let (entrance, exit) = queue(100, 4);
        let queued =
            (0..=255).filter(|last| entrance.push(address(*last), *last).is_some()).count();
        assert_eq!(queued, 100);
        let turns: Vec<_> = std::iter::from_fn(|| exit.try_take()).collect();
        assert_eq!(turns.iter().map(|(item, _)| *item).collect::<Vec<_>>(), [0, 1, 2, 3]);
        drop(turns);
        drop(entrance);
        let rest: Vec<_> = std::iter::from_fn(|| exit.take()).map(|(item, _)| item).collect();
        assert_eq!(rest, (4..100).collect::<Vec<u8>>(), "a closed queue is emptied");
        let state = exit.0.lock();
        assert_eq!((state.free_places, state.free_threads, state.origins.len()), (100, 4, 0));
    }

    #[test]
    fn what_is_withdrawn_leaves_its_place_and_is_never_taken() {
        let (entrance, exit) = queue(8, 2);
        let tickets: Vec<_> = (0..4).map(|item| entrance.push(address(1), item).unwrap()).collect();
        assert_eq!(entrance.push(address(1), 4), None, "the share is full");
        assert_eq!(entrance.withdraw(tickets[1]), Some(1));
        assert_eq!(entrance.withdraw(tickets[1]), None, "it is gone");
        assert!(entrance.push(address(1), 5).is_some(), "its place is free");
        let (item, turn) = exit.try_take().unwrap();
        assert_eq!((item, entrance.withdraw(tickets[0])), (0, None), "it is under way");
        drop(turn);
        let next: Vec<_> =
            (0..3).map_while(|_| exit.try_take()).map(|(item, _turn)| item).collect();
        assert_eq!(next, [2, 3, 5]);
        let last = entrance.push(address(2), 6).unwrap();
        assert_eq!(entrance.withdraw(last), Some(6));
        let state = exit.0.lock();
        assert_eq!((state.free_places, state.free_threads, state.waiting), (8, 2, 0));
        assert!(state.origins.is_empty(), "an origin that has nothing is forgotten");
    }
}
