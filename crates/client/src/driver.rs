//! The task of a client, which serves one link after the other.

use std::sync::{Arc, OnceLock};
use std::{io, time::Duration};

use crate::away::Resuming;
use crate::begin::Begin;
use systole_core::Span;
use systole_core::link::Introduction;
use systole_core::reconnect::{self, Next, Reconnect};
use systole_core::resume::NotResumed;
use systole_core::wire::{InstanceId, is_text};
use systole_net::identity;
use tokio::sync::mpsc;

use crate::carry_over::CarryOver;
use crate::connection::{Connection, LinkEnd};
use crate::dialer::{Dialer, LinkParams};
use crate::loop_clock::{LoopClock, OPEN_ENDED};
use crate::shared::{Request, Shared};
use crate::token::Tokens;
use crate::{ConnectError, Ending, Event, Options};

/// Task of a client; owns the state that outlives a link.
pub(crate) struct Driver {
    options: Options,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    dialer: Dialer,
    tokens: Tokens,
    clock: LoopClock,
    reconnect: Option<Reconnect>,
    carry_over: CarryOver,
    seed: u64,
    links: u64,
    /// Whether any link was established.
    welcomed: bool,
}

/// Result of work that a request to close interrupts.
enum WorkResult<T> {
    Done(T),
    CloseRequested,
}

impl Driver {
    pub(crate) fn new(
        addr: String,
        options: Options,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
    ) -> Result<Driver, ConnectError> {
        if !is_text(&options.identity) {
            return Err(ConnectError::Identity);
        }
        // Each client has its own seed, so that those of one process do not reconnect in step.
        let random = identity::instance_id().map_err(|error| ConnectError::from_io(&error))?;
        let seed = random.0.iter().fold(0, |seed: u64, byte| seed << 4 ^ u64::from(*byte));
        let tokens = Tokens::new(&options);
        let reconnect = options.reconnect.map(|backoff| {
            let machine = Reconnect::new(backoff, seed);
            if tokens.are_renewed() { machine.with_fresh_tokens() } else { machine }
        });
        let carry_over = CarryOver::new(options.policy);
        let clock = LoopClock::start();
        let dialer = Dialer::new(addr, &options);
        Ok(Driver {
            options,
            shared,
            requests,
            dialer,
            tokens,
            clock,
            reconnect,
            carry_over,
            seed,
            links: 0,
            welcomed: false,
        })
    }

    /// Opens the first link, handshake included.
    pub(crate) async fn open<T: Begin>(&mut self) -> Result<Connection<T>, ConnectError> {
        let token = self.tokens.next().await?;
        let params = self.next_link_params(0, token)?;
        let mut resuming = Resuming::default();
        let opening = self.dialer.open(&params, &mut resuming, &mut self.clock, &self.shared);
        let opened = opening.await;
        self.tokens.note(&opened);
        opened
    }

    /// Serves one link after the other until the client ends; connects first if there is no link
    /// yet.
    pub(crate) async fn run<T: Begin>(mut self, first: Option<Connection<T>>) {
        let _guard = CloseGuard(Arc::clone(&self.shared));
        let ending = self.serve_links(first).await;
        self.give_up_session(None);
        self.shared.finish(ending);
    }

    async fn serve_links<T: Begin>(&mut self, first: Option<Connection<T>>) -> Ending {
        let first = match first {
            Some(connection) => Ok(connection),
            None => self.connect_first().await,
        };
        let mut connection = match first {
            Ok(connection) => connection,
            Err(ending) => return ending,
        };
        loop {
            let LinkEnd::Lost(farewell) = self.serve(connection).await else {
                return self.closed();
            };
            match self.reconnect_after(reconnect::Input::Ended { farewell }).await {
                Ok(next) => connection = next,
                Err(ending) => return ending,
            }
        }
    }

    /// Makes the first attempt, and further ones as after a loss.
    async fn connect_first<T: Begin>(&mut self) -> Result<Connection<T>, Ending> {
        match self.wait_and_connect(0, Span::ZERO).await {
            WorkResult::CloseRequested => Err(self.closed()),
            WorkResult::Done(Ok(connection)) => Ok(connection),
            WorkResult::Done(Err(error)) => {
                let failure = error.input();
                self.shared.publish(Event::AttemptFailed(error));
                self.reconnect_after(failure).await
            }
        }
    }

    /// Returns the ending of a client that the application has closed.
    fn closed(&mut self) -> Ending {
        self.give_up_session(None);
        if self.carry_over.undelivered { Ending::Undelivered } else { Ending::Finished }
    }

    async fn serve<T: Begin>(&mut self, connection: Connection<T>) -> LinkEnd {
        self.welcomed = true;
        if let Some(reconnect) = &mut self.reconnect {
            reconnect.handle(self.clock.now(), reconnect::Input::Established);
        }
        let serving = connection.serve(
            &mut self.clock,
            &mut self.requests,
            &mut self.carry_over,
            &self.shared,
        );
        serving.await
    }

    /// Gives up the session that is away, with what the application has sent in it so far.
    fn give_up_session(&mut self, why: Option<NotResumed>) {
        if self.carry_over.away.is_none() {
            return;
        }
        // No message is accepted any more, and those on their way are counted.
        self.shared.set_link(0);
        while let Ok(request) = self.requests.try_recv() {
            // If it is to close, the next link does so, or none is left.
            let _ = self.carry_over.handle_offline(Some(request), &self.shared);
        }
        self.carry_over.lapse(why, &self.shared);
    }

    /// Retries until a link is established, the application closes the client, or the backoff ends.
    async fn reconnect_after<T: Begin>(
        &mut self,
        mut failure: reconnect::Input,
    ) -> Result<Connection<T>, Ending> {
        loop {
            if self.carry_over.is_done() {
                return Err(self.closed());
            }
            let now = self.clock.turn(OPEN_ENDED);
            let Some(reconnect) = &mut self.reconnect else {
                return Err(Ending::NotReconnecting);
            };
            reconnect.handle(now, failure);
            let (attempt, delay) = match reconnect.poll_output() {
                Some(Next::Wait { attempt, delay }) => (attempt, delay),
                Some(Next::Stop(stop)) => return Err(Ending::Stopped(stop)),
                None => return Err(Ending::NotReconnecting),
            };
            self.shared.publish(Event::Reconnecting { attempt, after: delay });
            match self.wait_and_connect(attempt, delay).await {
                WorkResult::CloseRequested => return Err(self.closed()),
                WorkResult::Done(Ok(connection)) => return Ok(connection),
                WorkResult::Done(Err(error)) => {
                    failure = error.input();
                    self.shared.publish(Event::AttemptFailed(error));
                    if self.dialer.has_refused() {
                        self.revise_refused();
                    }
                }
            }
        }
    }

    /// Revises the cause of the last loss after its server has refused a new connection.
    fn revise_refused(&mut self) {
        if let Some(past) = &mut self.carry_over.past
            && let Some((to, confidence)) = past.refused()
        {
            past.revised = true;
            self.shared.publish(Event::Revised { from: past.cause, to, confidence });
        }
    }

    /// Waits, gets a token, then connects; a request to close ends all three.
    async fn wait_and_connect<T: Begin>(
        &mut self,
        attempt: u32,
        delay: Span,
    ) -> WorkResult<Result<Connection<T>, ConnectError>> {
        let sleep = tokio::time::sleep(Duration::from(delay));
        let waiting =
            run_until_close(&mut self.requests, &mut self.carry_over, &self.shared, sleep);
        if let WorkResult::CloseRequested = waiting.await {
            return WorkResult::CloseRequested;
        }
        let asking = self.tokens.next();
        let asking =
            run_until_close(&mut self.requests, &mut self.carry_over, &self.shared, asking);
        let token = match asking.await {
            WorkResult::CloseRequested => return WorkResult::CloseRequested,
            WorkResult::Done(token) => token,
        };
        self.clock.turn(OPEN_ENDED);
        let params = match token.and_then(|token| self.next_link_params(attempt, token)) {
            Ok(params) => params,
            Err(error) => return WorkResult::Done(Err(error)),
        };
        let mut resuming = self.carry_over.lend();
        let opening = self.dialer.open(&params, &mut resuming, &mut self.clock, &self.shared);
        let opening =
            run_until_close(&mut self.requests, &mut self.carry_over, &self.shared, opening);
        let opened = opening.await;
        if let Some(why) = self.carry_over.take_back(resuming, &self.shared) {
            self.give_up_session(Some(why));
        }
        if let WorkResult::Done(opened) = &opened {
            self.tokens.note(opened);
        }
        opened
    }

    fn next_link_params(
        &mut self,
        attempt: u32,
        token: Box<[u8]>,
    ) -> Result<LinkParams, ConnectError> {
        self.links += 1;
        let options = &self.options;
        // HELLO asks for it, unless the session goes on as it was.
        self.carry_over.is_policy_new &= self.carry_over.away.is_some();
        let instance_id = instance_id().map_err(|error| ConnectError::from_io(&error))?;
        Ok(LinkParams {
            options: options.clone(),
            host: self.dialer.host().into(),
            introduction: Introduction {
                identity: options.identity.as_str().into(),
                token,
                asks: self.carry_over.policy,
                account: None,
            },
            past: self.carry_over.past,
            old_flow: self.carry_over.old_flow.take().map(Arc::new),
            server: self.carry_over.server,
            boot_id: identity::boot_id(),
            instance_id,
            link_number: self.links,
            // The first link is no reconnect, however many attempts it took.
            attempt: if self.welcomed { attempt } else { 0 },
            seed: self.seed.wrapping_add(self.links),
        })
    }
}

/// Runs `work` to completion, unless the application asks to close first. A client whose session is
/// away goes on then for a time, to deliver what it has accepted.
async fn run_until_close<T>(
    requests: &mut mpsc::Receiver<Request>,
    carry_over: &mut CarryOver,
    shared: &Shared,
    work: impl Future<Output = T>,
) -> WorkResult<T> {
    tokio::pin!(work);
    loop {
        let patience = carry_over.patience();
        let limit = tokio::time::sleep(patience.unwrap_or(OPEN_ENDED).into());
        tokio::select! {
            done = &mut work => return WorkResult::Done(done),
            () = limit, if patience.is_some() => return WorkResult::CloseRequested,
            // What follows the request to close comes too late.
            request = requests.recv(), if patience.is_none() => {
                if carry_over.handle_offline(request, shared).is_break() {
                    return WorkResult::CloseRequested;
                }
            }
        }
    }
}

/// Returns the identity of this process, which is drawn once.
fn instance_id() -> io::Result<InstanceId> {
    static DRAWN: OnceLock<InstanceId> = OnceLock::new();
    match DRAWN.get() {
        Some(drawn) => Ok(*drawn),
        None => {
            let drawn = identity::instance_id()?;
            Ok(*DRAWN.get_or_init(|| drawn))
        }
    }
}

/// Closes the shared state when the task ends, so that no caller waits for ever.
struct CloseGuard(Arc<Shared>);

impl Drop for CloseGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}
