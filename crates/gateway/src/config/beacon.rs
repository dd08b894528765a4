//! Reads the `[[listener]]` of beacons: where devices state that they live, and what proves them.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use systole_core::Policy;
use systole_core::beacon::MAX_BEACONS;

use super::section::{Given, Reading};
use crate::beacon::keys::Keys;

/// What a listener of beacons speaks, by its name in the file.
pub const BEACON: &str = "beacon";

/// The most devices online at one listener, unless said otherwise: 165 MB of memory if all are.
pub const DEFAULT_MAX_BEACONS: u32 = 1 << 20;

/// The longest file of keys in bytes: as many lines as devices are allowed.
const MAX_KEYS_FILE: u64 = 4 << 30;

/// A place where devices state that they live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BeaconListener {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) policy: Policy,
    pub(super) max_beacons: u32,
    pub(super) keys: Arc<Keys>,
}

impl BeaconListener {
    /// What metrics, logs and the ready file call it; unique.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens; with port 0 the system chooses.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The policy of its devices.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The most devices online at once.
    pub fn max_beacons(&self) -> u32 {
        self.max_beacons
    }

    /// What proves its devices.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }
}

type Parse = fn(&str) -> Result<Keys, String>;

/// What only listeners of beacons have.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) keys_file: Option<Given<String>>,
    pub(super) master_secret_file: Option<Given<String>>,
    pub(super) max_beacons: Option<Given<u64>>,
}

/// The range of `max_beacons`.
pub(super) fn max_beacons_range() -> std::ops::RangeInclusive<u64> {
    1..=u64::from(MAX_BEACONS)
}

impl Settings {
    /// Where the settings stand that another codec does not have, and what they are called.
    pub(super) fn given(&self) -> impl Iterator<Item = (Range<usize>, &'static str)> {
        let span = |given: &Given<String>| given.span.clone();
        [
            (self.keys_file.as_ref().map(span), "keys_file"),
            (self.master_secret_file.as_ref().map(span), "master_secret_file"),
            (self.max_beacons.as_ref().map(|given| given.span.clone()), "max_beacons"),
        ]
        .into_iter()
        .filter_map(|(span, key)| Some((span?, key)))
    }

    /// The keys, if there is one good file of them; relative paths start from `directory`.
    pub(super) fn keys(
        &self,
        reading: &mut Reading<'_>,
        directory: &Path,
        place: Option<Range<usize>>,
    ) -> Option<Arc<Keys>> {
        let (file, parse): (_, Parse) = match (&self.keys_file, &self.master_secret_file) {
            (Some(file), None) => (file, Keys::parse_list),
            (None, Some(file)) => (file, Keys::parse_master),
            (Some(file), Some(_)) => {
                let what = "`keys_file` and `master_secret_file` exclude each other".to_owned();
                reading.problems.add(Some(file.span.clone()), what, None);
                return None;
            }
            (None, None) => {
                let what = "this listener has no keys to prove its devices".to_owned();
                let help = "set `master_secret_file` or `keys_file`".to_owned();
                reading.problems.add(place, what, Some(help));
                return None;
            }
        };
        let path = directory.join(&file.value);
        let shown = path.display();
        let keys = read(&path)
            .map_err(|error| format!("the file {shown} cannot be read: {error}"))
            .and_then(|text| parse(&text).map_err(|what| format!("the file {shown}: {what}")));
        keys.map_err(|what| reading.problems.add(Some(file.span.clone()), what, None))
            .ok()
            .map(Arc::new)
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if fs::metadata(path)?.len() > MAX_KEYS_FILE {
        return Err(std::io::Error::other("it is longer than any file of keys"));
    }
    fs::read_to_string(path)
}
