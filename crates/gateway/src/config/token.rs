//! A secret that operators share with the gateway.

use std::fmt;

use subtle::ConstantTimeEq;

/// The shortest token in characters: 16 of a random 64-letter alphabet are 96 bits.
pub const MIN_TOKEN: usize = 16;

/// The longest token in characters; far below what HTTP servers take as one header.
pub const MAX_TOKEN: usize = 512;

/// A secret that never shows itself: its `Debug` is redacted and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token of [`MIN_TOKEN`] to [`MAX_TOKEN`] printable ASCII characters without spaces.
    ///
    /// # Errors
    /// Any other text; the error says what would be right, to follow "must be", and not the text.
    pub fn new(text: &str) -> Result<Token, String> {
        let legal = (MIN_TOKEN..=MAX_TOKEN).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        legal.then(|| Token(text.to_owned())).ok_or_else(|| {
            format!("{MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters without spaces")
        })
    }

    /// Whether `given` is this token, in a time that does not tell how much of it was right.
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
    fn tokens_hide_and_compare() {
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
