//! The output of `systole ping`: a line per event, and a summary.

mod links;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use systole_client::cause::Verdict;
use systole_client::wire::BeatKind;
use systole_client::{Codec, ConnectError, Event, Policy, Span, session};
use systole_net::Clock;

use super::json::{Farewell, Line, Summary, json, session_object};
use super::limit::{LINES_A_SECOND, Limit};
use super::statistics::{RoundTrips, loss};
use super::{Args, Manner, interval};
use crate::output::Output;

/// Counts heartbeats, and prints a line for each event.
#[derive(Debug)]
pub(super) struct Report {
    addr: String,
    codec: Codec,
    manner: Manner,
    reconnect: bool,
    json: bool,
    verbose: bool,
    clock: Clock,
    /// The address that accepted the connection.
    address: Option<SocketAddr>,
    /// Number of heartbeats that were requested and are not reported as sent yet.
    requested: u64,
    sent: u64,
    received: u64,
    /// The heartbeats of this link without an answer: sequence number and count, oldest first.
    unanswered: VecDeque<(u8, u64)>,
    rtt: RoundTrips,
    last_rtt: Option<Span>,
    last_loss: Option<Verdict>,
    limit: Limit,
}

impl Report {
    pub(super) fn new(args: &Args) -> Report {
        Report {
            addr: args.addr.clone(),
            codec: args.codec,
            manner: args.manner(),
            reconnect: args.reconnect,
            json: args.json,
            verbose: args.verbose,
            clock: Clock::start(),
            address: None,
            requested: 0,
            sent: 0,
            received: 0,
            unanswered: VecDeque::new(),
            rtt: RoundTrips::default(),
            last_rtt: None,
            last_loss: None,
            limit: Limit::default(),
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Returns the numbers of heartbeats sent and answered.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    /// Counts a heartbeat that the client was asked to send.
    pub(super) fn requested(&mut self) {
        self.requested += 1;
    }

    /// Returns whether another heartbeat may be sent.
    pub(super) fn may_send(&self, count: Option<u64>) -> bool {
        count.is_none_or(|count| self.sent + self.requested < count)
    }

    /// Returns whether `count` heartbeats have been answered or, one each interval, were lost with
    /// their link.
    pub(super) fn is_complete(&self, count: Option<u64>) -> bool {
        count.is_some_and(|count| match self.manner {
            Manner::Each => self.sent >= count && self.unanswered.is_empty(),
            Manner::AfterSilence => self.received >= count,
        })
    }

    /// The verdict on the last link that was lost.
    pub(super) fn last_loss(&self) -> Option<Verdict> {
        self.last_loss
    }

    /// Says how often heartbeats are sent by `policy`, if they are not sent after silence.
    pub(super) fn rate(&self, policy: &Policy) -> String {
        let interval = interval(policy).filter(|_| self.manner == Manner::Each);
        interval
            .map(|interval| format!("; a heartbeat is sent each {interval}"))
            .unwrap_or_default()
    }

    /// Returns whether a loss is printed with what it shows, not with its cause alone. The lines of
    /// heartbeats after silence stay as they are.
    pub(super) fn prints_losses(&self) -> bool {
        self.manner == Manner::Each && !self.json
    }

    /// Counts the event, and prints it if the options select it.
    /// `shown` is what a loss shows beyond its cause, or an attempt beyond its error.
    pub(super) fn record(
        &mut self,
        event: &Event,
        shown: Option<&str>,
        output: &mut Output,
    ) -> io::Result<()> {
        let number = self.count(event);
        let time = self.clock.monotonic();
        if let Some(count) = self.limit.left_out(time) {
            self.left_out(count, time, output)?;
        }
        let line = if self.json {
            self.object(event, number, time).map(|object| json(&object))
        } else {
            let always = |text: String| Some(Text(text, Shown::Always));
            let text = match (event, shown) {
                (Event::Lost { .. }, Some(shown)) if self.prints_losses() => {
                    always(format!("connection lost: {shown}"))
                }
                (Event::AttemptFailed(_), Some(shown)) if self.reconnect => {
                    always(shown.to_owned())
                }
                _ => self.text(event, number),
            };
            match text {
                Some(text) if self.verbose => Some(format!("{} {}", stamp(time), text.0)),
                Some(Text(text, Shown::Always)) => Some(text),
                Some(Text(_, Shown::Verbose)) | None => None,
            }
        };
        if let Event::HeartbeatReceived { beat: BeatKind::Pong, .. } = event {
            self.last_rtt = None;
        }
        match line.filter(|_| self.limit.admits(event, time)) {
            Some(line) => output.line(&line).and_then(|()| output.flush()),
            None => Ok(()),
        }
    }

    /// Prints the counts and round trips in the format of ping(8).
    pub(super) fn summary(&mut self, output: &mut Output) -> io::Result<()> {
        let (sent, received, time) = (self.sent, self.received, self.clock.monotonic());
        if let Some(count) = self.limit.rest() {
            self.left_out(count, time, output)?;
        }
        let (rtt, loss) = (self.rtt.summary(), loss(sent, received));
        if self.json {
            output.line(&json(&Summary {
                event: "summary",
                time_ms: time.as_millis(),
                sent,
                received,
                loss_percent: loss as f64 / 10.0,
                rtt_min_us: rtt.map(|rtt| rtt.min.as_micros()),
                rtt_avg_us: rtt.map(|rtt| rtt.avg.as_micros()),
                rtt_max_us: rtt.map(|rtt| rtt.max.as_micros()),
                rtt_mdev_us: rtt.map(|rtt| rtt.mdev.as_micros()),
            }))?;
            return output.flush();
        }
        output.line(&format!("--- {} ping statistics ---", self.addr))?;
        let counts = format!("{sent} heartbeats sent, {received} received");
        match self.manner {
            Manner::AfterSilence => output.line(&format!("{counts}, time {time}"))?,
            Manner::Each => {
                let tenths = if loss % 10 == 0 { String::new() } else { format!(".{}", loss % 10) };
                let percent = loss / 10;
                output.line(&format!("{counts}, {percent}{tenths}% loss, time {time}"))?;
            }
        }
        if let Some(rtt) = rtt {
            let (min, avg, max, mdev) = (rtt.min, rtt.avg, rtt.max, rtt.mdev);
            output.line(&match self.manner {
                Manner::AfterSilence => format!("rtt min {min}, avg {avg}, max {max}"),
                Manner::Each => {
                    let [min, avg, max, mdev] = [min, avg, max, mdev].map(millis);
                    format!("rtt min/avg/max/mdev = {min}/{avg}/{max}/{mdev} ms")
                }
            })?;
        }
        output.flush()
    }

    /// Says how many lines the limit left out.
    fn left_out(&self, count: u64, time: Span, output: &mut Output) -> io::Result<()> {
        output.line(&if self.json {
            let number = Some(count);
            json(&Line { event: "left_out", time_ms: time.as_millis(), number, ..Line::default() })
        } else {
            format!("{count} lines left out: the server causes more than {LINES_A_SECOND} a second")
        })
    }

    /// Counts the event. Returns the number of the heartbeat that it is about, from 1 and across
    /// links: one each interval, its own; after silence, that of the probe.
    fn count(&mut self, event: &Event) -> Option<u64> {
        if let Event::Lost { verdict, .. } | Event::Away { verdict, .. } = event {
            self.last_loss = Some(*verdict);
            self.unanswered.clear();
            self.requested = 0;
        }
        if let Event::Accepted { address } = event {
            self.address = Some(*address);
        }
        match self.manner {
            Manner::Each => self.count_each(event),
            Manner::AfterSilence => self.count_after_silence(event),
        }
    }

    fn count_each(&mut self, event: &Event) -> Option<u64> {
        if let Event::HeartbeatSent { beat: BeatKind::Ping, sequence, number } = event {
            if *number > 0 {
                // A probe of the policy: the server is silent.
                return Some(u64::from(*number));
            }
            // None of ours: whether a server that has closed its side still reads.
            self.requested = self.requested.checked_sub(1)?;
            self.sent += 1;
            self.unanswered.push_back((*sequence, self.sent));
            return Some(self.sent);
        }
        let Event::HeartbeatAnswered { sequence, number: 0, rtt } = event else {
            return None;
        };
        let found = self.unanswered.iter().position(|(sent, _)| sent == sequence)?;
        let (_, number) = self.unanswered.remove(found)?;
        self.received += 1;
        self.rtt.add(*rtt);
        Some(number)
    }

    fn count_after_silence(&mut self, event: &Event) -> Option<u64> {
        if let Event::HeartbeatReceived { beat: BeatKind::Pong, .. } = event {
            self.received += 1;
        }
        if let Event::RoundTrip(rtt) = event {
            self.rtt.add(*rtt);
            self.last_rtt = Some(*rtt);
        }
        let Event::HeartbeatSent { beat: BeatKind::Ping, number: number @ 1.., .. } = event else {
            return None;
        };
        self.sent += 1;
        Some(u64::from(*number))
    }

    /// Formats the event as a line of text.
    fn text(&self, event: &Event, number: Option<u64>) -> Option<Text> {
        let always = |text: String| Some(Text(text, Shown::Always));
        let verbose = |text: String| Some(Text(text, Shown::Verbose));
        match event {
            Event::HeartbeatSent { beat: BeatKind::Ping, number: probe, .. } => {
                let number = number.unwrap_or_default();
                match (self.manner, probe) {
                    (Manner::AfterSilence, _) => always(format!("sending heartbeat #{number}")),
                    (Manner::Each, 0) => verbose(format!("sending heartbeat, seq={number}")),
                    (Manner::Each, _) => verbose(format!("sending probe #{number}")),
                }
            }
            Event::HeartbeatAnswered { rtt, .. } => {
                let (number, from) = (number?, self.address());
                always(format!("answer from {from}: seq={number} time={} ms", millis(*rtt)))
            }
            Event::HeartbeatReceived { beat: BeatKind::Pong, .. } => {
                if self.manner == Manner::Each {
                    return None;
                }
                let rtt = self.last_rtt.filter(|_| self.verbose);
                let rtt = rtt.map_or_else(String::new, |rtt| format!(" (rtt {rtt})"));
                always(format!("received heartbeat, make heartbeats to 0{rtt}"))
            }
            Event::Accepted { .. } if self.manner == Manner::AfterSilence => None,
            Event::Accepted { address } => verbose(format!("{address} accepted the connection")),
            Event::Lost { .. }
            | Event::Away { .. }
            | Event::Resumed { .. }
            | Event::NotResumed { .. }
            | Event::Reconnecting { .. }
            | Event::Reconnected { .. }
            | Event::Revised { .. } => self.link_text(event).and_then(always),
            Event::Connected { policy, .. } if self.manner == Manner::Each && !self.verbose => {
                let dead = policy.bound().map(|bound| format!(", dead after {bound} of silence"));
                let (addr, from, codec) = (&self.addr, self.address(), self.codec);
                always(format!("PING {addr} ({from}), {codec}{}", dead.unwrap_or_default()))
            }
            Event::Connected { session, policy, .. } => {
                verbose(format!("connected to {}, session {session}: {policy}", self.addr))
            }
            Event::HeartbeatReceived { beat: BeatKind::Ping, .. } => {
                verbose("received a heartbeat from the server".to_owned())
            }
            Event::HeartbeatSent { beat: BeatKind::Pong, .. } => {
                verbose("answered the heartbeat".to_owned())
            }
            Event::Session(session::Event::Retuned(policy)) if self.manner == Manner::Each => {
                always(format!("the server changed the policy: {policy}{}", self.rate(policy)))
            }
            Event::Session(event @ (session::Event::Suspect | session::Event::Recovered))
                if self.manner == Manner::Each =>
            {
                session_text(event).and_then(always)
            }
            Event::Session(event) => session_text(event).and_then(verbose),
            Event::Message(bytes) => {
                verbose(format!("received a message of {} bytes", bytes.len()))
            }
            Event::MessageTooLong { len } => verbose(format!("dropped a message of {len} bytes")),
            Event::HeartbeatData(bytes) => {
                verbose(format!("received {} bytes on a heartbeat", bytes.len()))
            }
            // Of an attempt `record` gets what it has shown, or the program ends with that.
            Event::RoundTrip(_) | Event::Closed(_) | Event::AttemptFailed(_) => None,
        }
    }

    /// Returns the address that accepted the connection, or what was typed.
    fn address(&self) -> String {
        self.address.map_or_else(|| self.addr.clone(), |address| address.to_string())
    }

    fn object(&self, event: &Event, number: Option<u64>, time: Span) -> Option<Line<'static>> {
        let line = |event| Line { event, time_ms: time.as_millis(), ..Line::default() };
        Some(match event {
            Event::Connected { session, policy, .. } => Line {
                session: Some(session.to_string()),
                address: self.address,
                ..line("connected").with(policy)
            },
            Event::HeartbeatSent { beat: BeatKind::Ping, number: probe, .. } => {
                let is_probe = self.manner == Manner::Each && *probe > 0;
                Line { number, ..line(if is_probe { "probe" } else { "sent" }) }
            }
            Event::HeartbeatAnswered { rtt, .. } if number.is_some() => {
                Line { number, rtt_us: Some(rtt.as_micros()), ..line("received") }
            }
            Event::HeartbeatReceived { beat: BeatKind::Pong, .. }
                if self.manner == Manner::AfterSilence =>
            {
                Line { rtt_us: self.last_rtt.map(Span::as_micros), ..line("received") }
            }
            Event::Session(event) => return session_object(event, line(event.name())),
            Event::Lost { .. }
            | Event::Away { .. }
            | Event::Resumed { .. }
            | Event::NotResumed { .. }
            | Event::Reconnecting { .. }
            | Event::Reconnected { .. }
            | Event::Revised { .. } => return self.link_object(event, time),
            Event::AttemptFailed(error) => Line {
                error: Some(error.to_string()),
                goodbye: farewell(error),
                ..line("attempt_failed")
            },
            Event::HeartbeatSent { beat: BeatKind::Pong, .. }
            | Event::HeartbeatReceived { .. }
            | Event::HeartbeatAnswered { .. }
            | Event::Accepted { .. }
            | Event::Message(_)
            | Event::MessageTooLong { .. }
            | Event::HeartbeatData(_)
            | Event::RoundTrip(_)
            | Event::Closed(_) => return None,
        })
    }
}

/// Returns the server's goodbye in its refusal of an attempt.
fn farewell(error: &ConnectError) -> Option<Farewell> {
    let ConnectError::Handshake { farewell, text, .. } = error else { return None };
    farewell.map(|goodbye| Farewell::new(goodbye, text))
}

/// Formats an event of the session; `None` for those that the client reports in its own words, and
/// for one that no link has.
fn session_text(event: &session::Event) -> Option<String> {
    Some(match event {
        session::Event::Suspect => "the server is suspect".to_owned(),
        session::Event::Warned { cause, .. } => format!("warning, no verdict yet: {cause}"),
        session::Event::Recovered => "the server has recovered".to_owned(),
        session::Event::Overdue { .. } => "the server is overdue".to_owned(),
        session::Event::Hung { cause, .. } => {
            format!("the server hangs, the link is kept: {cause}")
        }
        session::Event::Retuned(policy) => format!("the server changed the policy: {policy}"),
        session::Event::Joined { .. }
        | session::Event::Left(_)
        | session::Event::Moved { .. }
        | session::Event::Away { .. }
        | session::Event::Resumed { .. } => return None,
    })
}

/// A line of text, and when it is printed.
struct Text(String, Shown);

enum Shown {
    Always,
    Verbose,
}

/// Formats a round trip in milliseconds, as ping(8) does.
fn millis(rtt: Span) -> String {
    format!("{}.{:03}", rtt.as_millis(), rtt.as_micros() % 1_000)
}

/// Formats the seconds since the start with a fixed width.
pub(crate) fn stamp(time: Span) -> String {
    format!("{:>5}.{:03}", time.as_millis() / 1_000, time.as_millis() % 1_000)
}
