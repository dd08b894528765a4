//! The signature by which a receiver knows that an event comes from its gateway.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Returns the value of the header `Systole-Signature`: the time of the attempt, in milliseconds
/// since 1970-01-01 UTC, and HMAC-SHA256 (RFC 2104) over that time, a dot and the body.
pub fn sign(secret: &[u8], at_ms: u64, body: &[u8]) -> String {
    let mut text = format!("t={at_ms},v1=");
    // HMAC takes a key of any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) {
        mac.update(at_ms.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        for byte in mac.finalize().into_bytes() {
            // A String takes all that is written.
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_of_time_and_body() {
        // printf '%s' '1700000000000.{}' | openssl dgst -sha256 -hmac secret
        let signed = sign(b"secret", 1_700_000_000_000, b"{}");
        let expected = "8399216d111287e3bb28e25c0f4f31dffdf831c68c9ee2b96c2f67c9b81d341b";
        assert_eq!(signed, format!("t=1700000000000,v1={expected}"));
    }
}
