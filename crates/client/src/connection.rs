//! One link of a client: its socket, its link machine, and the loop that connects the two.

mod closing;
mod outputs;
mod parting;
mod reading;
mod requests;
mod window;

use std::net::SocketAddr;

use systole_core::link::departure::LEAVE_LIMIT;
use systole_core::link::{
    Closing, Command as LinkCommand, Goodbye, Settings, Side, Takes, Windows, World,
};
use systole_core::resume::NotResumed;
use systole_core::window::Limits;
use systole_core::wire::Saw;
use systole_core::witness::Hearing;
use systole_core::{Link, Machine, Span, Time, session};
use systole_net::socket_options;
use systole_net::transport::{Layer, Socket, TokioStream};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use parting::Parting;

use crate::away::Resuming;
use crate::backlog::Backlog;
use crate::begin::Begin;
use crate::carry_over::CarryOver;
use crate::dialer::LinkParams;
use crate::event_translator::{EventTranslator, Stage};
use crate::loop_clock::{LoopClock, OPEN_ENDED};
use crate::shared::{Request, Shared};
use crate::{ConnectError, Event};

/// Size of the read buffer in bytes; small, because a process may run thousands of clients.
const READ_BUFFER: usize = 16 * 1024;

/// Maximum of the server's first bytes that are kept to explain a failed handshake: enough for the
/// first line of HTTP or SSH.
const FIRST_BYTES: usize = 64;

/// Maximum number of reads per turn, so that a fast server cannot delay heartbeats and commands.
const READS_PER_TURN: usize = 16;

/// Duration of the hold while reading is paused: in effect no end, it is released explicitly.
const HOLD_UNTIL_RELEASED: Span = Span::from_secs(1 << 32);

/// The window that is offered: WELCOME says how large it is. A message counts as taken when the
/// application has received its event.
const WINDOWS: Windows = Windows::new(Limits { messages: 1, bytes: 1 }, Takes::ByCommand);

/// How a link ended.
pub(crate) enum LinkEnd {
    /// The application closed it.
    Finished,
    /// The link was lost; holds the server's CLOSE, if one arrived. The session may be away.
    Lost(Option<Goodbye>),
}

/// The event that ended a wait of the connection.
enum Wake {
    /// The time of the wait has passed.
    Deadline,
    /// The socket is readable or writable.
    Socket,
    /// The socket holds an error.
    SocketError,
    /// The mailbox may have room again.
    MailboxRoom,
    /// The application has taken messages.
    Taken,
    /// The application made a request, or dropped the client.
    Request(Option<Request>),
}

/// A connected socket with the link machine that it serves.
pub(crate) struct Connection<T = Layer> {
    socket: Socket<TokioStream, T>,
    link: Link,
    /// Maximum of data bytes that wait for the socket.
    queue_limit: usize,
    buffer: Box<[u8]>,
    translator: EventTranslator,
    closing: Closing,
    /// Number of the link with which its session began: its own, unless it has resumed one.
    link_number: u64,
    /// The number of the session that it is to resume.
    resumes: Option<u64>,
    is_resumed: bool,
    /// Number and bytes of the messages that the session to resume has kept.
    kept: (usize, usize),
    /// The beginning of a new session in place of the one that was to be resumed. Until that one is
    /// given up no further outputs are taken.
    joined: Option<session::Event>,
    /// Why the session was not resumed.
    not_resumed: Option<NotResumed>,
    /// The server's address, which the socket no longer knows once the connection has ended.
    server: Option<SocketAddr>,
    /// Queue permits taken by messages in the outbox and not yet returned.
    queued_cost: usize,
    hearing: Hearing,
    /// The system aborted the connection because its own network changed.
    network_changed: bool,
    /// Reading is paused because the mailbox is full.
    paused: bool,
    /// The application asked to close the link.
    close_requested: bool,
    /// Whether the application has sent a message on this link.
    has_sent: bool,
    backlog: Backlog,
    /// Lengths of messages that the application has taken; empty between two reports.
    taken: Vec<usize>,
    /// The close that the application asked for, until CLOSE is sent.
    parting: Option<Parting>,
    /// The longest time for the connection to end, after CLOSE.
    leave_limit: Span,
    /// The first bytes of the server, up to the end of the handshake.
    first_bytes: Vec<u8>,
}

impl<T: Begin> Connection<T> {
    /// Completes the handshake on a connected socket, within this time. A session to resume goes
    /// back unless it is resumed, also if this is canceled.
    pub(crate) async fn open(
        mut params: LinkParams,
        stream: TcpStream,
        within: Span,
        resuming: &mut Resuming,
        clock: &mut LoopClock,
        shared: &Shared,
    ) -> Result<Connection<T>, ConnectError> {
        if let (Some(old_flow), Some(past)) = (params.old_flow.take(), &mut params.past)
            && stream.peer_addr().ok() == params.server
            && old_flow.is_blocked(&stream).await
        {
            past.saw = Saw::Blocked;
        }
        clock.turn(OPEN_ENDED);
        let transport = T::begin(&params.options, &params.host)?;
        let params = (params, within);
        let mut connection = Connection::new(params, stream, transport, resuming, clock, shared);
        let attempt = Attempt { connection: &mut connection, resuming };
        attempt.connection.shake_hands(clock, shared).await?;
        drop(attempt);
        Ok(connection)
    }

    /// Drives the link until its handshake is complete.
    async fn shake_hands(
        &mut self,
        clock: &mut LoopClock,
        shared: &Shared,
    ) -> Result<(), ConnectError> {
        // No requests during the handshake. A dropped sender would read as a request to close.
        let (_sender, mut no_requests) = mpsc::channel(1);
        loop {
            self.process_outputs(clock.now(), shared);
            match &mut self.translator.stage {
                Stage::Handshaking if self.joined.is_some() => return Ok(()),
                Stage::Handshaking => self.turn(clock, &mut no_requests, shared).await,
                Stage::Established | Stage::Lost(_) => return Ok(()),
                Stage::Refused(error) => {
                    if let ConnectError::Handshake { answer, tls, .. } = error {
                        *answer = std::mem::take(&mut self.first_bytes);
                        *tls = self.socket.transport().tls_progress();
                    }
                    let error = error.clone();
                    // The server learns at once that no link comes of this.
                    self.socket.shutdown_write();
                    return Err(error);
                }
            };
        }
    }

    fn new(
        (params, within): (LinkParams, Span),
        stream: TcpStream,
        transport: T,
        resuming: &mut Resuming,
        clock: &LoopClock,
        shared: &Shared,
    ) -> Connection<T> {
        let now = clock.now();
        let LinkParams {
            options,
            mut introduction,
            past,
            boot_id,
            instance_id,
            link_number,
            attempt,
            seed,
            ..
        } = params;
        let past = past.filter(|past| past.session != 0);
        introduction.account = past.map(|past| past.account(clock.boottime(), clock.absences()));
        let policy = introduction.asks.unwrap_or_default();
        let settings = Settings {
            handshake_timeout: within,
            boot_id,
            instance_id,
            wall_origin_ms: clock.wall_origin_ms(),
            report_heartbeats: options.report_heartbeats,
            examines: true,
            hung: options.hung,
            // In the other codecs it has no effect.
            window: Some(WINDOWS),
            ..Settings::new(options.codec, Side::Connecting(introduction), policy)
        };
        let server = stream.peer_addr().ok();
        // An option that this system lacks is ignored; the machine keeps the bound without it.
        let _ = socket_options::prepare(&settings.patience, &stream);
        let session = resuming.session.take();
        let resumes = session.as_ref().map(|_| resuming.number);
        let kept = session.iter().flat_map(|session| session.unacknowledged());
        let kept = kept.fold((0, 0), |(count, bytes), message| (count + 1, bytes + message.len()));
        Connection {
            socket: Socket::new(TokioStream(stream), transport, ()),
            link: match session {
                Some(session) => Link::resume(now, settings, seed, session),
                None => Link::new(now, settings, seed),
            },
            queue_limit: shared.queue_len(),
            buffer: vec![0; READ_BUFFER].into(),
            translator: EventTranslator::new(link_number, attempt, &options),
            closing: Closing::Abort,
            link_number,
            resumes,
            is_resumed: false,
            kept,
            joined: None,
            not_resumed: None,
            server,
            queued_cost: 0,
            hearing: Hearing::new(now, &policy),
            network_changed: false,
            paused: false,
            close_requested: false,
            has_sent: false,
            backlog: Backlog::default(),
            taken: Vec::new(),
            parting: None,
            leave_limit: LEAVE_LIMIT,
            first_bytes: Vec::new(),
        }
    }

    /// Drives the link until it ends.
    pub(crate) async fn serve(
        mut self,
        clock: &mut LoopClock,
        requests: &mut mpsc::Receiver<Request>,
        carry_over: &mut CarryOver,
        shared: &Shared,
    ) -> LinkEnd {
        let data = LinkCommand::HeartbeatData(&carry_over.heartbeat_data);
        self.link.handle(clock.now(), World::Command(data));
        carry_over.server = self.server;
        if let Some(past) = carry_over.past.take()
            && let Some((to, confidence)) = self.link.peer_ids().and_then(|ids| past.returned(ids))
        {
            shared.publish(Event::Revised { from: past.cause, to, confidence });
        }
        self.take_over(clock.now(), carry_over, shared);
        loop {
            self.part(clock.now());
            self.process_outputs(clock.now(), shared);
            if let Stage::Lost(farewell) = self.translator.stage {
                carry_over.past = self.past(clock);
                carry_over.old_flow = self.old_flow(carry_over.past.as_ref());
                if self.leave_behind(carry_over) {
                    self.close(clock, shared).await;
                    carry_over.undelivered = false;
                    return LinkEnd::Lost(farewell);
                }
                let fate = self.give_up_waiting(carry_over, shared);
                let arrived = self.close(clock, shared).await && fate.sent;
                // Closing ends a client whose session could not be resumed to deliver what it had.
                let was_lost = carry_over.closing.is_some() && carry_over.undelivered;
                carry_over.undelivered =
                    was_lost || self.has_sent && !fate.acknowledged && !arrived;
                let requested = self.close_requested;
                return if requested { LinkEnd::Finished } else { LinkEnd::Lost(farewell) };
            }
            if let Some(request) = self.turn(clock, requests, shared).await {
                self.handle_request(clock.now(), request, carry_over, shared);
            }
        }
    }

    /// Takes over what was left behind: the session that this link has resumed, settings, and a
    /// request to close.
    fn take_over(&mut self, now: Time, carry_over: &mut CarryOver, shared: &Shared) {
        if let Some(event) = self.joined.take() {
            self.handle_session(now, event, shared);
            self.process_outputs(now, shared);
        }
        if self.is_resumed
            && let Some(away) = carry_over.away.take()
        {
            self.go_on(now, away, shared);
        }
        let is_new = std::mem::take(&mut carry_over.is_policy_new);
        if let Some(policy) = carry_over.policy.filter(|_| is_new) {
            // A session that is resumed keeps its policy, whatever HELLO asks for.
            self.link.handle(now, World::Command(LinkCommand::Retune(policy)));
        }
        if let Some(closing) = &carry_over.closing
            && !self.is_over()
        {
            let began = closing.began.unwrap_or(now);
            self.request_close(now, closing.reason, began, shared);
        }
    }

    /// Waits for the next event and passes it to the machine; a request is returned instead.
    async fn turn(
        &mut self,
        clock: &mut LoopClock,
        requests: &mut mpsc::Receiver<Request>,
        shared: &Shared,
    ) -> Option<Option<Request>> {
        // A server that sends without pause must leave time to the other tasks of this thread.
        tokio::task::yield_now().await;
        self.update_pause(clock.now(), shared);
        let planned = self.next_deadline().map(|at| at.since(clock.now()));
        let wake = self.wait(planned, requests, shared).await;
        let now = clock.turn(planned.unwrap_or(OPEN_ENDED));
        self.update_pause(now, shared);
        // Before anything is sent, so that the acknowledgement can ride on it.
        self.report_taken(now, shared);
        match wake {
            Wake::Request(request) => return Some(request),
            Wake::Socket => self.read(now, shared),
            Wake::SocketError => self.handle_socket_error(now, shared),
            Wake::Deadline | Wake::MailboxRoom | Wake::Taken => {}
        }
        if self.link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
            self.handle_deadline(now, clock, shared);
        }
        None
    }

    async fn wait(
        &self,
        planned: Option<Span>,
        requests: &mut mpsc::Receiver<Request>,
        shared: &Shared,
    ) -> Wake {
        let stream = self.socket.stream();
        let deadline = async {
            match planned {
                Some(planned) => tokio::time::sleep(planned.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A stream that was registered anew is not ready for what the transport holds.
            () = std::future::ready(()), if self.may_read() && self.socket.holds_more() => {
                Wake::Socket
            }
            _ = stream.readable(), if self.may_read() => Wake::Socket,
            _ = stream.ready(Interest::ERROR), if !self.paused => Wake::SocketError,
            _ = stream.writable(), if self.socket.awaits_room() => Wake::Socket,
            // What follows the request to close comes too late.
            request = requests.recv(), if !self.close_requested => Wake::Request(request),
            () = shared.mailbox_room(), if self.paused => Wake::MailboxRoom,
            () = shared.taken(), if self.backlog.has_window => Wake::Taken,
            () = deadline => Wake::Deadline,
        }
    }

    /// Returns when this task is to wake at the latest.
    fn next_deadline(&self) -> Option<Time> {
        let link = self.link.next_deadline().map(|deadline| deadline.at);
        link.into_iter().chain(self.parting_due()).min()
    }

    /// Returns whether the machine has ended the link.
    fn is_over(&self) -> bool {
        match self.translator.stage {
            Stage::Handshaking | Stage::Established => false,
            Stage::Refused(_) | Stage::Lost(_) => true,
        }
    }
}

/// A connection during its handshake, with the session that it is to resume. What is dropped early
/// gives the session back.
struct Attempt<'a, T> {
    connection: &'a mut Connection<T>,
    resuming: &'a mut Resuming,
}

impl<T> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        let Attempt { connection, resuming } = self;
        if connection.is_resumed || connection.resumes.is_none() {
            return;
        }
        let is_gone = connection.joined.is_some() || connection.not_resumed.is_some();
        let why = connection.not_resumed.take().unwrap_or(NotResumed::Unknown);
        resuming.lapsed = is_gone.then_some(why);
        connection.resumes = None;
        let lapsed = connection.link.take_lapsed();
        resuming.session = lapsed.or_else(|| connection.link.take_resumable());
    }
}
