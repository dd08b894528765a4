//! Retunes that a peer asks for.

use alloc::vec::Vec;

use super::*;
use crate::wire::Frame;

#[test]
fn several_retunes_in_one_read_change_the_policy_once() {
    let settings = Settings::new(Codec::Native, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, SessionKey::default(), 1);
    let mut bytes = Vec::new();
    let client =
        Settings::new(Codec::Native, Side::Connecting(Introduction::default()), Policy::default());
    let mut hello = Link::new(Time::ZERO, client, SessionKey::default(), 1);
    while let Some(output) = hello.poll_output() {
        if let Output::Transmit { bytes: frame, .. } = output {
            bytes.extend_from_slice(frame);
        }
    }
    for bound in 0..100 {
        let interval = Span::from_millis(1_000 + bound);
        let wish = Policy::new(Span::from_secs(2), interval, 3).unwrap();
        Codec::Native.encode(&Frame::Retune(wish), &mut bytes);
    }
    link.handle(Time::ZERO, Input::Received(&bytes));
    let mut retuned = 0;
    let mut answers = 0;
    while let Some(output) = link.poll_output() {
        match output {
            Output::Event(Event::Retuned(_)) => retuned += 1,
            Output::Transmit { bytes, .. } => answers += u32::from(bytes.first() == Some(&0x60)),
            Output::Event(_) | Output::Examine | Output::Close(_) => {}
        }
    }
    assert_eq!((retuned, answers), (1, 100));
    assert_eq!(link.policy().bound(), Some(Span::from_millis(5_000)), "the first request");
}
