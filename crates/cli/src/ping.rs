//! `systole ping`: heartbeats to a server, until it is dead or was pinged enough.

mod report;

use std::io;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use systole_client::{Client, Ending, Event, Options};
use systole_core::Policy;
use systole_core::link::BeatKind;
use systole_core::policy::PolicyError;
use systole_core::reconnect::Backoff;
use systole_core::wire::{CloseReason, Codec};

use crate::exit::Exit;
use crate::output::Output;
use crate::seconds;
use report::Report;
pub(crate) use report::stamp;

const EXAMPLES: &str = "\
Examples:
  systole pong & systole ping 127.0.0.1:7430      both ends on one machine
  systole ping game.example.org:7400 -v           with times and round trips
  systole ping HOST:PORT --idle 1 --interval 0.2 --probes 3 --count 5
  systole ping HOST:PORT --codec message1028 --reconnect
  systole ping HOST:PORT --json | jq .rtt_us

A heartbeat goes out after IDLE of silence, another after each INTERVAL, at most PROBES of them. If
IDLE + INTERVAL × PROBES pass without a single byte, the connection is dead: 19 s by default.
Whatever arrives counts as life, and the count of heartbeats starts anew.

A gateway may refuse the policy that is asked for (native only); its own is in force then, and told.

Exit codes: 0 pinged enough or interrupted, 1 not connected, lost for another reason, or never
answered, 2 wrong usage, 3 the connection is dead.";

/// How long a goodbye may keep the user waiting.
const GOODBYE: Duration = Duration::from_millis(250);

/// Send heartbeats to a server and tell when it is dead
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the server listens
    #[arg(value_name = "HOST:PORT")]
    addr: String,

    /// How long silence lasts before the first heartbeat
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = seconds::parse)]
    idle: Duration,

    /// How long one heartbeat waits for an answer before the next
    #[arg(long, value_name = "TIME", default_value = "3", value_parser = seconds::parse)]
    interval: Duration,

    /// How many heartbeats go unanswered before the connection is dead
    #[arg(long, value_name = "N", default_value_t = 3)]
    probes: u8,

    /// Which bytes are spoken
    #[arg(long, default_value = "native", value_parser = codec_parser())]
    codec: Codec,

    /// Come back when the connection is lost
    #[arg(long)]
    reconnect: bool,

    /// Stop after N heartbeats were answered
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Print JSON, one object a line; times in milliseconds, round trips in microseconds
    #[arg(long)]
    json: bool,

    /// Print times, round trips, and what else happens
    #[arg(short, long)]
    verbose: bool,
}

/// The three codecs by name.
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
        // Spread serves fleets; here it would only blur the numbers.
        Ok(Policy::new(idle, interval, self.probes)?.with_spread(false))
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
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let connected = tokio::select! {
        connected = Client::connect(&args.addr, args.options(policy)) => connected,
        _ = &mut interrupt => return Ok(Exit::Failure),
    };
    let client = match connected {
        Ok(client) => client,
        Err(error) => {
            output.error(&format!("{}: {error}", args.addr));
            return Ok(Exit::Failure);
        }
    };
    let mut report = Report::new(args.addr.clone(), args.json, args.verbose);
    let mut end = None;
    while end.is_none() && args.count.is_none_or(|count| report.received() < count) {
        tokio::select! {
            event = client.next_event() => {
                let Some(event) = event else { break };
                end = ended(&event, end, &report);
                if let Event::Connected { policy: agreed, .. } = &event
                    && agreed.bound() != policy.bound()
                {
                    output.note(&format!("the server grants its own policy: {agreed}"));
                }
                report.tell(&event, output)?;
            }
            _ = &mut interrupt => break,
        }
    }
    let exit = end.unwrap_or(match (report.sent(), report.received()) {
        (1.., 0) => Exit::Failure,
        _ => Exit::Success,
    });
    report.summary(output)?;
    // Whether the goodbye arrives in this time changes nothing here.
    let _ = tokio::time::timeout(GOODBYE, async {
        if client.close(CloseReason::Done).await.is_ok() {
            while client.next_event().await.is_some() {}
        }
    })
    .await;
    Ok(exit)
}

/// The exit code, if this event is the end.
fn ended(event: &Event, end: Option<Exit>, report: &Report) -> Option<Exit> {
    let Event::Closed(ending) = event else {
        return end;
    };
    Some(match (ending, report.last_loss()) {
        (Ending::Finished, _) => Exit::Success,
        (Ending::NotReconnecting | Ending::Stopped(_), Some(loss)) if loss.is_silence() => {
            Exit::PeerDead
        }
        (Ending::NotReconnecting | Ending::Stopped(_), _) => Exit::Failure,
    })
}

/// Whether that event is a heartbeat's answer.
fn is_answer(event: &Event) -> bool {
    matches!(event, Event::HeartbeatReceived { beat: BeatKind::Pong, .. })
}
