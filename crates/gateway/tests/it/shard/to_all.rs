//! Tests of a message that is sent on all links.

use super::*;

/// The message. A request to a shard owns nothing, so it is static.
static MESSAGE: [u8; 30_000] = [b'x'; 30_000];

fn send_to_all(running: &Running) {
    let kind = DataKind::default();
    let command = hub::HubCommand::Send { listener: None, bytes: &MESSAGE, kind };
    running.shard.requests.send(Request::Command(command)).unwrap();
}

/// Connects a client, and waits until it is online. Returns the number of its session too.
fn join(running: &mut Running) -> (TcpStream, u64) {
    let mut client = running.connect(Codec::Line);
    client.write_all(b"ping\n").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    (client, running.join())
}

#[test]
fn of_the_receivers_of_a_message_for_all_only_the_slow_one_ends() {
    let mut running = start(Policy::default(), |setup| setup.logic = Logic::None);
    let before = join(&mut running).0;
    let (greedy, session) = join(&mut running);
    let mut honest = [before, join(&mut running).0];
    let mut line = vec![0; MESSAGE.len() + 1];
    let mut receive_all = |running: &Running| {
        send_to_all(running);
        for client in &mut honest {
            client.read_exact(&mut line).unwrap();
            assert!(line.strip_suffix(b"\n") == Some(&MESSAGE));
        }
    };
    // The kernel takes some megabytes for a client that does not read.
    let left = (0..10_000).find_map(|_| {
        receive_all(&running);
        running.reports.try_recv().ok()
    });
    let Fact { subject, event, .. } = left.expect("it takes everything");
    let Event::Left(verdict) = event else { panic!("{event:?}") };
    assert_eq!((subject.session, verdict.cause), (session, Cause::SlowConsumer));
    receive_all(&running);
    drop(greedy);
    running.stop();
}
