//! The admin token: a secret shared by operators and the gateway.

use std::fmt;

use subtle::ConstantTimeEq;

/// Minimum length of a token: 16 random characters of a 64-letter alphabet have 96 bits.
const MIN_TOKEN: usize = 16;

/// Maximum length of a token in characters, far below what HTTP servers accept as one header.
const MAX_TOKEN: usize = 512;

/// A secret that requests must present. Its `Debug` is redacted and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Creates a token of 16 to 512 printable ASCII characters without spaces.
    ///
    /// # Errors
    /// Refuses any other text. The error describes a legal token, follows the words "must be", and
    /// does not contain the text.
    pub fn new(text: &str) -> Result<Token, String> {
        let legal = (MIN_TOKEN..=MAX_TOKEN).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        legal.then(|| Token(text.to_owned())).ok_or_else(|| {
            format!("{MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters without spaces")
        })
    }

    /// Returns whether `given` is this token, compared in constant time.
    pub fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_and_never_shown() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(token.matches("0123456789abcdef"));
        for other in ["", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcde"] {
            assert!(!token.matches(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert!(Token::new("0123456789abcde").is_err());
        assert!(Token::new("0123456789 bcdef").is_err());
        assert!(Token::new(&"x".repeat(MAX_TOKEN + 1)).is_err());
        assert!(Token::new(&"x".repeat(MAX_TOKEN)).is_ok());
    }
}
