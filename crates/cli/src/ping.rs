//! `systole ping`: sends heartbeats to a server, until it is dead or `--count` is reached.

mod hint;
mod json;
mod limit;
mod login;
mod report;
mod statistics;
mod tls;

use std::io;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use systole_client::policy::{Detection, PolicyError};
use systole_client::reconnect::Backoff;
use systole_client::{
    Client, CloseReason, Codec, ConnectError, Ending, Event, Options, Policy, Span, session,
};
use systole_core::policy::MAX_PROBES;
use systole_net::address::{self, AddressError};
use tokio::time::{Interval, MissedTickBehavior};

use crate::exit::Exit;
use crate::interrupt::{self, Interrupt};
use crate::output::Output;
use crate::seconds;
use report::Report;
pub(crate) use report::stamp;

const EXAMPLES: &str = "\
Examples:
  systole pong & systole ping 127.0.0.1:7430      both ends on one machine
  systole ping game.example.org:7400 -v           with times and all events
  systole ping HOST:PORT --interval 200ms --probes 5 --count 10
  systole ping HOST:PORT --codec message1028 --idle 10s --interval 3s --probes 3
  systole ping HOST:PORT --tls                    or --ca FILE, --pin HEX, --insecure
  systole ping HOST:PORT --json | jq .rtt_us

A heartbeat is sent at once, then one each INTERVAL. Each answer is printed with its round trip, and
at the end what ping(8) prints: sent, received, loss, and least, mean, greatest round trip and its
deviation.

Any byte of the server is evidence of life. If none arrives for IDLE + INTERVAL × PROBES, the
connection is dead: 18 s by default. A gateway grants the nearest policy within its limits, and may
change it later (native only). What it grants is in force: heartbeats are sent at that interval. If
that is not what was requested, it is printed.

With --idle, the codecs message1028 and line work as TCP keepalive does: after IDLE of silence a
heartbeat is sent, then another after each INTERVAL, at most PROBES of them, and any byte resets
their count. (A native gateway breaks each silence itself, with its own heartbeats.)

A TIME has units, as in the configuration file: 500ms, 10s, \"1m 30s\". On the command line alone, a
number without a unit is seconds: 10, 0.5.

Ctrl-C and SIGTERM end it with the summary and a goodbye to the server.

Exit codes: 0 --count reached or interrupted, 1 not connected, lost for another reason, or never
answered, 2 wrong usage, 3 the connection is dead.";

/// Time limit for the goodbye at the end.
const GOODBYE: Duration = Duration::from_millis(250);

/// Time without an answer after which a wrong codec is suspected: a server answers within a round
/// trip, and hardly any is longer.
const NO_ANSWER: Duration = Duration::from_secs(2);

/// The port of a gateway's native listener, in the example of an error.
const USUAL_PORT: u16 = 7_400;

/// The default silence before the first probe. Not the 10 s after which a gateway ends a client
/// that has sent nothing.
const IDLE: Duration = Duration::from_secs(15);

/// The default time between heartbeats: that of ping(8).
const INTERVAL: Duration = Duration::from_secs(1);

/// The default time between heartbeats in a silence: a third of that of tcp_keepalive(7), whose
/// 75 s nobody wants to wait for.
const INTERVAL_IN_SILENCE: Duration = Duration::from_secs(3);

/// Send heartbeats to a server, print their round trips, and report when it is dead
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Address of the server
    #[arg(value_name = "HOST:PORT", value_parser = server_address)]
    addr: String,

    /// Silence before the server is probed [default: 15s]; with the codecs message1028 and line,
    /// heartbeats are sent only then
    #[arg(long, value_name = "TIME", value_parser = seconds::parse)]
    idle: Option<Duration>,

    /// Time between heartbeats [default: 1s; with --idle of message1028 and line 3s]
    #[arg(long, value_name = "TIME", value_parser = seconds::parse)]
    interval: Option<Duration>,

    /// Unanswered probes before the connection is dead
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = probes)]
    probes: u8,

    /// Codec of the connection
    #[arg(long, default_value = "native", value_parser = codec_parser())]
    codec: Codec,

    /// Connect again when the connection is lost, or does not come about
    #[arg(long)]
    reconnect: bool,

    /// Stop after N heartbeats, when they are answered or lost
    #[arg(long, value_name = "N", value_parser = count)]
    count: Option<u64>,

    /// Print JSON, one object per line; times in milliseconds, round trips in microseconds
    #[arg(long)]
    json: bool,

    /// Print times, and all other events
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    login: login::LoginArgs,

    // Last: the heading of these options would stand over all that follow.
    #[command(flatten)]
    tls: tls::TlsArgs,
}

/// When heartbeats are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// One each interval, as ping(8) does.
    Each,
    /// Only after silence, as the policy demands.
    AfterSilence,
}

/// Parses a number of probes.
fn probes(text: &str) -> Result<u8, String> {
    let legal = |probes: &u8| (1..=MAX_PROBES).contains(probes);
    text.parse().ok().filter(legal).ok_or_else(|| {
        format!(
            "must be a number from 1 to {MAX_PROBES}: a server is dead after that many unanswered \
            heartbeats"
        )
    })
}

/// Says which option is at fault, and what would be right.
fn policy_error(error: PolicyError) -> String {
    match error {
        PolicyError::ZeroIdle => {
            "--idle must be at least 1ms\nhint: it is the silence before the server is probed; a \
            number without a unit is seconds"
                .to_owned()
        }
        PolicyError::ZeroInterval => {
            "--interval must be at least 1ms\nhint: it is the time between two heartbeats; a \
            number without a unit is seconds"
                .to_owned()
        }
        PolicyError::NotWholeMillis => {
            "--idle and --interval must be whole milliseconds\nhint: 1ms, or 0.001, is the shortest"
                .to_owned()
        }
        PolicyError::TooFast
        | PolicyError::NoProbes
        | PolicyError::TooManyProbes
        | PolicyError::BoundTooLong => error.to_string(),
    }
}

fn count(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|count| *count > 0);
    number.ok_or_else(|| "must be a number from 1 on".to_owned())
}

/// Checks the address of a server, as far as that needs no lookup.
fn server_address(text: &str) -> Result<String, String> {
    let (host, _) = address::split(text, USUAL_PORT)?;
    match address::parse(text) {
        Err(error @ AddressError::UnknownInterface { .. }) if host.contains('%') => {
            Err(error.to_string())
        }
        Err(AddressError::UnknownInterface { .. } | AddressError::Malformed) | Ok(_) => {
            Ok(text.to_owned())
        }
    }
}

/// Parses the name of one of the three stream codecs.
pub(crate) fn codec_parser() -> impl TypedValueParser<Value = Codec> {
    let names = [Codec::Native, Codec::Message1028, Codec::Line].map(Codec::name);
    PossibleValuesParser::new(names).map(|name| Codec::by_name(&name).unwrap_or(Codec::Native))
}

pub(crate) fn run(args: &Args, output: &mut Output) -> io::Result<Exit> {
    let wanted = args.policy().map_err(policy_error);
    let wanted = wanted.and_then(|policy| Ok((policy, args.options(policy)?)));
    let (policy, options) = match wanted {
        Ok(wanted) => wanted,
        Err(error) => {
            output.error(&error);
            return Ok(Exit::Usage);
        }
    };
    match interrupt::runtime() {
        Ok(runtime) => runtime.block_on(ping(args, policy, options, output)),
        Err(error) => {
            output.error(&error.to_string());
            Ok(Exit::Failure)
        }
    }
}

impl Args {
    fn manner(&self) -> Manner {
        match (self.codec, self.idle) {
            (Codec::Message1028 | Codec::Line, Some(_)) => Manner::AfterSilence,
            (Codec::Native, _) | (Codec::Message1028 | Codec::Line, None) => Manner::Each,
        }
    }

    fn interval(&self) -> Duration {
        self.interval.unwrap_or(match self.manner() {
            Manner::Each => INTERVAL,
            Manner::AfterSilence => INTERVAL_IN_SILENCE,
        })
    }

    fn policy(&self) -> Result<Policy, PolicyError> {
        let idle = self.idle.unwrap_or(IDLE).into();
        // Spread is for many links; here it would only blur the times.
        Ok(Policy::new(idle, self.interval().into(), self.probes)?.with_spread(false))
    }

    fn options(&self, policy: Policy) -> Result<Options, String> {
        let mut options = Options::default();
        options.codec = self.codec;
        options.policy = Some(policy);
        options.reconnect = self.reconnect.then(Backoff::default);
        options.report_heartbeats = true;
        options.report_accepted = true;
        self.login.fill(&mut options)?;
        options.tls = self.tls.read()?;
        options.tls_name.clone_from(&self.tls.tls_name);
        Ok(options)
    }
}

async fn ping(
    args: &Args,
    policy: Policy,
    options: Options,
    output: &mut Output,
) -> io::Result<Exit> {
    // First: process 1 of a container ignores a signal without a handler.
    let started = Interrupt::install().map_err(|error| error.to_string()).and_then(|interrupt| {
        let client = Client::start(&args.addr, options);
        Ok((interrupt, client.map_err(|error| error.to_string())?))
    });
    let (mut interrupt, client) = match started {
        Ok(started) => started,
        Err(error) => {
            output.error(&error);
            return Ok(Exit::Failure);
        }
    };
    let mut pinger = Pinger::new(args, policy);
    let mut interrupted = false;
    while pinger.end.is_none() && (pinger.is_ending || !pinger.report.is_complete(args.count)) {
        tokio::select! {
            event = client.next_event() => {
                let Some(event) = event else { break };
                pinger.handle(&event, output)?;
            }
            _ = pinger.beats.tick(), if pinger.may_send() => {
                // It fails only if the client has ended, of which an event tells.
                if client.send_heartbeat().await.is_ok() {
                    pinger.report.requested();
                }
            }
            () = &mut pinger.patience, if pinger.awaits_answer => {
                pinger.awaits_answer = false;
                pinger.suspect_codec(output);
            }
            () = interrupt.wait() => {
                interrupted = true;
                break;
            }
        }
    }
    let exit = pinger.end.unwrap_or(match pinger.report.counts() {
        (1.., 0) => Exit::Failure,
        _ if !pinger.was_connected => Exit::Failure,
        _ => Exit::Success,
    });
    if pinger.was_connected || interrupted {
        pinger.report.summary(output)?;
    }
    // A goodbye that is not complete in time is given up.
    let _ = tokio::time::timeout(GOODBYE, client.close(CloseReason::Done)).await;
    Ok(exit)
}

/// The state between two events.
struct Pinger<'a> {
    args: &'a Args,
    /// The policy in force; before the first connection, the requested one.
    policy: Policy,
    report: Report,
    /// The times of the heartbeats.
    beats: Interval,
    connected: bool,
    was_connected: bool,
    /// When a server without an answer seems to have another codec.
    patience: std::pin::Pin<Box<tokio::time::Sleep>>,
    awaits_answer: bool,
    /// Whether what the server sent, or did not, was explained by another codec.
    explained: bool,
    /// Whether a hint about the codec was printed.
    hinted: bool,
    /// The hint that belongs to an attempt that has failed.
    owed_hint: Option<String>,
    /// Whether the connection is lost for good, of which the next events tell more.
    is_ending: bool,
    end: Option<Exit>,
}

impl<'a> Pinger<'a> {
    fn new(args: &'a Args, policy: Policy) -> Pinger<'a> {
        Pinger {
            args,
            policy,
            report: Report::new(args),
            beats: beats(args.interval()),
            connected: false,
            was_connected: false,
            patience: Box::pin(tokio::time::sleep(NO_ANSWER)),
            awaits_answer: false,
            explained: false,
            hinted: false,
            owed_hint: None,
            is_ending: false,
            end: None,
        }
    }

    fn may_send(&self) -> bool {
        let allowed = self.args.manner() == Manner::Each && self.connected;
        allowed && self.report.may_send(self.args.count)
    }

    /// Handles an event: the state, then what is printed.
    fn handle(&mut self, event: &Event, output: &mut Output) -> io::Result<()> {
        match event {
            Event::Accepted { .. } => self.await_answer(),
            Event::Connected { policy, .. } | Event::Reconnected { policy, .. } => {
                if policy.detection() != self.policy.detection() {
                    let rate = self.report.rate(policy);
                    output.note(&format!("the server grants another policy: {policy}{rate}"));
                    self.follow(*policy);
                }
                (self.connected, self.was_connected) = (true, true);
                self.beats.reset_immediately();
                // The handshake was the answer, in a codec that has one.
                self.awaits_answer = self.args.codec != Codec::Native
                    && self.args.manner() == Manner::Each
                    && self.report.received() == 0;
            }
            Event::HeartbeatReceived { .. } | Event::Message(_) => self.awaits_answer = false,
            Event::Lost { .. } | Event::Away { .. } => {
                (self.connected, self.awaits_answer) = (false, false);
                self.is_ending = !self.args.reconnect;
            }
            Event::Resumed { .. } => {
                self.connected = true;
                self.beats.reset_immediately();
            }
            Event::AttemptFailed(error) => return self.fail(event, error, output),
            Event::Closed(ending) => self.close(*ending, output),
            Event::Session(session::Event::Retuned(policy)) => self.follow(*policy),
            Event::Session(_)
            | Event::MessageTooLong { .. }
            | Event::HeartbeatData(_)
            | Event::RoundTrip(_)
            | Event::HeartbeatSent { .. }
            | Event::HeartbeatAnswered { .. }
            | Event::Reconnecting { .. }
            | Event::NotResumed { .. }
            | Event::Revised { .. } => {}
        }
        let (shown, is_printed) = match self.other_codec(event) {
            Some(shown) if event_is_loss(event) => (Some(shown), self.report.prints_losses()),
            shown => (shown, false),
        };
        self.report.record(event, shown.as_deref(), output)?;
        if let Some(shown) = shown {
            if !is_printed {
                output.note(&shown);
            }
            self.explained = true;
            self.hint(Some(hint::other_codec(self.args.codec)), output);
        }
        let owed = self.owed_hint.take();
        self.hint(owed, output);
        Ok(())
    }

    /// Handles an attempt that has failed. If it was the last one, the next event says so, and
    /// the hint follows that.
    fn fail(&mut self, event: &Event, error: &ConnectError, output: &mut Output) -> io::Result<()> {
        self.awaits_answer = false;
        let (shown, hint) = hint::of_attempt(error, self.args);
        if !self.args.reconnect {
            output.error(&format!("{}: {shown}", self.args.addr));
        }
        self.owed_hint = hint;
        self.report.record(event, Some(&hint::describe(error, self.args)), output)
    }

    /// Sends heartbeats by the policy that the server granted: the next in one of its intervals.
    fn follow(&mut self, granted: Policy) {
        self.policy = granted;
        self.beats = beats(interval(&granted).map_or(self.args.interval(), Duration::from));
        self.beats.reset();
    }

    /// Returns what the event shows of a server that has not answered yet and speaks another
    /// codec, once. The native handshake shows that a server speaks native.
    fn other_codec(&self, event: &Event) -> Option<String> {
        let codec = self.args.codec;
        let is_open = codec != Codec::Native && !self.explained && self.report.received() == 0;
        if let Event::Message(message) = event {
            return hint::of_message(message, codec).filter(|_| is_open);
        }
        if let Event::Lost { verdict, farewell: None, .. } = event {
            return hint::of_verdict(verdict, &[], codec).filter(|_| is_open);
        }
        None
    }

    /// Waits for the first answer of the server, from now on.
    fn await_answer(&mut self) {
        self.patience = Box::pin(tokio::time::sleep(NO_ANSWER));
        self.awaits_answer = true;
    }

    /// Says that no answer has come so far.
    fn suspect_codec(&mut self, output: &mut Output) {
        output.note(&format!("{}: connected, but no answer in {NO_ANSWER:?}", self.args.addr));
        self.hint(Some(hint::of_silence(self.args)), output);
    }

    /// Prints a hint, if none was printed before.
    fn hint(&mut self, hint: Option<String>, output: &mut Output) {
        if let Some(hint) = hint
            && !std::mem::replace(&mut self.hinted, true)
        {
            output.note(&hint);
        }
    }

    /// Handles the end of the client.
    fn close(&mut self, ending: Ending, output: &mut Output) {
        if let Ending::Stopped(stop) = ending {
            output.error(&format!("{}: {stop}", self.args.addr));
        }
        self.end = Some(match (ending, self.report.last_loss()) {
            // A measurement has nothing to deliver.
            (Ending::Finished | Ending::Undelivered, _) => Exit::Success,
            (Ending::NotReconnecting | Ending::Stopped(_), Some(loss)) if loss.is_silence() => {
                Exit::PeerDead
            }
            (Ending::NotReconnecting | Ending::Stopped(_), _) => Exit::Failure,
        });
    }
}

/// Returns the times of heartbeats; the first is now.
fn beats(period: Duration) -> Interval {
    let mut beats = tokio::time::interval(period);
    // After a stall one heartbeat is due, not all that were missed.
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

/// Returns the time between probes of a policy; `None` if it has none.
fn interval(policy: &Policy) -> Option<Span> {
    match policy.detection() {
        Detection::Never => None,
        Detection::Bounded { interval, .. } => Some(interval),
    }
}

fn event_is_loss(event: &Event) -> bool {
    matches!(event, Event::Lost { .. })
}
