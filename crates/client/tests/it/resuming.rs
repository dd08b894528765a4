//! Tests of sessions that outlive their links: what the client promises, with links broken around
//! it.

use std::future::Future;
use std::pin::pin;

use systole_client::session::NotResumed;
use systole_client::{
    Client, CloseError, CloseReason, Ending, Event, FlushError, Options, SendError, Undelivered,
};
use systole_core::link::Goodbye;
use systole_core::reconnect::{Backoff, Stop};
use systole_core::{Policy, Span};
use systole_net::Clock;

use crate::keeper::{Keeper, Manner};
use crate::relay::{self, Relay};
use crate::{ms, next, soon, until};

const WINDOW: u32 = 8;

/// Far longer than a test takes.
const LONG: Span = Span::from_secs(600);

/// The length of most messages.
const LEN: usize = 300;

/// How many of them a short queue holds: one must have room for a piece of the link.
const QUEUE: usize = 28;

fn options() -> Options {
    let mut options = Options::default();
    options.policy = Some(Policy::new(ms(300_000), ms(1_000), 3).expect("legal"));
    options.reconnect = Some(Backoff::new(ms(1), ms(3), ms(10_000)).expect("legal"));
    options
}

async fn connect(keeper: &Keeper, options: Options) -> Client {
    let client = soon(Client::connect(keeper.address, options)).await.expect("connected");
    assert!(matches!(next(&client).await, Event::Connected { .. }));
    client
}

fn message(number: usize) -> Vec<u8> {
    let mut message = (number as u64).to_le_bytes().to_vec();
    message.resize(LEN, number as u8);
    message
}

fn is_away(event: &Event) -> bool {
    assert!(!matches!(event, Event::Lost { .. } | Event::Reconnected { .. }), "{event:?}");
    matches!(event, Event::Away { .. })
}

fn is_resumed(event: &Event) -> bool {
    assert!(!matches!(event, Event::Lost { .. } | Event::Reconnected { .. }), "{event:?}");
    matches!(event, Event::Resumed { .. })
}

async fn until_gone(client: &Client) -> (Option<NotResumed>, Undelivered) {
    let event = until(client, |event| matches!(event, Event::NotResumed { .. })).await;
    let Event::NotResumed { why, undelivered } = event else { unreachable!() };
    (why, undelivered)
}

/// Returns what a future returns at once; `None` if it waits.
async fn now<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = std::future::ready(()) => None,
    }
}

impl Keeper {
    /// Waits until exactly the first messages have arrived, in order.
    async fn until_messages(&self, count: usize) {
        self.until(|seen| seen.messages.len() >= count).await;
        let seen = self.seen.lock().expect("no panic while it is held");
        assert!(seen.messages.iter().cloned().eq((0..count).map(message)));
    }
}

/// Lets the link of a client die, with nobody to take the next one.
async fn lose(keeper: &Keeper, client: &Client) {
    keeper.shut();
    until(client, is_away).await;
}

#[tokio::test]
async fn a_cut_link_is_resumed_and_what_was_sent_meanwhile_arrives_once() {
    for unnoticed in [false, true] {
        let keeper = Keeper::start(WINDOW, LONG, Manner::Take).await;
        let client = soon(Client::connect(keeper.address, options())).await.expect("connected");
        let Event::Connected { session, epoch, .. } = next(&client).await else { panic!() };
        client.send(&message(0)).await.unwrap();
        keeper.until_messages(1).await;
        if unnoticed {
            keeper.cut_unnoticed();
        } else {
            keeper.shut();
        }
        until(&client, is_away).await;
        for number in 1..30 {
            soon(client.send(&message(number))).await.unwrap();
        }
        let flushing = client.flush();
        let opening = async { keeper.open() };
        soon(async { tokio::join!(flushing, opening) }).await.0.unwrap();
        keeper.until_messages(30).await;
        let event = until(&client, is_resumed).await;
        let Event::Resumed { session: same, epoch: still, gap: 0, attempt: 1.., .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!((same, still), (session, epoch));
        client.close(CloseReason::Done).await.unwrap();
        keeper.until(|seen| seen.left == [true]).await;
        let seen = keeper.seen.lock().unwrap();
        assert_eq!((seen.joined, seen.resumed), (1, 1));
    }
}

#[tokio::test]
async fn away_names_the_cause_and_how_long_the_session_is_kept() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Take).await;
    let client = connect(&keeper, options()).await;
    let return_after = ms(5);
    keeper.close(Goodbye { return_after, ..CloseReason::Drained.into() });
    let Event::Away { verdict, until: end, farewell, .. } = next(&client).await else { panic!() };
    assert_eq!(farewell.map(|goodbye| goodbye.return_after), Some(return_after));
    assert_eq!(end.since(verdict.at), LONG);
    assert!(matches!(next(&client).await, Event::Reconnecting { .. }));
    // The gateway has closed the session itself.
    let (why, undelivered) = until_gone(&client).await;
    assert!(why.is_some() && undelivered.count() == 0, "{why:?}");
    assert!(matches!(next(&client).await, Event::Reconnected { .. }));
}

#[tokio::test]
async fn a_full_window_makes_messages_wait_for_the_next_link() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Leave).await;
    let mut options = options();
    options.send_queue = QUEUE * (LEN + 8);
    let client = connect(&keeper, options).await;
    lose(&keeper, &client).await;
    // The window and the queue take this many.
    let mut sent = 0;
    while client.try_send(&message(sent)).is_ok() {
        sent += 1;
        tokio::task::yield_now().await;
    }
    assert!(sent >= QUEUE && sent <= WINDOW as usize + QUEUE, "{sent}");
    let last = message(sent);
    let mut sending = pin!(client.send(&last));
    assert_eq!(now(&mut sending).await, None);
    keeper.open();
    until(&client, is_resumed).await;
    let mut taken = 0;
    let mut finished = false;
    while taken <= sent {
        let arrived = |seen: &crate::keeper::Seen| seen.messages.len() > taken;
        tokio::select! {
            done = &mut sending, if !finished => {
                done.unwrap();
                finished = true;
            }
            () = keeper.until(arrived) => {
                keeper.take(1, LEN);
                taken += 1;
            }
        }
    }
    keeper.until_messages(sent + 1).await;
    soon(client.flush()).await.unwrap();
}

#[tokio::test]
async fn a_window_that_is_larger_than_the_queue_is_sent_at_once_on_the_next_link() {
    let keeper = Keeper::start(1_000, LONG, Manner::Take).await;
    let mut options = options();
    options.send_queue = QUEUE * (LEN + 8);
    let client = connect(&keeper, options).await;
    lose(&keeper, &client).await;
    for number in 0..200 {
        soon(client.send(&message(number))).await.unwrap();
    }
    keeper.open();
    let event = until(&client, is_resumed).await;
    let Event::Resumed { redelivered, .. } = event else { panic!("{event:?}") };
    // Those that came during an attempt wait in the queue.
    assert!(redelivered as usize >= 200 - QUEUE, "{redelivered}");
    soon(client.flush()).await.unwrap();
    keeper.until_messages(200).await;
    assert_eq!(keeper.seen.lock().unwrap().resumed, 1, "the link stands");
}

#[tokio::test]
async fn what_the_application_has_not_taken_survives_and_is_not_sent_again() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Take).await;
    let client = connect(&keeper, options()).await;
    (0..4).for_each(|number| keeper.send(&message(number)));
    // Behind these on the same link, so they have arrived.
    client.send(b"").await.unwrap();
    let first = next(&client).await;
    assert_eq!(first, Event::Message(message(0)));
    let mut seen = 1;
    while seen < 2 {
        assert_eq!(next(&client).await, Event::Message(message(seen)));
        seen += 1;
    }
    keeper.shut();
    let mut events = Vec::new();
    while !events.iter().any(is_away) {
        events.push(next(&client).await);
    }
    // Sent while the session has no link.
    (4..8).for_each(|number| keeper.send(&message(number)));
    keeper.open();
    while events.iter().filter(|event| matches!(event, Event::Message(_))).count() < 6 {
        events.push(next(&client).await);
    }
    let messages = events.iter().filter_map(|event| {
        let Event::Message(bytes) = event else { return None };
        Some(bytes.clone())
    });
    assert!(messages.eq((2..8).map(message)));
    assert!(events.iter().any(is_resumed));
    // Each was taken and is acknowledged, so the window has room for as many again.
    for number in 8..100 {
        keeper.send(&message(number));
        assert_eq!(next(&client).await, Event::Message(message(number)));
    }
    assert_eq!(keeper.seen.lock().unwrap().left, [false; 0]);
}

#[tokio::test]
async fn a_session_that_is_gone_returns_what_is_uncertain_and_what_was_never_sent() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Leave).await;
    let client = connect(&keeper, options()).await;
    for number in 0..5 {
        soon(client.send(&message(number))).await.unwrap();
    }
    keeper.until_messages(5).await;
    keeper.take(2, LEN);
    // The acknowledgement of two comes with the answer to a flush.
    assert_eq!(now(client.flush()).await, None);
    lose(&keeper, &client).await;
    let mut flushing = pin!(client.flush());
    assert_eq!(now(&mut flushing).await, None);
    for number in 5..25 {
        soon(client.send(&message(number))).await.unwrap();
    }
    keeper.restart();
    keeper.open();
    let (why, undelivered) = until_gone(&client).await;
    assert_eq!(why, Some(NotResumed::Unknown));
    let Undelivered { uncertain, unsent, messages, .. } = undelivered;
    assert_eq!(unsent, 20);
    assert!((3..=5).contains(&uncertain), "{uncertain}");
    let first = 5 - uncertain as usize;
    assert!(messages.into_iter().eq((first..25).map(message)));
    let unacknowledged = uncertain + unsent;
    assert_eq!(soon(flushing).await, Err(FlushError::NotResumed { unacknowledged }));
    assert!(matches!(next(&client).await, Event::Reconnected { .. }));
    // A new session, with nothing of the old one.
    let before = keeper.seen.lock().unwrap().messages.len();
    client.send(b"new").await.unwrap();
    keeper.until(|seen| seen.messages.len() > before).await;
    keeper.take(1, 3);
    soon(client.flush()).await.unwrap();
    assert_eq!(keeper.seen.lock().unwrap().messages.last().unwrap(), b"new");
}

#[tokio::test]
async fn a_loss_with_a_session_is_reported_by_the_next_flush_if_none_waited() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Leave).await;
    let client = connect(&keeper, options()).await;
    client.send(&message(0)).await.unwrap();
    keeper.until_messages(1).await;
    keeper.restart();
    until_gone(&client).await;
    until(&client, |event| matches!(event, Event::Reconnected { .. })).await;
    let error = soon(client.flush()).await.unwrap_err();
    assert_eq!(error, FlushError::NotResumed { unacknowledged: 1 });
    assert!(error.to_string().contains("1 messages"), "{error}");
    soon(client.flush()).await.unwrap();
}

#[tokio::test]
async fn a_close_resumes_the_session_to_deliver_what_was_accepted() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Take).await;
    let client = connect(&keeper, options()).await;
    lose(&keeper, &client).await;
    (0..30).for_each(|number| client.try_send(&message(number)).unwrap());
    let closing = client.close(CloseReason::Done);
    let mut closing = pin!(closing);
    assert_eq!(now(&mut closing).await, None);
    until(&client, |event| matches!(event, Event::AttemptFailed(_))).await;
    assert_eq!(client.try_send(b"late"), Err(SendError::Closed));
    keeper.open();
    soon(closing).await.unwrap();
    keeper.until_messages(30).await;
    keeper.until(|seen| seen.left == [true]).await;
    let end = until(&client, |event| matches!(event, Event::Closed(_))).await;
    assert_eq!(end, Event::Closed(Ending::Finished));
}

#[tokio::test]
async fn a_close_whose_link_is_cut_goes_on_on_the_next() {
    let keeper = Keeper::start(2, LONG, Manner::Leave).await;
    let client = connect(&keeper, options()).await;
    (0..4).for_each(|number| client.try_send(&message(number)).unwrap());
    let mut closing = pin!(client.close(CloseReason::Done));
    assert_eq!(now(&mut closing).await, None);
    keeper.until_messages(2).await;
    keeper.cut();
    keeper.until(|seen| seen.resumed == 1).await;
    keeper.take(2, LEN);
    keeper.until_messages(4).await;
    keeper.cut();
    keeper.until(|seen| seen.resumed == 2).await;
    keeper.take(2, LEN);
    soon(closing).await.unwrap();
    keeper.until(|seen| seen.left == [true]).await;
}

#[tokio::test]
async fn a_close_without_a_server_gives_up_in_time_and_returns_what_is_not_delivered() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Leave).await;
    let client = connect(&keeper, options()).await;
    client.send(&message(0)).await.unwrap();
    keeper.until_messages(1).await;
    lose(&keeper, &client).await;
    client.send(&message(1)).await.unwrap();
    let clock = Clock::start();
    let closed = soon(client.close(CloseReason::Done)).await;
    assert_eq!(closed, Err(CloseError::Undelivered));
    assert!(clock.monotonic() < Span::from_secs(15), "{}", clock.monotonic());
    let (why, undelivered) = until_gone(&client).await;
    assert_eq!((why, undelivered.uncertain, undelivered.unsent), (None, 1, 1));
    assert_eq!(undelivered.messages, [message(0), message(1)]);
    assert_eq!(next(&client).await, Event::Closed(Ending::Undelivered));
}

#[tokio::test]
async fn a_close_whose_session_is_gone_says_so_and_leaves_the_new_one() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Leave).await;
    let client = connect(&keeper, options()).await;
    client.send(&message(0)).await.unwrap();
    keeper.until_messages(1).await;
    lose(&keeper, &client).await;
    let mut closing = pin!(client.close(CloseReason::Done));
    assert_eq!(now(&mut closing).await, None);
    keeper.restart();
    keeper.open();
    assert_eq!(soon(closing).await, Err(CloseError::Undelivered));
    keeper.until(|seen| seen.left == [true]).await;
    let (why, undelivered) = until_gone(&client).await;
    assert_eq!((why, undelivered.count()), (Some(NotResumed::Unknown), 1));
}

#[tokio::test]
async fn a_close_with_nothing_to_deliver_does_not_wait_for_a_link() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Take).await;
    let client = connect(&keeper, options()).await;
    client.send(&message(0)).await.unwrap();
    client.flush().await.unwrap();
    lose(&keeper, &client).await;
    soon(client.close(CloseReason::Done)).await.unwrap();
    let end = until(&client, |event| matches!(event, Event::Closed(_))).await;
    assert_eq!(end, Event::Closed(Ending::Finished));
}

#[tokio::test]
async fn a_refused_resumption_ends_the_client_and_returns_what_it_had() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Leave).await;
    let client = connect(&keeper, options()).await;
    client.send(&message(0)).await.unwrap();
    keeper.until_messages(1).await;
    keeper.refuse(CloseReason::Kicked);
    keeper.cut();
    let (why, undelivered) = until_gone(&client).await;
    assert_eq!((why, undelivered.count()), (Some(NotResumed::Refused), 1));
    let end = until(&client, |event| matches!(event, Event::Closed(_))).await;
    assert_eq!(end, Event::Closed(Ending::Stopped(Stop::Told)));
}

#[tokio::test]
async fn a_client_that_gives_up_returns_what_it_had() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Leave).await;
    let mut options = options();
    let backoff = Backoff::new(ms(1), ms(2), ms(10_000)).unwrap();
    options.reconnect = Some(backoff.with_attempts(3));
    let client = connect(&keeper, options).await;
    client.send(&message(0)).await.unwrap();
    keeper.until_messages(1).await;
    keeper.shut();
    let (why, undelivered) = until_gone(&client).await;
    assert_eq!((why, undelivered.messages), (None, vec![message(0)]));
    assert_eq!(next(&client).await, Event::Closed(Ending::Stopped(Stop::Exhausted)));
}

#[tokio::test]
async fn who_does_not_reconnect_and_who_is_told_to_stay_away_has_a_loss_as_ever() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Leave).await;
    let mut without = options();
    without.reconnect = None;
    let client = connect(&keeper, without).await;
    keeper.cut();
    assert!(matches!(next(&client).await, Event::Lost { .. }));
    assert_eq!(next(&client).await, Event::Closed(Ending::NotReconnecting));
    let client = connect(&keeper, options()).await;
    keeper.close(Goodbye { stay_away: true, ..CloseReason::Kicked.into() });
    assert!(matches!(next(&client).await, Event::Lost { farewell: Some(_), .. }));
    assert_eq!(next(&client).await, Event::Closed(Ending::Stopped(Stop::Told)));
}

#[tokio::test]
async fn without_a_resume_window_a_loss_is_as_ever() {
    let keeper = Keeper::start(WINDOW, Span::ZERO, Manner::Take).await;
    let client = connect(&keeper, options()).await;
    keeper.cut();
    assert!(matches!(next(&client).await, Event::Lost { .. }));
    until(&client, |event| matches!(event, Event::Reconnected { .. })).await;
}

#[tokio::test]
async fn a_policy_and_heartbeat_data_of_the_time_without_a_link_are_in_force_after_it() {
    let keeper = Keeper::start(WINDOW, LONG, Manner::Take).await;
    let client = connect(&keeper, options()).await;
    lose(&keeper, &client).await;
    let policy = Policy::new(ms(200_000), ms(2_000), 3).unwrap();
    client.ask_policy(policy).await.unwrap();
    client.set_heartbeat_data(b"new").await.unwrap();
    keeper.open();
    until(&client, is_resumed).await;
    let is_retuned = |event: &Event| {
        let Event::Session(systole_client::session::Event::Retuned(granted)) = event else {
            return false;
        };
        granted.detection() == policy.detection()
    };
    until(&client, is_retuned).await;
}

#[tokio::test]
async fn canceled_calls_lose_and_double_nothing_while_links_break() {
    let keeper = Keeper::start(4, LONG, Manner::Take).await;
    let mut options = options();
    options.send_queue = QUEUE * (LEN + 8);
    let client = connect(&keeper, options).await;
    let (mut sent, mut canceled) = (0, 0);
    while sent < 200 {
        if sent % 40 == 20 {
            keeper.cut();
        }
        match now(client.send(&message(sent))).await {
            Some(accepted) => {
                accepted.unwrap();
                sent += 1;
            }
            None => {
                canceled += 1;
                assert!(now(client.flush()).await.is_none_or(|flushed| flushed.is_ok()));
                assert!(now(client.next_event()).await.is_none_or(|event| event.is_some()));
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(canceled > 0);
    soon(client.flush()).await.unwrap();
    keeper.until_messages(200).await;
}

#[tokio::test]
async fn messages_cross_hundreds_of_cuts_each_once_and_in_order() {
    let (cuts, seed) = (relay::cuts(), relay::seed());
    let keeper = Keeper::start(32, LONG, Manner::Echo).await;
    let relay = Relay::start(keeper.address, cuts, seed).await;
    let clock = Clock::start();
    // The first handshake may be cut too.
    let client = Client::start(relay.address, options()).unwrap();
    until(&client, |event| matches!(event, Event::Connected { .. })).await;
    let resumed = relay.cross(&client, cuts, seed).await;
    client.close(CloseReason::Done).await.unwrap();
    println!("{cuts} cuts, {resumed} resumptions, in {}", clock.monotonic());
    assert!(resumed > cuts / 4, "{resumed}");
    keeper.until(|seen| seen.left.iter().filter(|done| **done).count() == 1).await;
}
