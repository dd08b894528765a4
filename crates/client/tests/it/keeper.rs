//! Test server that keeps sessions without a link: the hub of the core behind a real socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use systole_core::driver::Driver;
use systole_core::home::Homes;
use systole_core::hub::{
    self, AWAY_SESSIONS, Answer, FRAME_MEMORY, Hub, Login, Output, WINDOW_MEMORY, World,
};
use systole_core::link::{self, Command, Goodbye, Limits, Side, Takes, WhenFull, Windows};
use systole_core::random::Random;
use systole_core::resume::{Digest, Fresh, Token};
use systole_core::session::Event;
use systole_core::wire::{CloseReason, Codec, DataKind};
use systole_core::{Policy, Span, Time, window};
use systole_net::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::soon;

/// How often the deadlines of the hub are looked at.
const TICK: Duration = Duration::from_millis(10);

/// What a keeper does with the messages that arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes and sends back each.
    Echo,
    /// Takes each.
    Take,
    /// Takes none, until the test says so.
    Leave,
}

/// What a test asks of the keeper.
#[derive(Debug)]
enum Ask {
    /// Break all connections; the hub hears of it or not.
    Cut { noticed: bool },
    /// Close connections as soon as they are accepted, or no longer.
    Shut(bool),
    /// Forget all sessions, as a new process does, and break all connections.
    Restart,
    /// Answer the wish to resume with a refusal from now on.
    Refuse(CloseReason),
    /// Send on the newest session.
    Send(Vec<u8>),
    /// Take messages of this length on the newest session.
    Take(usize, usize),
    /// Close the newest session.
    Close(Goodbye),
}

/// What has happened so far.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) joined: usize,
    pub(crate) resumed: usize,
    /// The messages that were sent again to a client, of all resumptions.
    pub(crate) redelivered: u32,
    /// The sessions that have ended, and whether the client has closed them.
    pub(crate) left: Vec<bool>,
}

/// A running test server.
pub(crate) struct Keeper {
    pub(crate) address: SocketAddr,
    asks: UnboundedSender<Ask>,
    pub(crate) seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Starts a server with a window of so many messages and 64 KiB, which keeps sessions so long.
    pub(crate) async fn start(messages: u32, outlives: Span, manner: Manner) -> Keeper {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (asks, to_do) = mpsc::unbounded_channel();
        let seen = Arc::<Mutex<Seen>>::default();
        let takes = if manner == Manner::Leave { Takes::ByCommand } else { Takes::AtOnce };
        let limits = window::Limits { messages, bytes: 64 << 10 };
        let windows = Windows { outlives, full: WhenFull::End, ..Windows::new(limits, takes) };
        let (heard, inbox) = mpsc::unbounded_channel();
        let loop_ = Loop {
            hub: new_hub(windows, 1),
            windows,
            clock: Clock::start(),
            random: Random::new(7),
            connections: BTreeMap::new(),
            partial: BTreeMap::new(),
            opened: 0,
            epoch: 0,
            newest: 0,
            refuses: None,
            shut: false,
            manner,
            heard,
            seen: Arc::clone(&seen),
        };
        let task = tokio::spawn(loop_.run(listener, inbox, to_do));
        Keeper { address, asks, seen, task }
    }

    fn ask(&self, ask: Ask) {
        self.asks.send(ask).expect("the server runs");
    }

    pub(crate) fn cut(&self) {
        self.ask(Ask::Cut { noticed: true });
    }

    pub(crate) fn cut_unnoticed(&self) {
        self.ask(Ask::Cut { noticed: false });
    }

    /// Breaks all connections, and lets no other one come.
    pub(crate) fn shut(&self) {
        self.ask(Ask::Shut(true));
        self.cut();
    }

    pub(crate) fn open(&self) {
        self.ask(Ask::Shut(false));
    }

    pub(crate) fn restart(&self) {
        self.ask(Ask::Restart);
    }

    pub(crate) fn refuse(&self, reason: CloseReason) {
        self.ask(Ask::Refuse(reason));
    }

    pub(crate) fn send(&self, message: &[u8]) {
        self.ask(Ask::Send(message.to_vec()));
    }

    pub(crate) fn take(&self, count: usize, length: usize) {
        self.ask(Ask::Take(count, length));
    }

    pub(crate) fn close(&self, goodbye: Goodbye) {
        self.ask(Ask::Close(goodbye));
    }

    /// Waits until `wanted` holds.
    pub(crate) async fn until(&self, wanted: impl Fn(&Seen) -> bool) {
        soon(async {
            while !wanted(&self.seen.lock().expect("no panic while it is held")) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

fn new_hub(windows: Windows, seed: u64) -> Driver<Hub> {
    let native = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
    let limits = Limits { shortest_bound: Span::from_millis(10), ..Limits::default() };
    let settings = hub::Settings {
        shard: 0,
        homes: Homes { shards: 1, key: 7 },
        listeners: vec![link::Settings { window: Some(windows), limits, ..native }],
        seed,
        frame_memory: FRAME_MEMORY,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    };
    Driver::new(Time::ZERO, Hub::new(settings))
}

/// What a connection has read; `None` at its end.
type Heard = (u32, Option<Vec<u8>>);

/// Where the bytes to a client go, and the tasks that read and write.
type Tasks = (UnboundedSender<Vec<u8>>, [JoinHandle<()>; 2]);

struct Loop {
    hub: Driver<Hub>,
    windows: Windows,
    clock: Clock,
    random: Random,
    connections: BTreeMap<u32, Tasks>,
    partial: BTreeMap<u32, Vec<u8>>,
    opened: u32,
    epoch: u64,
    newest: u64,
    refuses: Option<CloseReason>,
    shut: bool,
    manner: Manner,
    heard: UnboundedSender<Heard>,
    seen: Arc<Mutex<Seen>>,
}

/// What the hub has asked, or what the shell does about an output.
enum Todo {
    Admit(u32, u32),
    Own(u64),
    Resume(u32, u32),
    Echo(u64, Vec<u8>),
}

impl Loop {
    async fn run(
        mut self,
        listener: TcpListener,
        mut inbox: UnboundedReceiver<Heard>,
        mut asks: UnboundedReceiver<Ask>,
    ) {
        loop {
            tokio::select! {
                biased;
                ask = asks.recv() => match ask {
                    Some(ask) => self.carry_out(ask),
                    None => return,
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if self.shut => drop(stream),
                    Ok((stream, address)) => self.accept(stream, address),
                    Err(_) => {}
                },
                Some((link, bytes)) = inbox.recv() => {
                    let input = match &bytes {
                        Some(bytes) => link::World::Received(bytes),
                        None => link::World::Ended,
                    };
                    self.handle(World::Link { link, input });
                }
                () = tokio::time::sleep(TICK) => {}
            }
            let now = self.now();
            self.hub.expire(now, now);
            self.poll();
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.clock.monotonic()
    }

    fn accept(&mut self, stream: TcpStream, address: SocketAddr) {
        self.opened += 1;
        let link = self.opened;
        stream.set_nodelay(true).expect("a TCP socket");
        let (from, to) = stream.into_split();
        let (queue, queued) = mpsc::unbounded_channel();
        let reading = tokio::spawn(read(link, from, self.heard.clone()));
        let writing = tokio::spawn(write(to, queued));
        self.connections.insert(link, (queue, [reading, writing]));
        self.handle(World::Opened { link, listener: 0, address });
    }

    fn carry_out(&mut self, ask: Ask) {
        let session = self.newest;
        match ask {
            Ask::Cut { noticed } => self.cut(noticed),
            Ask::Shut(shut) => self.shut = shut,
            Ask::Restart => {
                self.cut(false);
                self.clock = Clock::start();
                self.hub = new_hub(self.windows, self.random.next_u64());
            }
            Ask::Refuse(reason) => self.refuses = Some(reason),
            Ask::Send(bytes) => {
                let kind = DataKind::default();
                let command = Command::Send { bytes: &bytes, more: false, kind };
                self.handle(World::Session { session, command });
            }
            Ask::Take(count, length) => {
                for _ in 0..count {
                    let command = Command::Taken { length };
                    self.handle(World::Session { session, command });
                }
            }
            Ask::Close(goodbye) => {
                let command = Command::close(goodbye);
                self.handle(World::Session { session, command });
            }
        }
    }

    fn cut(&mut self, noticed: bool) {
        for (link, (_, tasks)) in std::mem::take(&mut self.connections) {
            tasks.iter().for_each(JoinHandle::abort);
            if noticed {
                self.handle(World::Link { link, input: link::World::Ended });
            }
        }
    }

    fn handle<'a>(&mut self, input: impl Into<hub::Input<'a>>) {
        let now = self.now();
        self.hub.handle(now, input);
        self.poll();
    }

    fn poll(&mut self) {
        let mut todo = Vec::new();
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Admit { link, admission } => todo.push(Todo::Admit(link, admission)),
                Output::Own { session, .. } => todo.push(Todo::Own(session)),
                Output::Resume { link, admission, .. } => {
                    todo.push(Todo::Resume(link, admission));
                }
                Output::Session { event, .. } => note(&self.seen, &event),
                Output::GoHome { .. } | Output::HandedOver { .. } => {}
                Output::Link { link, output } => match output {
                    link::Output::Transmit { bytes, .. } => {
                        if let Some((queue, _)) = self.connections.get(&link) {
                            let _ = queue.send(bytes.to_vec());
                        }
                    }
                    link::Output::Event(link::Event::Established { session, .. }) => {
                        self.newest = session;
                        self.partial.remove(&link);
                    }
                    link::Output::Event(link::Event::Data { bytes, more, .. }) => {
                        let partial = self.partial.entry(link).or_default();
                        partial.extend_from_slice(bytes);
                        if !more {
                            let message = std::mem::take(partial);
                            todo.push(Todo::Echo(self.newest, message));
                        }
                    }
                    link::Output::Session(event) => note(&self.seen, &event),
                    link::Output::Close(_) => {
                        // The tasks write what is queued, and end.
                        self.connections.remove(&link);
                    }
                    link::Output::Event(_)
                    | link::Output::Examine { .. }
                    | link::Output::Patience(_)
                    | link::Output::Admit => {}
                },
            }
        }
        todo.into_iter().for_each(|todo| self.answer(todo));
    }

    fn answer(&mut self, todo: Todo) {
        let mut token = [0; 16];
        token[..8].copy_from_slice(&self.random.next_u64().to_le_bytes());
        let fresh = Fresh { token: Token(token), digest: digest(&token) };
        match todo {
            Todo::Admit(link, admission) => {
                let login = Login::claim(self.clock.monotonic());
                self.handle(World::Identified { link, admission, login });
            }
            Todo::Own(session) => {
                self.epoch += 1;
                let epoch = self.epoch;
                self.handle(Answer::Owned { session, epoch, fresh: Some(fresh) });
            }
            Todo::Resume(link, admission) => match self.refuses {
                Some(reason) => {
                    let denied = Goodbye { stay_away: true, ..reason.into() }.into();
                    self.handle(World::Refused { link, admission, denied });
                }
                None => {
                    let shown = digest(self.hub.machine().shown(link));
                    self.handle(Answer::Resumed { link, admission, shown, fresh });
                }
            },
            Todo::Echo(session, message) => {
                if self.manner == Manner::Echo {
                    let kind = DataKind::default();
                    let command = Command::Send { bytes: &message, more: false, kind };
                    self.handle(World::Session { session, command });
                }
                self.seen.lock().expect("no panic while it is held").messages.push(message);
            }
        }
    }
}

/// Stands for the SHA-256 of a gateway.
fn digest(token: &[u8]) -> Digest {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(token).for_each(|(to, byte)| *to = !byte);
    Digest(bytes)
}

fn note(seen: &Mutex<Seen>, event: &Event) {
    let mut seen = seen.lock().expect("no panic while it is held");
    if let Event::Joined { .. } = event {
        seen.joined += 1;
    }
    if let Event::Resumed { redelivered, .. } = event {
        seen.resumed += 1;
        seen.redelivered += redelivered;
    }
    if let Event::Left(verdict) = event {
        let done = systole_core::cause::Cause::PeerClosed(CloseReason::Done);
        seen.left.push(verdict.cause == done);
    }
}

async fn read(link: u32, mut from: OwnedReadHalf, heard: UnboundedSender<Heard>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let _ = heard.send((link, Some(buffer[..count].to_vec())));
    }
    let _ = heard.send((link, None));
}

async fn write(mut to: OwnedWriteHalf, mut queued: UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = queued.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
