//! `systole ping`: sends heartbeats to a server, until it is dead or `--count` is reached.

mod report;

use std::io;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use systole_client::cause::Cause;
use systole_client::policy::PolicyError;
use systole_client::reconnect::Backoff;
use systole_client::wire::BeatKind;
use systole_client::{Client, CloseReason, Codec, ConnectError, Ending, Event, Options, Policy};

use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::seconds;
use report::Report;
pub(crate) use report::stamp;

const EXAMPLES: &str = "\
Examples:
  systole pong & systole ping 127.0.0.1:7430      both ends on one machine
  systole ping game.example.org:7400 -v           with times and round trips
  systole ping HOST:PORT --idle 1s --interval 200ms --probes 3 --count 5
  systole ping HOST:PORT --codec message1028 --reconnect
  systole ping HOST:PORT --json | jq .rtt_us

After IDLE of silence a heartbeat is sent, then another after each INTERVAL, at most PROBES of them.
If no byte arrives for IDLE + INTERVAL × PROBES, the connection is dead: 19 s by default. Any byte
is evidence of life, and resets the count of heartbeats.

A TIME has units, as in the configuration file: 500ms, 10s, \"1m 30s\". On the command line alone, a
number without a unit is seconds: 10, 0.5.

A gateway may refuse the requested policy (native only). Then its own is in force and is printed.

A native gateway sends heartbeats itself, before IDLE has passed. Then there is no silence: ping
answers them (-v prints that), sends none of its own, and does not reach --count.

Ctrl-C and SIGTERM end it with a summary and a goodbye to the server.

Exit codes: 0 --count reached or interrupted, 1 not connected, lost for another reason, or never
answered, 2 wrong usage, 3 the connection is dead.";

/// Time limit for the goodbye at the end.
const GOODBYE: Duration = Duration::from_millis(250);

/// Send heartbeats to a server and report when it is dead
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Address of the server
    #[arg(value_name = "HOST:PORT")]
    addr: String,

    /// Silence before the first heartbeat
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = seconds::parse)]
    idle: Duration,

    /// Time between heartbeats while no answer comes
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = seconds::parse)]
    interval: Duration,

    /// Unanswered heartbeats before the connection is dead
    #[arg(long, value_name = "N", default_value_t = 3)]
    probes: u8,

    /// Codec of the connection
    #[arg(long, default_value = "native", value_parser = codec_parser())]
    codec: Codec,

    /// Reconnect when the connection is lost
    #[arg(long)]
    reconnect: bool,

    /// Stop after N answered heartbeats
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Print JSON, one object per line; times in milliseconds, round trips in microseconds
    #[arg(long)]
    json: bool,

    /// Print times, round trips, and all other events
    #[arg(short, long)]
    verbose: bool,
}

/// Parses the name of one of the three stream codecs.
pub(crate) fn codec_parser() -> impl TypedValueParser<Value = Codec> {
    let names = [Codec::Native, Codec::Message1028, Codec::Line].map(Codec::name);
    PossibleValuesParser::new(names).map(|name| Codec::by_name(&name).unwrap_or(Codec::Native))
}

pub(crate) fn run(args: &Args, output: &mut Output) -> io::Result<Exit> {
    let policy = match args.policy() {
        Ok(policy) => policy,
        Err(error) => {
            output.error(&error.to_string());
            return Ok(Exit::Usage);
        }
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(ping(args, policy, output)),
        Err(error) => {
            output.error(&error.to_string());
            Ok(Exit::Failure)
        }
    }
}

impl Args {
    fn policy(&self) -> Result<Policy, PolicyError> {
        let (idle, interval) = (self.idle.into(), self.interval.into());
        // Spread is for many links; here it would only blur the times.
        Ok(Policy::new(idle, interval, self.probes)?.with_spread(false))
    }

    /// Returns the hint for a server that ended the link before it answered anything.
    fn hint(&self) -> String {
        format!(
            "hint: is this a systole gateway with codec {} on this port? --codec sets another",
            self.codec
        )
    }

    fn options(&self, policy: Policy) -> Options {
        let mut options = Options::default();
        options.codec = self.codec;
        options.policy = Some(policy);
        options.reconnect = self.reconnect.then(Backoff::default);
        options.report_heartbeats = true;
        options
    }
}

async fn ping(args: &Args, policy: Policy, output: &mut Output) -> io::Result<Exit> {
    let mut interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            output.error(&error.to_string());
            return Ok(Exit::Failure);
        }
    };
    let connected = tokio::select! {
        connected = Client::connect(&args.addr, args.options(policy)) => connected,
        () = interrupt.wait() => return Ok(Exit::Failure),
    };
    let client = match connected {
        Ok(client) => client,
        Err(error) => {
            output.error(&format!("{}: {error}", args.addr));
            if matches!(error, ConnectError::Resolve { .. }) && !has_port(&args.addr) {
                output.note("hint: a port is needed, as in 127.0.0.1:7400");
            }
            if let ConnectError::Handshake { verdict, farewell: None } = error
                && is_of_another_protocol(verdict.cause)
            {
                output.note(&args.hint());
            }
            return Ok(Exit::Failure);
        }
    };
    let mut report = Report::new(args.addr.clone(), args.json, args.verbose);
    let mut end = None;
    while end.is_none() && args.count.is_none_or(|count| report.received() < count) {
        tokio::select! {
            event = client.next_event() => {
                let Some(event) = event else { break };
                end = exit_of(&event, end, &report);
                if let Event::Connected { policy: agreed, .. } = &event
                    && agreed.bound() != policy.bound()
                {
                    output.note(&format!("the server grants its own policy: {agreed}"));
                }
                let is_first_loss = report.last_loss().is_none();
                report.record(&event, output)?;
                // The native handshake has shown that the server speaks native.
                if let Event::Lost { verdict, farewell: None, .. } = &event
                    && args.codec != Codec::Native
                    && (is_first_loss && report.received() == 0)
                    && is_of_another_protocol(verdict.cause)
                {
                    output.note(&args.hint());
                }
            }
            () = interrupt.wait() => break,
        }
    }
    let exit = end.unwrap_or(match (report.sent(), report.received()) {
        (1.., 0) => Exit::Failure,
        _ => Exit::Success,
    });
    report.summary(output)?;
    // A goodbye that is not complete in time is given up.
    let _ = tokio::time::timeout(GOODBYE, client.close(CloseReason::Done)).await;
    Ok(exit)
}

/// Returns the exit code if this event is the last one, else `end`.
fn exit_of(event: &Event, end: Option<Exit>, report: &Report) -> Option<Exit> {
    let Event::Closed(ending) = event else {
        return end;
    };
    Some(match (ending, report.last_loss()) {
        // A measurement has nothing to deliver.
        (Ending::Finished | Ending::Undelivered, _) => Exit::Success,
        (Ending::NotReconnecting | Ending::Stopped(_), Some(loss)) if loss.is_silence() => {
            Exit::PeerDead
        }
        (Ending::NotReconnecting | Ending::Stopped(_), _) => Exit::Failure,
    })
}

fn has_port(addr: &str) -> bool {
    addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// Whether a server that speaks another protocol is a likely reason for this cause, if it comes
/// before the first answer.
fn is_of_another_protocol(cause: Cause) -> bool {
    match cause {
        Cause::PeerExited | Cause::PeerReset | Cause::HandshakeTimeout | Cause::Protocol(_) => true,
        Cause::PeerClosed(_)
        | Cause::PeerRebooted
        | Cause::MiddleboxForgot
        | Cause::AppHung
        | Cause::NotReading
        | Cause::SlowConsumer
        | Cause::PathLost { .. }
        | Cause::Unreachable
        | Cause::LocalNetworkDown
        | Cause::LocalNeighbourGone
        | Cause::Kicked
        | Cause::Drained
        | Cause::Finished
        | Cause::LocalFault
        | Cause::Unknown => false,
    }
}

/// Whether the event is the answer to a heartbeat.
fn is_answer(event: &Event) -> bool {
    matches!(event, Event::HeartbeatReceived { beat: BeatKind::Pong, .. })
}
