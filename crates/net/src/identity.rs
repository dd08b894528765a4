//! Identity of this machine, this process and a session: numbers that nobody else has.

use std::io;

use systole_core::resume::{TOKEN, Token};
use systole_core::wire::{BootId, InstanceId};

/// Environment variable that overrides the boot id, so that tests can simulate a reboot.
const BOOT_ID_VAR: &str = "SYSTOLE_BOOT_ID";

/// Returns a number that changes when this machine restarts; zeros ("unknown") on systems without
/// such a number.
pub fn boot_id() -> BootId {
    let override_text = std::env::var(BOOT_ID_VAR).ok();
    if let Some(override_text) = override_text.as_deref().and_then(parse_uuid) {
        return BootId(override_text);
    }
    #[cfg(target_os = "linux")]
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    #[cfg(not(target_os = "linux"))]
    let text: Option<String> = None;
    BootId(text.as_deref().and_then(parse_uuid).unwrap_or_default())
}

/// Returns a random number that identifies a process; call it once per process.
///
/// # Errors
/// The system has no random bytes; do not retry.
pub fn instance_id() -> io::Result<InstanceId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(InstanceId(bytes))
}

/// Returns a token with which a session can be resumed.
///
/// # Errors
/// The system has no random bytes; do not retry.
pub fn resume_token() -> io::Result<Token> {
    let mut bytes = [0; TOKEN];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(Token(bytes))
}

/// Parses a UUID: 32 hexadecimal digits, with dashes anywhere between them.
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
    fn uuids_are_parsed() {
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
    fn the_boot_id_is_stable_and_each_instance_id_is_new() {
        assert_eq!(boot_id(), boot_id());
        #[cfg(target_os = "linux")]
        assert_ne!(boot_id(), BootId::default());
        assert_ne!(instance_id().unwrap(), instance_id().unwrap());
    }
}
