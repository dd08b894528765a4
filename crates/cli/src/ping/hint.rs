//! What comes back, or does not, if the server refuses us or speaks another protocol.

use systole_client::cause::{Cause, Malformed, Verdict};
use systole_client::reconnect::{Goodbye, Obstacle};
use systole_client::tls::{Distrust, TlsProgress};
use systole_client::{CloseReason, Codec, ConnectError, Span};
use systole_net::address;

use super::{Args, USUAL_PORT};
use crate::config_args::show;

/// Maximum length of what is quoted of the server's answer.
const QUOTED: usize = 60;

/// The options without which TLS is not spoken.
const NO_TLS: &str = "--tls, --ca, --pin and --insecure";

/// Why a gateway closes at once whatever the client speaks, as the end of a hint.
const TURNED_AWAY: &str =
    "; a gateway also closes at once if this address is banned, or has too many connections";

/// What is in each handshake of ours.
const MAGIC: &[u8] = b"SYS1";

/// Returns the hint for a server that seems to speak another protocol.
pub(super) fn other_codec(codec: Codec) -> String {
    format!("hint: is this a systole gateway with codec {codec} on this port? --codec sets another")
}

/// Returns the hint for a server that has not answered for a while.
pub(super) fn of_silence(args: &Args) -> String {
    if args.tls.is_spoken() {
        return format!(
            "hint: the server may speak no TLS on this port, or not codec {}: leave out {NO_TLS}, \
             or set --codec",
            args.codec
        );
    }
    other_codec(args.codec)
}

/// Describes an attempt that failed, as the client does, with what only the options tell.
pub(super) fn describe(error: &ConnectError, args: &Args) -> String {
    if let ConnectError::Token { again: true, .. } = error
        && let Some(file) = args.login.token_file()
    {
        let file = show(file);
        return format!("{file} still has the token that was refused; waiting for a new one");
    }
    if let ConnectError::Handshake { farewell, .. } = error {
        return format!("{error}{}", return_after(*farewell));
    }
    error.to_string()
}

/// Says when the server asks to come back, if it does.
pub(super) fn return_after(farewell: Option<Goodbye>) -> String {
    let after = farewell.map(|goodbye| goodbye.return_after).filter(|after| *after != Span::ZERO);
    after.map(|after| format!("; come back in {after}")).unwrap_or_default()
}

/// Returns what an attempt that failed has shown, and a hint if there is one.
pub(super) fn of_attempt(error: &ConnectError, args: &Args) -> (String, Option<String>) {
    let codec = args.codec;
    if let ConnectError::Handshake { farewell: Some(goodbye), .. } = error {
        return (describe(error, args), of_refusal(*goodbye, args));
    }
    if let ConnectError::Handshake { verdict, farewell: None, answer, tls, .. } = error {
        if let Some(TlsProgress::Distrusted(why)) = tls {
            return (error.to_string(), Some(of_distrust(*why, args)));
        }
        if let Cause::Protocol(what) = verdict.cause
            && let Some(hint) = of_tls(what)
        {
            return (error.to_string(), Some(hint.to_owned()));
        }
        let is_silent = answer.is_empty();
        if let Some((shown, hint)) = of_tls_begun(verdict.cause, *tls).filter(|_| is_silent) {
            return (shown.to_owned(), Some(hint));
        }
        if let Some(shown) = of_verdict(verdict, answer, codec) {
            let is_closed = matches!(verdict.cause, Cause::PeerExited | Cause::PeerReset);
            let more = if is_closed && is_silent { TURNED_AWAY } else { "" };
            return (shown, Some(format!("{}{more}", other_codec(codec))));
        }
    }
    // The address is printed before.
    if let ConnectError::Resolve { why, .. } = error {
        return (format!("the host has no address: {why}"), None);
    }
    let hint = matches!(error, ConnectError::Io { obstacle: Obstacle::Refused, .. }).then(|| {
        "hint: nothing listens there: is the server running, and is this its port?".to_owned()
    });
    (describe(error, args), hint)
}

/// Returns the hint for a refusal that needs one: the gateway tells the peer no reason.
fn of_refusal(goodbye: Goodbye, args: &Args) -> Option<String> {
    let is_about_token = goodbye.reason == CloseReason::Unauthorized;
    is_about_token.then(|| {
        match args.login.shows_token() || args.tls.shows_certificate() {
            true => "hint: the gateway's log and systole_logins_refused_total have the reason",
            false => "hint: no token was shown: --token-file FILE, or set SYSTOLE_TOKEN",
        }
        .to_owned()
    })
}

/// Returns what the end of a connection shows whose TLS was begun and never answered, and the hint.
fn of_tls_begun(cause: Cause, tls: Option<TlsProgress>) -> Option<(&'static str, String)> {
    if tls != Some(TlsProgress::Begun) {
        return None;
    }
    let no_tls = format!("hint: the server may speak no TLS on this port: leave out {NO_TLS}");
    if let Cause::PeerExited | Cause::PeerReset = cause {
        let shown = "the server closed the connection before TLS was complete";
        return Some((shown, format!("{no_tls}{TURNED_AWAY}")));
    }
    let is_late = cause == Cause::HandshakeTimeout;
    is_late.then_some(("the server accepted the connection and answered no TLS", no_tls))
}

/// Returns the hint for a certificate that is not believed.
fn of_distrust(why: Distrust, args: &Args) -> String {
    let hint = match why {
        Distrust::Expired => "it needs a new one, or the clock of this machine is wrong",
        Distrust::NotYetValid => "look at the clocks of both machines",
        Distrust::OtherName => {
            return format!(
                "hint: {:?} was expected; --tls-name expects another name",
                expected_name(args)
            );
        }
        Distrust::NoName => {
            let name = expected_name(args);
            let kind = if name.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
            return format!(
                "hint: make it with -addext subjectAltName={kind}:{name}, or use --pin"
            );
        }
        Distrust::UnknownIssuer if args.tls.names_roots() => {
            "no certificate in the file of --ca vouches for it, nor is it one of them"
        }
        Distrust::UnknownIssuer => "name the authority with --ca, or the key with --pin",
        Distrust::Authority => {
            "give this very certificate as --ca, or make it with -addext \
             basicConstraints=critical,CA:FALSE (openssl req), or use --pin"
        }
        Distrust::OtherKey => "was the key replaced? --pin needs the new one then",
        Distrust::Purpose => "its extendedKeyUsage needs serverAuth",
        Distrust::Missing | Distrust::Illegal => "look at it with openssl x509 -text, or use --pin",
    };
    format!("hint: {hint}")
}

/// Returns the name that a certificate of the server must have.
fn expected_name(args: &Args) -> &str {
    let host = || address::split(&args.addr, USUAL_PORT).map_or(&*args.addr, |(host, _)| host);
    args.tls.tls_name.as_deref().unwrap_or_else(host)
}

/// Returns the hint for a disagreement about TLS.
fn of_tls(what: Malformed) -> Option<&'static str> {
    match what {
        Malformed::Tls => Some("hint: the server speaks TLS; use --tls, --ca, --pin or --insecure"),
        Malformed::NoTls => Some(
            "hint: the server speaks no TLS on this port: leave out --tls, --ca, --pin and \
             --insecure",
        ),
        Malformed::TlsRefused => Some("hint: it may demand a certificate: --cert and --key"),
        Malformed::Certificate
        | Malformed::UnknownKind
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
