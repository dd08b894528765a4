//! Who this machine and this process are, in the two numbers that each end tells the other.

use std::io;

use systole_core::wire::{BootId, InstanceId};

/// Overrides what the system says: for tests, in which a machine restarts within a machine.
const BOOT_ID: &str = "SYSTOLE_BOOT_ID";

/// A number that changes when this machine restarts; zeros, which mean "unknown", where the
/// system tells no such number.
pub fn boot_id() -> BootId {
    let given = std::env::var(BOOT_ID).ok();
    if let Some(given) = given.as_deref().and_then(parse_uuid) {
        return BootId(given);
    }
    #[cfg(target_os = "linux")]
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    #[cfg(not(target_os = "linux"))]
    let text: Option<String> = None;
    BootId(text.as_deref().and_then(parse_uuid).unwrap_or_default())
}

/// A random number; draw them once per process.
///
/// # Errors
/// The system gave no random bytes: its fault, and not worth retrying.
pub fn instance_id() -> io::Result<InstanceId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(InstanceId(bytes))
}

/// The bytes of a UUID in its usual text form: 32 hexadecimal digits, dashes anywhere between them.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut digits = 0;
    for c in text.trim().chars().filter(|c| *c != '-') {
        let digit = u8::try_from(c.to_digit(16)?).ok()?;
        let byte = bytes.get_mut(digits / 2)?;
        *byte = *byte << 4 | digit;
        digits += 1;
    }
    (digits == 32).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_as_written() {
        let expected = [
            0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd,
            0xbe, 0xbf,
        ];
        assert_eq!(parse_uuid("b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbebf\n"), Some(expected));
        assert_eq!(parse_uuid("b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbe"), None, "too short");
        assert_eq!(parse_uuid("b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbebf00"), None, "too long");
        assert_eq!(parse_uuid("b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbexf"), None, "not hexadecimal");
        assert_eq!(parse_uuid(""), None);
    }

    #[test]
    fn the_boot_id_stays_and_the_instance_id_is_drawn_anew() {
        assert_eq!(boot_id(), boot_id());
        #[cfg(target_os = "linux")]
        assert_ne!(boot_id(), BootId::default());
        assert_ne!(instance_id().unwrap(), instance_id().unwrap());
    }
}
