//! One link: its socket, its machine, and what stands between them.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use socket2::SockRef;
use systole_core::kernel::{Examination, SocketError};
use systole_core::link::{
    Closing, Command as Order, Event as Told, Goodbye, Input, Output, SessionKey, Settings, Side,
};
use systole_core::wire::outbox::Outbox;
use systole_core::wire::{CloseReason, DataKind};
use systole_core::witness::{Hearing, Past};
use systole_core::{Link, Machine, Span, Time};
use systole_net::examine::{examine, outlived, socket_error};
use systole_net::socket_options::{self, SocketOptions};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::dial::{Plan, connect, register_anew};
use crate::loop_clock::{LoopClock, OPEN_ENDED};
use crate::news::{News, Stage};
use crate::shared::{Request, Shared};
use crate::wishes::Wishes;
use crate::{ConnectError, Event};

/// What one read takes; small, because a process may run thousands of clients.
const READ: usize = 16 * 1024;

/// Reads in one turn, so that a fast server cannot keep heartbeats and commands from their turn.
const READS: usize = 16;

/// How long a goodbye may take to leave, and the peer to close in turn.
const LINGER: Duration = Duration::from_secs(2);

/// A hold without an end; it is released by hand.
const WITHOUT_END: Span = Span::from_secs(1 << 32);

/// How a link ended.
pub(crate) enum End {
    /// The application closed it.
    Finished,
    /// It was lost; what the gateway said about coming back.
    Lost(Option<Goodbye>),
}

/// What woke a connection.
enum Wake {
    Time,
    Socket,
    /// The socket holds an error.
    Trouble,
    Room,
    Request(Option<Request>),
}

/// One link.
pub(crate) struct Connection {
    stream: TcpStream,
    link: Link,
    outbox: Outbox,
    buffer: Box<[u8]>,
    news: News,
    closing: Closing,
    number: u64,
    /// What the messages in the outbox took off the queue and have not given back.
    owed: usize,
    socket_options: SocketOptions,
    hearing: Hearing,
    /// The system ended the connection because its own network changed.
    network_changed: bool,
    paused: bool,
    /// The server has closed its side.
    ended: bool,
    finishing: bool,
}

impl Connection {
    /// Connects and completes the handshake.
    pub(crate) async fn open(
        plan: Plan,
        clock: &mut LoopClock,
        shared: &Shared,
    ) -> Result<Connection, ConnectError> {
        let stream = connect(&plan.addr, plan.options.connect_timeout).await?;
        let now = clock.turn(OPEN_ENDED);
        let mut connection = Connection::new(plan, stream, now, clock, shared);
        // Nobody commands a link that does not stand; the sender is kept so that nobody ends it.
        let (_kept, mut nobody) = mpsc::channel(1);
        loop {
            connection.carry_out(clock.now(), shared);
            match connection.news.stage {
                Stage::Greeting => connection.turn(clock, &mut nobody, shared).await,
                Stage::Established | Stage::Lost(_) => return Ok(connection),
                Stage::Refused(error) => return Err(error),
            };
        }
    }

    fn new(
        plan: Plan,
        stream: TcpStream,
        now: Time,
        clock: &LoopClock,
        shared: &Shared,
    ) -> Connection {
        let Plan {
            options, mut introduction, past, boot_id, instance_id, link, attempt, seed, ..
        } = plan;
        introduction.account = past.map(|past| past.account(clock.boottime(), clock.absences()));
        let policy = introduction.asks.unwrap_or_default();
        let settings = Settings {
            handshake_timeout: options.handshake_timeout.into(),
            boot_id,
            instance_id,
            wall_origin_ms: clock.wall_origin_ms(),
            report_heartbeats: options.report_heartbeats,
            examines: true,
            hung: options.hung,
            ..Settings::new(options.codec, Side::Connecting(introduction), policy)
        };
        let socket_options = SocketOptions::new(&policy, None);
        // What this system lacks it goes on without; the machine keeps the bound by itself.
        let _ = socket_options::apply(&socket_options, &stream);
        Connection {
            stream,
            link: Link::new(now, settings, SessionKey::default(), seed),
            outbox: Outbox::new(shared.queue_len()),
            buffer: vec![0; READ].into(),
            news: News::new(link, attempt, &options),
            closing: Closing::Abort,
            number: link,
            owed: 0,
            socket_options,
            hearing: Hearing::new(now, &policy),
            network_changed: false,
            paused: false,
            ended: false,
            finishing: false,
        }
    }

    /// Drives the link to its end.
    pub(crate) async fn serve(
        mut self,
        clock: &mut LoopClock,
        commands: &mut mpsc::Receiver<Request>,
        wishes: &mut Wishes,
        shared: &Shared,
    ) -> End {
        let data = Order::HeartbeatData(&wishes.heartbeat_data);
        self.link.handle(clock.now(), Input::Command(data));
        if let Some(past) = wishes.past.take()
            && let Some((to, confidence)) = self.link.peer_ids().and_then(|ids| past.returned(ids))
        {
            shared.tell(Event::Revised { from: past.cause, to, confidence });
        }
        loop {
            self.carry_out(clock.now(), shared);
            if let Stage::Lost(farewell) = self.news.stage {
                wishes.past = self.past(clock);
                self.leave(shared).await;
                return if self.finishing { End::Finished } else { End::Lost(farewell) };
            }
            if let Some(command) = self.turn(clock, commands, shared).await {
                self.obey(clock.now(), command, wishes, shared);
            }
        }
    }

    /// Waits for something to happen and hands it to the machine; a command is handed back.
    async fn turn(
        &mut self,
        clock: &mut LoopClock,
        commands: &mut mpsc::Receiver<Request>,
        shared: &Shared,
    ) -> Option<Option<Request>> {
        self.pause(clock.now(), shared);
        let planned = self.link.next_deadline().map(|deadline| deadline.at.since(clock.now()));
        let wake = self.wait(planned, commands, shared).await;
        let now = clock.turn(planned.unwrap_or(OPEN_ENDED));
        self.pause(now, shared);
        match wake {
            Wake::Request(command) => return Some(command),
            Wake::Socket => self.read(now, shared),
            Wake::Trouble => self.hear_trouble(now, shared),
            Wake::Time | Wake::Room => {}
        }
        if self.link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
            self.judge(now, clock, shared);
        }
        None
    }

    async fn wait(
        &self,
        planned: Option<Span>,
        commands: &mut mpsc::Receiver<Request>,
        shared: &Shared,
    ) -> Wake {
        let time = async {
            match planned {
                Some(planned) => tokio::time::sleep(planned.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.stream.readable(), if self.listens() => Wake::Socket,
            _ = self.stream.ready(Interest::ERROR), if !self.paused => Wake::Trouble,
            _ = self.stream.writable(), if !self.outbox.is_empty() => Wake::Socket,
            command = commands.recv() => Wake::Request(command),
            () = shared.taken(), if self.paused => Wake::Room,
            () = time => Wake::Time,
        }
    }

    /// A deadline has come. Silence is judged only after all was read that the kernel holds, asked
    /// for directly: the runtime may not have had the time yet to notice that something is there.
    fn judge(&mut self, now: Time, clock: &mut LoopClock, shared: &Shared) {
        if self.listens() {
            let read = (&*SockRef::from(&self.stream)).read(&mut self.buffer);
            self.received(now, read, shared);
        }
        if self.ended
            && let Some(error) = self.stream.take_error().unwrap_or_else(Some)
        {
            self.received(now, Err(error), shared);
        }
        clock.drained();
        if self.link.next_deadline().is_some_and(|deadline| deadline.at <= clock.horizon()) {
            self.link.handle(now, Input::Deadline);
        }
    }

    fn read(&mut self, now: Time, shared: &Shared) {
        for _ in 0..READS {
            if !self.listens() {
                return;
            }
            let read = self.stream.try_read(&mut self.buffer);
            if !self.received(now, read, shared) {
                return;
            }
            self.pause(now, shared);
        }
    }

    /// Whether bytes may be read: a stream that has ended would be readable for ever.
    fn listens(&self) -> bool {
        !self.paused && !self.ended
    }

    /// The socket holds an error: of a router, which does not end it, or of a server that takes
    /// nothing any more, which a stream that has ended does not tell whoever reads it.
    fn hear_trouble(&mut self, now: Time, shared: &Shared) {
        self.read(now, shared);
        let take = || match self.stream.take_error() {
            Ok(None) => Err(ErrorKind::WouldBlock.into()),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        // That there is none any more is told to the runtime, too, which else would wake us again.
        let taken: io::Result<()> = self.stream.try_io(Interest::ERROR, take);
        if !self.is_over() && taken.is_err() {
            self.received(now, taken.map(|()| 0), shared);
        }
    }

    /// Hands over what a read returned; false if there is no point in reading on.
    fn received(&mut self, now: Time, read: io::Result<usize>, shared: &Shared) -> bool {
        if let Ok(1..) = read {
            self.hearing.heard(now);
        }
        self.notice(read.as_ref().err());
        self.ended |= matches!(read, Ok(0));
        let input = match &read {
            Ok(0) => Input::Ended,
            Ok(n) => Input::Received(self.buffer.get(..*n).unwrap_or_default()),
            Err(error) if outlived(error, &self.stream) => {
                self.outlive();
                Input::Warned(socket_error(error))
            }
            Err(error) => match failure(error) {
                Some(failure) => Input::Failed(failure),
                None => return false,
            },
        };
        self.link.handle(now, input);
        self.carry_out(now, shared);
        matches!(read, Ok(1..))
    }

    /// Stops reading while the application does not take its messages, and starts again. Silence
    /// that we did not listen to is not held against the server.
    fn pause(&mut self, now: Time, shared: &Shared) {
        let full = self.news.stage == Stage::Established && shared.is_full();
        if full != self.paused {
            self.paused = full;
            let order = if full { Order::Hold(WITHOUT_END) } else { Order::Release };
            self.link.handle(now, Input::Command(order));
        }
    }

    fn obey(&mut self, now: Time, command: Option<Request>, wishes: &mut Wishes, shared: &Shared) {
        match command {
            Some(Request::Send { cost, link, .. }) if link != self.number => shared.release(cost),
            Some(Request::Send { bytes, cost, .. }) => {
                self.owed += cost;
                let kind = DataKind::default();
                let order = Order::Send { bytes: &bytes, more: false, kind };
                self.link.handle(now, Input::Command(order));
            }
            Some(Request::HeartbeatData(bytes)) => {
                self.link.handle(now, Input::Command(Order::HeartbeatData(&bytes)));
                wishes.heartbeat_data = bytes;
            }
            Some(Request::AskPolicy(policy)) => {
                wishes.policy = Some(policy);
                self.link.handle(now, Input::Command(Order::Retune(policy)));
            }
            Some(Request::Close(reason)) => self.finish(now, reason),
            None => self.finish(now, CloseReason::Done),
        }
    }

    fn finish(&mut self, now: Time, reason: CloseReason) {
        self.finishing = true;
        self.link.handle(now, Input::Command(Order::Close(reason.into())));
    }

    /// What the next link tells of this one; nothing in codecs without sessions.
    fn past(&mut self, clock: &LoopClock) -> Option<Past> {
        let (session, now) = (self.news.session, clock.now());
        let bound = self.link.policy().bound().unwrap_or_default();
        let verdict = self.news.verdict?;
        (session != 0).then_some(Past {
            session,
            ids: self.link.peer_ids()?,
            cause: verdict.cause,
            saw: Past::saw(verdict.cause, self.network_changed),
            unheard: verdict.at.since(verdict.last_heard),
            silent: self.hearing.longest_silence(now),
            ended: now,
            ended_at: clock.boottime(),
            bound,
        })
    }

    /// A router's word, and no end: reading it has taken it off the socket, but not from the
    /// runtime, to which a socket that ever held an error is ready for ever.
    fn outlive(&mut self) {
        if let Ok(stream) = register_anew(&self.stream) {
            self.stream = stream;
        }
    }

    /// ECONNABORTED is no reset by anybody: systems abort connections when their network changes.
    fn notice(&mut self, error: Option<&io::Error>) {
        self.network_changed |=
            error.is_some_and(|error| error.kind() == ErrorKind::ConnectionAborted);
    }

    /// Carries out what the machine wants, and writes what the socket takes.
    fn carry_out(&mut self, now: Time, shared: &Shared) {
        self.collect(now, shared);
        let mut flushed = self.flush();
        if let Err(error) = &flushed
            && outlived(error, &self.stream)
        {
            self.outlive();
            self.link.handle(now, Input::Warned(socket_error(error)));
            flushed = self.flush();
        }
        if let Err(error) = flushed {
            self.notice(Some(&error));
            self.hear_last_words(now, shared);
            self.link.handle(now, Input::Failed(failure(&error).unwrap_or(SocketError::Local)));
            self.collect(now, shared);
        }
        let held = self.outbox.held();
        shared.release(self.owed.saturating_sub(held));
        self.owed = self.owed.min(held);
    }

    /// The socket takes nothing any more. What the server said last may still be there to be read:
    /// a goodbye, above all.
    fn hear_last_words(&mut self, now: Time, shared: &Shared) {
        for _ in 0..READS {
            let Ok(n @ 1..) = (&*SockRef::from(&self.stream)).read(&mut self.buffer) else {
                return;
            };
            self.link.handle(now, Input::Received(self.buffer.get(..n).unwrap_or_default()));
            self.collect(now, shared);
        }
    }

    /// Takes what the machine has to say: bytes to the outbox, news to the application.
    fn collect(&mut self, now: Time, shared: &Shared) {
        // Known before it is told that the link stands.
        shared.cut_into(self.link.piece());
        loop {
            let (mut overflowed, mut look) = (false, false);
            while let Some(output) = self.link.poll_output() {
                match output {
                    Output::Transmit { bytes, lane } => {
                        overflowed |= self.outbox.push(lane, bytes).is_err();
                    }
                    Output::Examine => look = true,
                    Output::Event(event) => {
                        if let Told::Established { policy, .. } | Told::Retuned(policy) = event {
                            self.socket_options = SocketOptions::new(&policy, None);
                            self.hearing = Hearing::new(now, &policy);
                            let _ = socket_options::apply(&self.socket_options, &self.stream);
                        }
                        self.news.hear(event, shared);
                    }
                    Output::Close(closing) => self.closing = closing,
                }
            }
            if look {
                let examination = self.examine();
                self.link.handle(now, Input::Examined(examination));
                continue;
            }
            // A goodbye that finds no room either is left out.
            if !overflowed || self.is_over() {
                return;
            }
            self.link.handle(now, Input::Overflowed);
        }
    }

    /// Looks at the socket, and lets its timeouts follow what is seen.
    fn examine(&self) -> Examination {
        let examination = examine(&self.stream);
        if let Some(tcp) = &examination.tcp {
            // A connection that is ending takes no options, and needs none.
            let _ = socket_options::enter(
                &self.socket_options,
                socket_options::SendState::of(tcp),
                &self.stream,
            );
        }
        examination
    }

    fn is_over(&self) -> bool {
        match self.news.stage {
            Stage::Greeting | Stage::Established => false,
            Stage::Refused(_) | Stage::Lost(_) => true,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.try_write(self.outbox.front()) {
                Ok(n) => self.outbox.advance(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes the socket, after the goodbye where it is ours.
    async fn leave(&mut self, shared: &Shared) {
        match self.closing {
            Closing::Flush if self.finishing => {
                // Whether it arrived is no longer ours to know.
                let _ = tokio::time::timeout(LINGER, self.linger()).await;
            }
            Closing::Flush | Closing::Abort => {
                let _ = self.flush();
            }
        }
        shared.release(std::mem::take(&mut self.owed));
    }

    /// Sends what is queued and waits for the server to close in turn: a socket closed with unread
    /// bytes in it would reset the connection, and the goodbye with it.
    async fn linger(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            self.stream.writable().await?;
            self.flush()?;
        }
        self.stream.shutdown().await?;
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if failure(&error).is_none() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a socket's error means for the link; `None` if nothing.
fn failure(error: &io::Error) -> Option<SocketError> {
    let nothing = [ErrorKind::WouldBlock, ErrorKind::Interrupted];
    (!nothing.contains(&error.kind())).then(|| socket_error(error))
}
