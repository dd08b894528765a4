//! The entries that were never tried: the addresses of their clients take turns, so that one with
//! many of them holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use systole_core::Span;

use crate::store::Entry;

/// Entries that were never tried, by address. Those of one address go in the order in which they
/// came to be due.
#[derive(Debug, Default)]
pub(super) struct Turns {
    addresses: BTreeMap<Box<str>, BTreeSet<(Span, u64)>>,
    /// The address that had the last turn.
    last: Box<str>,
}

impl Turns {
    /// Adds an entry that is due since `at`.
    pub(super) fn add(&mut self, at: Span, entry: &Entry) {
        self.addresses.entry(entry.origin.clone()).or_default().insert((at, entry.number));
    }

    /// Returns a time since when an entry is due; `None` if there is none.
    pub(super) fn since(&self) -> Option<Span> {
        self.addresses.values().next().and_then(BTreeSet::first).map(|(at, _)| *at)
    }

    /// Takes out the oldest entry of the address whose turn it is.
    pub(super) fn next(&mut self, now: Span) -> Option<u64> {
        let after = (Excluded(&*self.last), Unbounded);
        let mut later = self.addresses.range::<str, _>(after);
        let (address, _) = later.next().or_else(|| self.addresses.first_key_value())?;
        let address = address.clone();
        let entries = self.addresses.get_mut(&address)?;
        let first = *entries.first().filter(|(at, _)| *at <= now)?;
        entries.remove(&first);
        if entries.is_empty() {
            self.addresses.remove(&address);
        }
        self.last = address;
        Some(first.1)
    }
}
