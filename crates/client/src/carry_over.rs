//! State that each link of a client passes to the next.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use systole_core::link::departure::STALL;
use systole_core::resume::NotResumed;
use systole_core::wire::CloseReason;
use systole_core::witness::Past;
use systole_core::{Policy, Span, Time};
use systole_net::Clock;

use crate::Event;
use crate::away::{Away, Resuming};
use crate::old_flow::OldFlow;
use crate::shared::{FlushAnswer, FlushReply, Request, Shared};
use crate::undelivered::Undelivered;

/// The application's settings for every link, and the record of the previous link.
#[derive(Debug, Default)]
pub(crate) struct CarryOver {
    pub(crate) heartbeat_data: Vec<u8>,
    pub(crate) policy: Option<Policy>,
    /// Whether the application has asked for the policy while there was no link.
    pub(crate) is_policy_new: bool,
    /// How the previous link ended; the next handshake reports it.
    pub(crate) past: Option<Past>,
    /// The server's address on the last link; a name may have several.
    pub(crate) server: Option<SocketAddr>,
    /// The connection of the last link, if silence ended it; until the next attempt.
    pub(crate) old_flow: Option<OldFlow>,
    /// The session, while it has no link and is to be resumed.
    pub(crate) away: Option<Away>,
    /// The last session that is gone: the number of its first link, and why.
    lapsed: Option<(u64, Option<NotResumed>)>,
    /// The request to close the client, while there is no link that could carry it out.
    pub(crate) closing: Option<LateClose>,
    /// Whether the last link ended before all its messages were acknowledged.
    pub(crate) undelivered: bool,
    /// Number of times that messages were lost with a link.
    losses: u64,
    /// The messages of the losses that no flush has reported; `None` if they were not counted.
    lost: Option<u64>,
}

/// A request to close the client, which waits for a link that delivers what was accepted.
#[derive(Debug)]
pub(crate) struct LateClose {
    pub(crate) reason: CloseReason,
    /// When a link began to carry it out, if one did.
    pub(crate) began: Option<Time>,
    /// Runs since there is no link.
    since: Clock,
}

impl CarryOver {
    pub(crate) fn new(policy: Option<Policy>) -> CarryOver {
        CarryOver { policy, ..CarryOver::default() }
    }

    /// Returns whether messages were lost of which the application does not know.
    pub(crate) fn has_unreported_loss(&self, shared: &Shared) -> bool {
        shared.reported_losses() < self.losses
    }

    /// Notes that messages were lost; `None` if nobody has counted them.
    pub(crate) fn note_loss(&mut self, messages: Option<u64>, shared: &Shared) {
        let earlier = if self.has_unreported_loss(shared) { self.lost } else { Some(0) };
        self.lost = earlier.zip(messages).map(|(earlier, more)| earlier.saturating_add(more));
        self.losses += 1;
    }

    /// Answers a flush on a link that has ended, and its messages with it.
    pub(crate) fn refuse_flush(&self, reply: FlushReply) {
        // A canceled flush reports nothing.
        let _ = reply.send(FlushAnswer::Lost { losses: self.losses, messages: self.lost });
    }

    /// Lends the window of the session to an attempt to connect.
    pub(crate) fn lend(&mut self) -> Resuming {
        self.away.as_mut().map_or_else(Resuming::default, Away::lend)
    }

    /// Takes the window back. Returns why the session is gone, if the attempt has found that.
    pub(crate) fn take_back(&mut self, resuming: Resuming, shared: &Shared) -> Option<NotResumed> {
        let away = self.away.as_mut()?;
        let lapsed = resuming.lapsed;
        away.take_back(resuming, shared);
        lapsed
    }

    /// Gives up the session that is away, and reports what is not delivered. `None`: the client
    /// ends, and nobody was asked.
    pub(crate) fn lapse(&mut self, why: Option<NotResumed>, shared: &Shared) {
        let Some(away) = self.away.take() else {
            return;
        };
        shared.set_link(0);
        shared.set_window(None);
        self.lapsed = Some((away.number, why));
        let (undelivered, mut backlog, cost) = away.give_up();
        shared.release(cost);
        let count = undelivered.count();
        if count > 0 {
            self.undelivered = true;
            self.note_loss(Some(count), shared);
        }
        if count > 0 || why.is_some() {
            shared.publish(Event::NotResumed { why, undelivered });
        }
        backlog.take_flushes().for_each(|reply| self.refuse_flush(reply));
    }

    /// Handles a message for a link that has ended. One of a session that is gone was accepted just
    /// before, and is reported as the others were.
    pub(crate) fn drop_message(&mut self, bytes: Vec<u8>, cost: usize, link: u64, shared: &Shared) {
        shared.release(cost);
        let lapsed = self.lapsed.filter(|(number, _)| *number == link);
        self.note_loss(lapsed.map(|_| 1), shared);
        if let Some((_, why)) = lapsed {
            let undelivered = Undelivered { uncertain: 0, unsent: 1, messages: vec![bytes] };
            shared.publish(Event::NotResumed { why, undelivered });
        }
    }

    /// Handles a request while there is no link: messages and flushes of a session that is away
    /// wait, those of an ended link are refused, and settings are kept for the next link. `Break`:
    /// the client is to end now.
    pub(crate) fn handle_offline(
        &mut self,
        request: Option<Request>,
        shared: &Shared,
    ) -> ControlFlow<()> {
        match request {
            Some(Request::Send { bytes, cost, link }) => {
                match self.away.as_mut().filter(|away| away.number == link) {
                    Some(away) => away.send(bytes, cost, shared),
                    None => {
                        self.undelivered = true;
                        self.drop_message(bytes, cost, link, shared);
                    }
                }
            }
            Some(Request::Flush { reply, link }) => self.flush_offline(reply, link, shared),
            Some(Request::HeartbeatData(bytes)) => self.heartbeat_data = bytes,
            Some(Request::AskPolicy(policy)) => {
                (self.policy, self.is_policy_new) = (Some(policy), true);
            }
            // There is no link to send it on.
            Some(Request::Heartbeat) => {}
            Some(Request::Close(reason)) => return self.close_offline(reason, shared),
            None => return self.close_offline(CloseReason::Done, shared),
        }
        ControlFlow::Continue(())
    }

    fn flush_offline(&mut self, reply: FlushReply, link: u64, shared: &Shared) {
        let is_owed = self.has_unreported_loss(shared);
        match self.away.as_mut().filter(|away| away.number == link && !is_owed) {
            Some(away) => {
                away.backlog.add_flush(reply);
                away.backlog.answer_flushes();
            }
            None => self.refuse_flush(reply),
        }
    }

    fn close_offline(&mut self, reason: CloseReason, shared: &Shared) -> ControlFlow<()> {
        self.close_later(reason, None);
        shared.set_closing();
        if self.is_worth_resuming() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Lets the request to close wait for the next link.
    pub(crate) fn close_later(&mut self, reason: CloseReason, began: Option<Time>) {
        self.closing = Some(LateClose { reason, began, since: Clock::start() });
    }

    /// Returns whether a closing client has a reason to connect: messages to deliver.
    fn is_worth_resuming(&self) -> bool {
        self.away.as_ref().is_some_and(|away| !away.is_settled())
    }

    /// Returns whether the application has asked to close the client, and nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        self.closing.is_some() && !self.is_worth_resuming()
    }

    /// Returns for how long a closing client still tries to resume its session; `None` if it was
    /// not asked to close.
    pub(crate) fn patience(&self) -> Option<Span> {
        self.closing.as_ref().map(|closing| STALL.less(closing.since.monotonic()))
    }
}
