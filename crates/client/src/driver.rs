//! The task behind a client: one link after the other.

use std::sync::{Arc, OnceLock};
use std::{io, time::Duration};

use systole_core::Span;
use systole_core::link::{Goodbye, Introduction};
use systole_core::reconnect::{self, Next, Reconnect};
use systole_core::wire::InstanceId;
use systole_net::identity;
use tokio::sync::mpsc;

use crate::connection::{Connection, End};
use crate::dial::Plan;
use crate::loop_clock::{LoopClock, OPEN_ENDED};
use crate::shared::{Request, Shared};
use crate::wishes::Wishes;
use crate::{ConnectError, Ending, Event, Options};

/// Owns everything that outlives a link.
pub(crate) struct Driver {
    addr: String,
    options: Options,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Request>,
    clock: LoopClock,
    reconnect: Option<Reconnect>,
    wishes: Wishes,
    seed: u64,
    links: u64,
}

/// What became of a wait for the next link.
enum Waited<T> {
    Done(T),
    Closed,
}

impl Driver {
    pub(crate) fn new(
        addr: String,
        options: Options,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Request>,
    ) -> Result<Driver, ConnectError> {
        // Clients of one process must not reconnect in step, so each draws its own.
        let chance = identity::instance_id().map_err(|error| ConnectError::from_io(&error))?;
        let seed = chance.0.iter().fold(0, |seed: u64, byte| seed << 4 ^ u64::from(*byte));
        let reconnect = options.reconnect.map(|backoff| Reconnect::new(backoff, seed));
        let wishes = Wishes { heartbeat_data: Vec::new(), policy: options.policy, past: None };
        let clock = LoopClock::start();
        Ok(Driver { addr, options, shared, commands, clock, reconnect, wishes, seed, links: 0 })
    }

    /// Opens a link, up to the end of its handshake.
    pub(crate) async fn open(&mut self) -> Result<Connection, ConnectError> {
        let plan = self.plan(0)?;
        Connection::open(plan, &mut self.clock, &self.shared).await
    }

    /// Drives links until there are to be no more.
    pub(crate) async fn run(mut self, first: Connection) {
        let _guard = EndGuard(Arc::clone(&self.shared));
        let mut connection = first;
        let ending = loop {
            let end = self.serve(connection).await;
            let End::Lost(farewell) = end else {
                break Ending::Finished;
            };
            match self.return_after(farewell).await {
                Ok(next) => connection = next,
                Err(ending) => break ending,
            }
        };
        self.shared.tell(Event::Closed(ending));
    }

    async fn serve(&mut self, connection: Connection) -> End {
        if let Some(reconnect) = &mut self.reconnect {
            reconnect.handle(self.clock.now(), reconnect::Input::Established);
        }
        let serving =
            connection.serve(&mut self.clock, &mut self.commands, &mut self.wishes, &self.shared);
        serving.await
    }

    /// Comes back, as often as it takes.
    async fn return_after(&mut self, mut farewell: Option<Goodbye>) -> Result<Connection, Ending> {
        loop {
            let now = self.clock.turn(OPEN_ENDED);
            let Some(reconnect) = &mut self.reconnect else {
                return Err(Ending::NotReconnecting);
            };
            reconnect.handle(now, reconnect::Input::Ended { farewell });
            let (attempt, delay) = match reconnect.poll_output() {
                Some(Next::Wait { attempt, delay }) => (attempt, delay),
                Some(Next::Stop(stop)) => return Err(Ending::Stopped(stop)),
                None => return Err(Ending::NotReconnecting),
            };
            self.shared.tell(Event::Reconnecting { attempt, after: delay });
            match self.attempt(attempt, delay).await {
                Waited::Closed => return Err(Ending::Finished),
                Waited::Done(Ok(connection)) => return Ok(connection),
                Waited::Done(Err(error)) => {
                    farewell = error.farewell();
                    self.shared.tell(Event::AttemptFailed(error));
                }
            }
        }
    }

    /// Waits, then connects; a goodbye of the application ends both.
    async fn attempt(
        &mut self,
        attempt: u32,
        delay: Span,
    ) -> Waited<Result<Connection, ConnectError>> {
        let sleep = tokio::time::sleep(Duration::from(delay));
        let waiting = obey(&mut self.commands, &mut self.wishes, &self.shared, sleep);
        if let Waited::Closed = waiting.await {
            return Waited::Closed;
        }
        self.clock.turn(OPEN_ENDED);
        match self.plan(attempt) {
            Ok(plan) => {
                let opening = Connection::open(plan, &mut self.clock, &self.shared);
                obey(&mut self.commands, &mut self.wishes, &self.shared, opening).await
            }
            Err(error) => Waited::Done(Err(error)),
        }
    }

    fn plan(&mut self, attempt: u32) -> Result<Plan, ConnectError> {
        self.links += 1;
        let options = &self.options;
        let instance_id = instance_id().map_err(|error| ConnectError::from_io(&error))?;
        Ok(Plan {
            addr: self.addr.clone(),
            options: options.clone(),
            introduction: Introduction {
                identity: options.identity.as_str().into(),
                token: options.token.as_slice().into(),
                asks: self.wishes.policy,
                account: None,
            },
            past: self.wishes.past,
            boot_id: identity::boot_id(),
            instance_id,
            link: self.links,
            attempt,
            seed: self.seed.wrapping_add(self.links),
        })
    }
}

/// Runs `work` to its end, unless the application says goodbye first. Messages for links that are
/// gone are dropped; wishes are kept for the next one.
async fn obey<T>(
    commands: &mut mpsc::Receiver<Request>,
    wishes: &mut Wishes,
    shared: &Shared,
    work: impl Future<Output = T>,
) -> Waited<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Waited::Done(done),
            command = commands.recv() => match command {
                Some(Request::Send { cost, .. }) => shared.release(cost),
                Some(Request::HeartbeatData(bytes)) => wishes.heartbeat_data = bytes,
                Some(Request::AskPolicy(policy)) => wishes.policy = Some(policy),
                Some(Request::Close(_)) | None => return Waited::Closed,
            },
        }
    }
}

/// This process's identity, drawn once.
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

/// Ends the handle's waits however the task ends.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}
