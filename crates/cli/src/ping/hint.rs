//! What comes back, or does not, if the server speaks another protocol.

use systole_client::cause::{Cause, Malformed, Verdict};
use systole_client::reconnect::Obstacle;
use systole_client::{Codec, ConnectError};

/// Maximum length of what is quoted of the server's answer.
const QUOTED: usize = 60;

/// What is in each handshake of ours.
const MAGIC: &[u8] = b"SYS1";

/// Returns the hint for a server that seems to speak another protocol.
pub(super) fn other_codec(codec: Codec) -> String {
    format!("hint: is this a systole gateway with codec {codec} on this port? --codec sets another")
}

/// Returns what an attempt that failed has shown, and a hint if there is one.
pub(super) fn of_attempt(error: &ConnectError, codec: Codec) -> (String, Option<String>) {
    if let ConnectError::Handshake { verdict, farewell: None, answer } = error {
        if let Cause::Protocol(what) = verdict.cause
            && let Some(hint) = of_tls(what)
        {
            return (error.to_string(), Some(hint.to_owned()));
        }
        if let Some(shown) = of_verdict(verdict, answer, codec) {
            return (shown, Some(other_codec(codec)));
        }
    }
    // The address is printed before.
    if let ConnectError::Resolve { why, .. } = error {
        return (format!("the host has no address: {why}"), None);
    }
    let hint = matches!(error, ConnectError::Io { obstacle: Obstacle::Refused, .. }).then(|| {
        "hint: nothing listens there: is the server running, and is this its port?".to_owned()
    });
    (error.to_string(), hint)
}

/// Returns the hint for a disagreement about TLS.
fn of_tls(what: Malformed) -> Option<&'static str> {
    match what {
        Malformed::Tls => Some("hint: the server speaks TLS; use --tls, --ca, --pin or --insecure"),
        Malformed::NoTls => Some("hint: the server speaks no TLS on this port"),
        Malformed::Certificate => Some(
            "hint: name the authority with --ca, the key with --pin, or the expected name with \
             --tls-name",
        ),
        Malformed::TlsRefused => Some("hint: it may demand a certificate: --cert and --key"),
        Malformed::UnknownKind
        | Malformed::UnknownFlag
        | Malformed::Varint
        | Malformed::TooLong
        | Malformed::Truncated
        | Malformed::LeftOver
        | Malformed::NotText
        | Malformed::ControlCharacter
        | Malformed::Magic
        | Malformed::Version
        | Malformed::Policy
        | Malformed::OutOfPlace
        | Malformed::StalledFrame
        | Malformed::OldestFrame
        | Malformed::HttpRequest
        | Malformed::Record
        | Malformed::Claim
        | Malformed::Subject
        | Malformed::Acknowledgement
        | Malformed::BeyondWindow => None,
    }
}

/// Returns what the end of a link shows that was never answered; `None` if another protocol is no
/// likely reason for it.
pub(super) fn of_verdict(verdict: &Verdict, answer: &[u8], codec: Codec) -> Option<String> {
    let said = match answer.windows(MAGIC.len()).any(|window| window == MAGIC) {
        true => "with our own bytes, as an echo of lines does".to_owned(),
        false => quote(answer),
    };
    match verdict.cause {
        Cause::PeerExited | Cause::PeerReset | Cause::HandshakeTimeout | Cause::Protocol(_)
            if !answer.is_empty() =>
        {
            Some(format!("this is not codec {codec}: the server answered {said}"))
        }
        Cause::Protocol(what) => {
            Some(format!("this is not codec {codec}: the server sent illegal bytes: {what}"))
        }
        Cause::PeerExited | Cause::PeerReset => Some(format!(
            "this may not be codec {codec}: the server closed the connection without an answer"
        )),
        Cause::HandshakeTimeout => Some(format!(
            "this may not be codec {codec}: the server accepted the connection and answered nothing"
        )),
        Cause::PeerClosed(_)
        | Cause::PeerRebooted
        | Cause::MiddleboxForgot
        | Cause::MiddleboxReset
        | Cause::AppHung
        | Cause::NotReading
        | Cause::SlowConsumer
        | Cause::PathLost { .. }
        | Cause::Unreachable
        | Cause::LocalNetworkDown
        | Cause::LocalNeighbourGone
        | Cause::Kicked
        | Cause::Replaced
        | Cause::Unauthorized
        | Cause::Refused(_)
        | Cause::Flooding
        | Cause::Drained
        | Cause::Finished
        | Cause::LocalFault
        | Cause::GatewayLost
        | Cause::Unknown => None,
    }
}

/// Returns what a line of data shows that came before the first answer; `None` if it is no sign of
/// another protocol.
pub(super) fn of_message(message: &[u8], codec: Codec) -> Option<String> {
    let known = [&b"HTTP/"[..], b"SSH-", b"220 ", b"* OK", b"-ERR"];
    known
        .iter()
        .any(|start| message.starts_with(start))
        .then(|| format!("this is not codec {codec}: the server answered {}", quote(message)))
}

/// Quotes the first line of what a server sent, without control characters. Names HTTP.
fn quote(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let shown = line.get(..QUOTED).unwrap_or(line).escape_ascii();
    let http = if bytes.starts_with(b"HTTP/") { ", which is HTTP" } else { "" };
    format!("\"{shown}\"{http}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_quoted_without_control_characters() {
        assert_eq!(quote(b"HTTP/1.1 400 Bad\r\nx"), "\"HTTP/1.1 400 Bad\", which is HTTP");
        assert_eq!(quote(b"\x1b[2Jhello \xff"), "\"\\x1b[2Jhello \\xff\"");
        assert_eq!(quote(&[b'a'; 200]).len(), QUOTED + 2);
    }

    #[test]
    fn only_known_protocols_are_recognised_in_data() {
        let seen = of_message(b"SSH-2.0-OpenSSH_9.6", Codec::Line).unwrap();
        assert!(seen.contains("not codec line") && seen.contains("SSH-2.0"), "{seen}");
        assert_eq!(of_message(b"hello", Codec::Line), None);
    }
}
