//! The devices' keys, and the tags that authenticate datagrams.
//!
//! The tags are HMAC-SHA256, truncated to 96 bits: devices have it in a standard library or in
//! crypto hardware, and the `hmac` and `sha2` crates have many maintainers. BLAKE3 would be faster
//! and is in neither; SipHash is made for hash tables, with 64 bits and no promise beyond that. At
//! 32 bytes a datagram each of them costs less than the system call.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use systole_core::beacon::{DATAGRAM, Datagram, SIGNED, TAG, Tag};

/// Length of a key and of a master secret, in bytes.
pub const KEY: usize = 32;

/// Maximum number of devices in a list of keys: 40 bytes of memory each.
pub const MAX_DEVICES: usize = 1 << 24;

/// The label that precedes the device's number in the derivation of its key.
const LABEL: &[u8; 16] = b"systole beacon 1";

/// The keys of the devices of one listener. `Debug` output never shows them.
#[derive(Clone)]
pub struct Keys(Source);

#[derive(Clone)]
enum Source {
    Master {
        secret: [u8; KEY],
        mac: Hmac<Sha256>,
    },
    /// Sorted by device.
    List(Box<[(u64, [u8; KEY])]>),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl PartialEq for Keys {
    /// Compares in variable time: detects a changed file, and must not verify foreign input.
    fn eq(&self, other: &Keys) -> bool {
        match (&self.0, &other.0) {
            (Source::Master { secret, .. }, Source::Master { secret: other, .. }) => {
                secret == other
            }
            (Source::List(list), Source::List(other)) => list == other,
            (Source::Master { .. }, Source::List(_)) | (Source::List(_), Source::Master { .. }) => {
                false
            }
        }
    }
}

impl Eq for Keys {}

impl Keys {
    /// Makes the keys of all possible devices, derived from a master secret.
    pub fn derived(master: &[u8; KEY]) -> Keys {
        Keys(Source::Master { secret: *master, mac: mac(master) })
    }

    /// Reads a master secret from the first line of a file: 64 hexadecimal digits.
    ///
    /// # Errors
    /// Returns what is wrong, without the secret.
    pub fn parse_master(text: &str) -> Result<Keys, String> {
        let first = text.lines().next().unwrap_or_default().trim();
        let format = "its first line must be 64 hexadecimal digits, as from `openssl rand -hex 32`";
        let master = hex(first).ok_or(format)?;
        Ok(Keys::derived(&master))
    }

    /// Reads a list of devices and keys, one line each: 16 and 64 hexadecimal digits with a space
    /// between. Empty lines and comments after `#` are ignored.
    ///
    /// # Errors
    /// Returns what is wrong and in which line, without the keys.
    pub fn parse_list(text: &str) -> Result<Keys, String> {
        let mut list = Vec::new();
        for (at, line) in (1..).zip(text.lines()) {
            let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
            if line.is_empty() {
                continue;
            }
            let entry = line.split_once(' ').and_then(|(device, key)| {
                Some((u64::from_be_bytes(hex(device)?), hex(key.trim_start())?))
            });
            let entry = entry.ok_or_else(|| {
                format!("line {at} must be a device of 16 hexadecimal digits and a key of 64")
            })?;
            list.push(entry);
            if list.len() > MAX_DEVICES {
                return Err(format!("it holds more than {MAX_DEVICES} devices"));
            }
        }
        list.sort_unstable_by_key(|(device, _)| *device);
        if let Some(twice) = list.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("device {} stands in it twice", device_text(twice[0].0)));
        }
        Ok(Keys(Source::List(list.into_boxed_slice())))
    }

    /// Returns the key of a device, if there is one.
    pub fn of(&self, device: u64) -> Option<DeviceKey> {
        match &self.0 {
            Source::Master { mac: master, .. } => {
                let mut derive = master.clone();
                derive.update(LABEL);
                derive.update(&device.to_le_bytes());
                let key: [u8; KEY] = derive.finalize().into_bytes().into();
                Some(DeviceKey(mac(&key)))
            }
            Source::List(list) => {
                let index = list.binary_search_by_key(&device, |(device, _)| *device).ok()?;
                list.get(index).map(|(_, key)| DeviceKey(mac(key)))
            }
        }
    }
}

/// One device's key, ready to use.
#[derive(Clone)]
pub struct DeviceKey(Hmac<Sha256>);

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(…)")
    }
}

impl DeviceKey {
    /// Makes a key from its bytes.
    pub fn new(key: &[u8; KEY]) -> DeviceKey {
        DeviceKey(mac(key))
    }

    /// Whether `tag` authenticates the bytes of `datagram`. The time taken does not reveal how much
    /// of the tag was right.
    pub fn proves(&self, datagram: &Datagram, tag: &Tag) -> bool {
        let mut mac = self.0.clone();
        mac.update(&datagram.encode());
        mac.verify_truncated_left(tag).is_ok()
    }

    /// Returns the bytes of a datagram with its tag.
    pub fn seal(&self, datagram: &Datagram) -> [u8; DATAGRAM] {
        let signed = datagram.encode();
        let mut mac = self.0.clone();
        mac.update(&signed);
        let whole = mac.finalize().into_bytes();
        let mut bytes = [0; DATAGRAM];
        bytes[..SIGNED].copy_from_slice(&signed);
        bytes[SIGNED..].copy_from_slice(&whole[..TAG]);
        bytes
    }
}

/// Returns a device's number as people and the API write it.
pub fn device_text(device: u64) -> String {
    format!("{device:016x}")
}

fn mac(key: &[u8; KEY]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Parses exactly `2 * N` hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");
    const DEVICE: u64 = 0x0123_4567_89ab_cdef;

    fn master() -> [u8; KEY] {
        std::array::from_fn(|index| index as u8)
    }

    /// Returns the bytes of each block of `docs/protocol.md` that is marked with `mark`.
    fn blocks(mark: &str) -> Vec<Vec<u8>> {
        let opening = format!("```{mark} ");
        let mut lines = DOCUMENT.lines();
        let mut blocks = Vec::new();
        while lines.by_ref().any(|line| line.starts_with(&opening)) {
            let body = lines.by_ref().take_while(|line| *line != "```");
            let words = body.flat_map(|line| {
                let digits = line.split('#').next().unwrap_or_default();
                digits.split_whitespace().map(|word| u8::from_str_radix(word, 16).unwrap())
            });
            blocks.push(words.collect());
        }
        blocks
    }

    #[test]
    fn keys_and_tags_match_the_protocol_document() {
        let [key] = &blocks("beacon-key")[..] else { panic!("one key") };
        let derived = Keys::derived(&master()).of(DEVICE).unwrap();
        let listed = DeviceKey::new(key[..].try_into().unwrap());
        let datagrams = blocks("beacon");
        assert_eq!(datagrams.len(), 4);
        for bytes in datagrams {
            let (datagram, tag) = Datagram::decode(&bytes).unwrap();
            for key in [&derived, &listed] {
                assert!(key.proves(&datagram, &tag));
                assert_eq!(key.seal(&datagram)[..], bytes);
            }
            for bit in 0..8 * bytes.len() {
                let mut spoilt = bytes.clone();
                spoilt[bit / 8] ^= 1 << (bit % 8);
                let Ok((datagram, tag)) = Datagram::decode(&spoilt) else { continue };
                assert!(!derived.proves(&datagram, &tag), "bit {bit}");
            }
            assert!(!Keys::derived(&master()).of(DEVICE + 1).unwrap().proves(&datagram, &tag));
        }
    }

    #[test]
    fn key_files_are_read_or_refused_without_showing_secrets() {
        let key = "ab".repeat(32);
        assert!(Keys::parse_master(&format!("{key}\n")).is_ok());
        for bad in ["", "ab", &"xy".repeat(32), &"ab".repeat(33), &"é".repeat(32)] {
            let error = Keys::parse_master(bad).unwrap_err();
            assert!(bad.len() < 3 || !error.contains(bad));
        }
        let list = format!("# devices\n\n0000000000000007  {key} # seven\n0000000000000001 {key}");
        let keys = Keys::parse_list(&list).unwrap();
        assert!(keys.of(7).is_some() && keys.of(1).is_some() && keys.of(2).is_none());
        let error = Keys::parse_list(&format!("7 {key}")).unwrap_err();
        assert!(error.contains("line 1") && !error.contains(&key));
        let twice = format!("0000000000000007 {key}\n0000000000000007 {key}");
        assert!(Keys::parse_list(&twice).unwrap_err().contains("0000000000000007 stands in it"));
        assert_eq!(format!("{keys:?}"), "Keys(…)");
    }
}
