//! Reads the settings of a `[[listener]]` for beacons: address, device keys and limit.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use systole_core::Policy;
use systole_core::beacon::MAX_BEACONS;

use super::file::read_text;
use super::section::{Given, Reading};
use crate::beacon::keys::{Keys, MAX_DEVICES};

/// The `codec` of a beacon listener in the configuration file.
pub const BEACON: &str = "beacon";

/// Default maximum of devices online at one listener; they take 165 MB of memory.
pub(super) const DEFAULT_MAX_BEACONS: u32 = 1 << 20;

/// Maximum size of a list of keys in bytes: for each device that is allowed, a line of 82 bytes and
/// a short comment.
const MAX_KEYS_FILE: u64 = 128 * MAX_DEVICES as u64;

/// Maximum size of the file of a master secret in bytes, of which the first line of 65 counts.
const MAX_SECRET_FILE: u64 = 64 << 10;

/// A UDP listener that receives the beacons of devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BeaconListener {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) policy: Policy,
    pub(super) max_beacons: u32,
    pub(super) keys: Arc<Keys>,
}

impl BeaconListener {
    /// Returns the unique name of the listener in metrics, logs and the ready file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address to listen at; with port 0 the system chooses the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the policy for its devices.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns the maximum number of devices online.
    pub fn max_beacons(&self) -> u32 {
        self.max_beacons
    }

    /// Returns the keys that authenticate its devices.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }
}

/// A parser of one format of keys file.
type Parse = fn(&str) -> Result<Keys, String>;

/// The settings that only beacon listeners have.
#[derive(Debug)]
pub(super) struct BeaconSettings {
    pub(super) keys_file: Option<Given<String>>,
    pub(super) master_secret_file: Option<Given<String>>,
    pub(super) max_beacons: Option<Given<u64>>,
}

/// Returns the range of `max_beacons`.
pub(super) fn max_beacons_range() -> std::ops::RangeInclusive<u64> {
    1..=u64::from(MAX_BEACONS)
}

impl BeaconSettings {
    /// Returns the place and the key of each setting that was given.
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

    /// Reads the keys from the one file that was given, or reports the problem. A relative path
    /// starts from `directory`.
    pub(super) fn keys(
        &self,
        reading: &mut Reading<'_>,
        directory: &Path,
        place: Option<Range<usize>>,
    ) -> Option<Arc<Keys>> {
        let given = (&self.keys_file, &self.master_secret_file);
        let (file, limit, parse): (_, _, Parse) = match given {
            (Some(file), None) => (file, MAX_KEYS_FILE, Keys::parse_list),
            (None, Some(file)) => (file, MAX_SECRET_FILE, Keys::parse_master),
            (Some(file), Some(_)) => {
                let what = "`keys_file` and `master_secret_file` exclude each other".to_owned();
                reading.problems.add(Some(file.span.clone()), what, None);
                return None;
            }
            (None, None) => {
                let what = "a beacon listener needs the keys of its devices".to_owned();
                let help = "set `master_secret_file` or `keys_file`".to_owned();
                reading.problems.add(place, what, Some(help));
                return None;
            }
        };
        let path = directory.join(&file.value);
        let shown = path.display();
        let keys = read_text(&path, limit)
            .map_err(|error| format!("the file {shown} cannot be read: {error}"))
            .and_then(|text| parse(&text).map_err(|what| format!("the file {shown}: {what}")));
        keys.map_err(|what| reading.problems.add(Some(file.span.clone()), what, None))
            .ok()
            .map(Arc::new)
    }
}
