//! A store for tests, in memory: what waits for a webhook, and what is put aside.

use std::collections::{BTreeMap, BTreeSet};

use systole_core::Span;

use super::errands::{Answer, Errand, Errands};
use crate::store::{Aside, Entry, LEFT_AT_ONCE, Page, TakenBack, Wanted};

pub(super) fn entry(number: u64, key: u64) -> Entry {
    Entry {
        number,
        key: key.to_string().into(),
        session: number,
        epoch: number,
        kind: "leave".into(),
        at_ms: 0,
        body: "{}".into(),
        origin: "".into(),
    }
}

pub(super) fn entry_of(origin: u64, number: u64, key: u64) -> Entry {
    Entry { origin: format!("192.0.2.{origin}").into(), ..entry(number, key) }
}

/// What waits, and what is put aside.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) entries: BTreeMap<u64, Entry>,
    of_key: BTreeMap<Box<str>, BTreeSet<u64>>,
    pub(super) aside: BTreeMap<Box<str>, Aside>,
    aside_due: BTreeSet<(Span, Box<str>)>,
    /// How often keys were put aside.
    pub(super) times_aside: usize,
}

impl Shelf {
    pub(super) fn add(&mut self, entry: Entry) {
        self.of_key.entry(entry.key.clone()).or_default().insert(entry.number);
        self.entries.insert(entry.number, entry);
    }

    pub(super) fn remove(&mut self, number: u64) {
        let entry = self.entries.remove(&number).unwrap();
        self.of_key.get_mut(&entry.key).unwrap().remove(&number);
    }

    /// Does all errands of the moment; `fails` says whether the store fails this time.
    pub(super) fn serve(
        &mut self,
        errands: &mut Errands,
        now: Span,
        fails: &mut impl FnMut() -> bool,
    ) {
        errands.has_more();
        while let Some(errand) = errands.begin(now) {
            let answer = self.answer(errand, fails());
            errands.finish(now, answer);
        }
    }

    /// Does one errand, unless the store fails.
    pub(super) fn answer(&mut self, errand: Errand, fails: bool) -> Answer {
        match errand {
            Errand::PutAside(keys) if fails => Answer::PutAside(keys, None),
            Errand::TakeBack(..) if fails => Answer::TakenBack(None),
            Errand::ReadLeft(wanted, _) if fails => Answer::Left(wanted, None),
            Errand::Read(..) if fails => Answer::Read(None),
            Errand::PutAside(keys) => {
                self.put_aside(&keys);
                Answer::PutAside(keys, Some(()))
            }
            Errand::TakeBack(now, limit) => Answer::TakenBack(Some(self.take_back(now, limit))),
            Errand::ReadLeft(wanted, up_to) => {
                let left = self.left(&wanted, up_to);
                Answer::Left(wanted, Some(left))
            }
            Errand::Read(after, limit) => Answer::Read(Some(self.page(after, limit))),
        }
    }

    fn put_aside(&mut self, keys: &[Aside]) {
        self.times_aside += keys.len();
        for aside in keys {
            self.aside_due.insert((aside.due, aside.key.clone()));
            assert!(self.aside.insert(aside.key.clone(), aside.clone()).is_none());
        }
    }

    fn take_back(&mut self, now: Span, limit: usize) -> TakenBack {
        let mut keys = Vec::new();
        while keys.len() < limit && self.next_due().is_some_and(|due| due <= now) {
            let (_, key) = self.aside_due.pop_first().unwrap();
            keys.push(self.aside.remove(&key).unwrap());
        }
        TakenBack { keys, next_due: self.next_due() }
    }

    fn next_due(&self) -> Option<Span> {
        self.aside_due.first().map(|(due, _)| *due)
    }

    fn left(&self, wanted: &[Wanted], up_to: u64) -> Vec<Vec<Entry>> {
        let mut count = 0;
        let each = wanted.iter().map_while(|Wanted { key, after, limit }| {
            let of_key = self.of_key.get(key).into_iter().flatten();
            let numbers = of_key.filter(|number| *number > after && **number <= up_to);
            let entries = numbers.take(*limit).map(|number| self.entries[number].clone());
            let entries: Vec<_> = (count < LEFT_AT_ONCE).then(|| entries.collect())?;
            count += entries.len();
            Some(entries)
        });
        each.collect()
    }

    fn page(&self, after: u64, limit: usize) -> Page {
        let all: Vec<_> = self.entries.range(after + 1..).take(limit).collect();
        let last = all.last().map(|(number, _)| **number);
        let is_full = all.len() == limit;
        let to_read = all.into_iter().filter(|(_, it)| !self.aside.contains_key(&it.key));
        Page { entries: to_read.map(|(_, it)| it.clone()).collect(), last, is_full }
    }
}
