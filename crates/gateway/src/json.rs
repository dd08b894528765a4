//! JSON that leaves the gateway: all of it goes through here.
//!
//! It holds text of strangers, and sooner or later somebody reads it in a terminal, an editor or a
//! log. So no character in it controls a terminal or changes the direction of a text.

use serde::Serialize;
use systole_core::text::Escaped;

/// Returns the JSON of `value`, with escapes for harmful characters.
///
/// # Errors
/// The value has a map whose keys are no text, or refuses to be serialized.
pub(crate) fn to_json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(escape)
}

/// Escapes the harmful characters of JSON, which is the same JSON then: outside of its strings
/// there are none but line feeds and tabs, which stay.
pub(crate) fn escape(json: String) -> String {
    let escaped = Escaped::lines(&json);
    if escaped.is_harmless() { json } else { escaped.to_string() }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};
    use systole_core::text::is_harmful;

    use super::*;

    /// A text with what JSON itself leaves as it is.
    pub(crate) const HARMFUL: &str = "a\u{202e}b\u{2066}c\u{9b}d\u{7f}e\u{2028}f\u{200f}\u{61c}";

    /// Fails if JSON holds a harmful character, or does not hold [`HARMFUL`] as a string of `key`.
    #[track_caller]
    pub(crate) fn assert_harmless(json: &str, pointer: &str) {
        assert!(!json.trim_end().chars().any(is_harmful), "{json:?}");
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(value.pointer(pointer), Some(&Value::from(HARMFUL)), "{json}");
    }

    #[test]
    fn json_is_the_same_and_holds_no_harmful_character() {
        let value = json!({"a": HARMFUL, HARMFUL: ["\u{1f469}\u{200d}\u{1f680}", "\n\t\"\\"]});
        let text = to_json(&value).unwrap();
        assert_harmless(&text, "/a");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(text.contains("\u{1f469}\u{200d}\u{1f680}"), "what is harmless stays: {text}");
        let plain = "{\"a\":\"b\"}";
        assert_eq!(escape(plain.to_owned()), plain);
    }
}
