//! Names with several addresses, over real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use systole_core::Policy;
use systole_core::link::Goodbye;
use systole_core::wire::{Close, CloseReason, Codec, Frame, Welcome};
use systole_net::listener;
use systole_net::transport::Layer;

use super::*;

/// Far beyond what a busy machine needs.
const SOON: Span = Span::from_secs(20);

fn options(codec: Codec) -> Options {
    Options { codec, report_accepted: true, ..Options::default() }
}

async fn open(
    dialer: &mut Dialer,
    addresses: &[SocketAddr],
    options: &Options,
) -> (Result<Connection<Layer>, ConnectError>, Vec<SocketAddr>) {
    let params = LinkParams {
        options: options.clone(),
        host: "127.0.0.1".into(),
        introduction: Introduction::default(),
        past: None,
        old_flow: None,
        server: None,
        boot_id: BootId::default(),
        instance_id: InstanceId::default(),
        link_number: 1,
        attempt: 0,
        seed: 1,
    };
    let shared = Shared::new(options.codec, 1 << 16);
    let mut clock = LoopClock::start();
    let opened = dialer
        .open_one_of(addresses, (&params, SOON), &mut Resuming::default(), &mut clock, &shared)
        .await;
    let mut accepted = Vec::new();
    shared.close();
    while let Some(event) = shared.next_event().await {
        if let Event::Accepted { address } = event {
            accepted.push(address);
        }
    }
    (opened, accepted)
}

fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Accepts one connection, answers with `frame` after the first bytes, and reads to the end.
fn answer(listener: TcpListener, frame: Option<Frame<'static>>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut heard = vec![0; 1_024];
        let count = stream.read(&mut heard).unwrap();
        heard.truncate(count);
        if let Some(frame) = frame {
            let mut bytes = Vec::new();
            Codec::Native.encode(&frame, &mut bytes);
            stream.write_all(&bytes).unwrap();
        }
        stream.read_to_end(&mut heard).unwrap();
        heard
    })
}

fn welcome() -> Frame<'static> {
    Frame::Welcome(Welcome {
        resumption: systole_core::wire::Resumption::NotAsked,
        windows: None,
        boot_id: BootId::default(),
        instance_id: InstanceId::default(),
        session: 7,
        epoch: 1,
        received: 0,
        server_time_ms: 0,
        resume_window_ms: 0,
        largest_data: 1_024,
        policy: Policy::standard(),
        resume_token: &[],
    })
}

#[tokio::test]
async fn addresses_that_accept_nothing_do_not_stop_the_others() {
    // A listener with a full queue is silent; a closed port refuses.
    let silent = listener::bind("127.0.0.1:0".parse().unwrap(), 0, false).unwrap();
    let silent_address = silent.local_addr().unwrap();
    let mut filling = Vec::new();
    let limit = Duration::from_millis(300);
    while let Ok(stream) = StdStream::connect_timeout(&silent_address, limit) {
        filling.push(stream);
    }
    let refusing = bind().1;
    let (_good, good_address) = bind();
    let options = options(Codec::Line);
    let mut dialer = Dialer::new(String::new(), &options);
    let all = [silent_address, refusing, good_address];
    for _ in 0..2 {
        let (opened, accepted) = open(&mut dialer, &all, &options).await;
        assert!(opened.is_ok());
        assert_eq!(accepted, [good_address]);
    }
}

#[tokio::test]
async fn an_address_that_accepts_and_does_not_answer_gives_way() {
    let ((mute, mute_address), (good, good_address)) = (bind(), bind());
    let (mute, good) = (answer(mute, None), answer(good, Some(welcome())));
    let mut options = options(Codec::Native);
    options.handshake_timeout = Duration::from_millis(600);
    let mut dialer = Dialer::new(String::new(), &options);
    let (opened, accepted) = open(&mut dialer, &[mute_address, good_address], &options).await;
    assert!(opened.is_ok());
    assert_eq!(accepted, [mute_address, good_address]);
    let heard = mute.join().unwrap();
    let mut close = Vec::new();
    let reason = CloseReason::Silent;
    let frame = Close { reason, final_: false, return_after_ms: 0, text: "" };
    Codec::Native.encode(&Frame::Close(frame), &mut close);
    assert!(heard.ends_with(&close), "the loser is told, and closed: {heard:?}");
    drop(opened);
    good.join().unwrap();
}

#[tokio::test]
async fn a_refusal_for_good_is_final_for_all_addresses() {
    let ((refusing, refusing_address), (other, other_address)) = (bind(), bind());
    let close = Close { reason: CloseReason::Kicked, final_: true, return_after_ms: 0, text: "" };
    let refusing = answer(refusing, Some(Frame::Close(close)));
    let options = options(Codec::Native);
    let mut dialer = Dialer::new(String::new(), &options);
    let (opened, _) = open(&mut dialer, &[refusing_address, other_address], &options).await;
    let error = opened.err().unwrap();
    let reason = CloseReason::Kicked;
    let farewell = Goodbye { reason, stay_away: true, return_after: Span::ZERO };
    assert_eq!(error.farewell(), Some(farewell));
    assert!(!error.is_retryable());
    refusing.join().unwrap();
    other.set_nonblocking(true).unwrap();
    let accepted = other.accept().map(|_| ());
    assert_eq!(accepted.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
}

#[tokio::test]
async fn the_error_of_a_round_says_what_came_back() {
    let (server, address) = bind();
    let http = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        assert!(stream.read(&mut [0; 1_024]).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let options = options(Codec::Native);
    let mut dialer = Dialer::new(String::new(), &options);
    let refusing = bind().1;
    let (opened, _) = open(&mut dialer, &[address, refusing], &options).await;
    let error = opened.err().unwrap();
    let ConnectError::Handshake { answer, .. } = &error else { panic!("{error}") };
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    http.join().unwrap();
}
