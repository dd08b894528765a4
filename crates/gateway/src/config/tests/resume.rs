//! Sessions that outlive their links: what the file may say, and where it has no effect.

use systole_core::link::WhenFull;

use super::*;

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:7400\"\n";

#[test]
fn a_native_listener_says_for_how_long_its_sessions_outlive_their_links() {
    let resume = |lines: &str| load(&format!("{LISTENER}{lines}")).unwrap().listeners[0].resume();
    let read = resume("resume_window = \"2m\"\nresume_when_full = \"gap\"");
    assert_eq!(read, Resume { window: Span::from_secs(120), when_full: WhenFull::Gap });
    assert_eq!(resume("resume_window = \"0s\"").window, Span::ZERO);
    assert_eq!(resume("resume_when_full = \"end\"").when_full, WhenFull::End);
    let default = Resume { window: Span::from_secs(30), when_full: WhenFull::End };
    assert_eq!(resume(""), default);
    let without = "window_messages = \"off\"\nresume_window = \"0s\"";
    assert_eq!(resume(without).window, Span::ZERO);
    assert_eq!(resume("window_messages = \"off\"").window, Span::ZERO);
    assert_eq!(resume("codec = \"line\"").window, Span::ZERO);
}

#[test]
fn a_setting_without_an_effect_is_refused() {
    for (lines, what) in [
        (
            "resume_window = \"25h\"",
            "`resume_window` must be a length of time in quotes with its unit, \
             from \"0s\" to \"1d\"",
        ),
        ("resume_when_full = \"drop\"", "`resume_when_full` must be \"end\" or \"gap\""),
        (
            "window_messages = \"off\"\nresume_window = \"9s\"",
            "`resume_window` has no effect without windows / \
             leave it out, or let `window_messages` be a number",
        ),
        (
            "codec = \"line\"\nresume_window = \"9s\"",
            "`resume_window` has no effect on a line listener / \
             leave it out: only native clients can resume a session",
        ),
        (
            "codec = \"message1028\"\nresume_when_full = \"gap\"",
            "`resume_when_full` has no effect on a message1028 listener / \
             leave it out: only native clients can resume a session",
        ),
    ] {
        assert_eq!(refused(&format!("{LISTENER}{lines}")).2, what);
    }
    let beacon = "codec = \"beacon\"\nmaster_secret_file = \"none\"\nresume_window = \"9s\"";
    let error = load(&format!("{LISTENER}{beacon}")).unwrap_err();
    let what = "`resume_window` has no effect on a beacon listener";
    assert!(error.problems().iter().any(|problem| problem.what == what), "{error}");
}

#[test]
fn the_number_of_sessions_away_is_limited() {
    assert_eq!(load("").unwrap().limits.away, 100_000);
    assert_eq!(load("[limits]\naway = 7").unwrap().limits.away, 7);
    let what = "`away` must be a whole number from 1 to 100000000";
    assert_eq!(refused("[limits]\naway = 0").2, what);
}
