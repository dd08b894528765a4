//! The metrics as OpenMetrics text, which Prometheus reads; `docs/metrics.md` lists them.

mod told;

use std::fmt::{self, Debug};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use systole_core::Span;
use systole_core::cause::Cause;
use systole_net::Clock;

use crate::events::Body;
use crate::gate::TurnedAway;
use crate::identity::Refusal;
use crate::logs::Logs;
use crate::stats::{AdminEnded, BeaconStats, Cell, Distributions, Reloaded, ShardStats, seconds};
use crate::store::Store;
use crate::webhooks::Sender;

/// The content type of a scrape.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    distributions: Distributions,
}

impl Metrics {
    /// Creates the metrics of `shards`, in the order of their numbers, and of their common
    /// distributions, and of the log. `beacons` has the number and the additional counts of each
    /// beacon shard.
    pub fn new(
        shards: Vec<Arc<ShardStats>>,
        beacons: Vec<(usize, Arc<BeaconStats>)>,
        distributions: &Distributions,
        clock: Clock,
        logs: Logs,
    ) -> Metrics {
        let mut registry = Registry::default();
        let Distributions {
            lateness,
            stretch,
            rtt,
            lag,
            revised,
            outages,
            admin_ended,
            config_reloads,
        } = distributions.clone();
        let help = "How long after it was due a verdict of silence fell";
        registry.register("systole_verdict_lateness_seconds", help, lateness);
        let help =
            "By how much the bound was stretched for a long round trip, per verdict of silence";
        registry.register("systole_verdict_stretch_seconds", help, stretch);
        let help = "Round-trip times of heartbeats that the gateway sent";
        registry.register("systole_rtt_seconds", help, rtt);
        let help = "How much later than planned a shard's loop came round";
        registry.register("systole_loop_lag_seconds", help, lag);
        let help = "Verdicts revised, by cause before and after";
        registry.register("systole_verdicts_revised", help, revised);
        let help = "Outages found: verdicts that fell together";
        registry.register("systole_outages", help, outages);
        let help = "Connections of the admin interface ended at a limit, by reason";
        registry.register("systole_admin_ended", help, admin_ended);
        let help = "Requests to read the configuration file again, by result";
        registry.register("systole_config_reloads", help, config_reloads);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("systole_build", "The version that runs", build);
        registry.register_collector(Box::new(BeaconCollector { shards: shards.clone(), beacons }));
        registry.register_collector(Box::new(ShardCollector { shards, clock }));
        registry.register_collector(Box::new(LogCollector(logs)));
        Metrics { registry, distributions: distributions.clone() }
    }

    /// Adds the metrics of a store and of those who are told about sessions.
    pub(crate) fn with_store(mut self, store: Option<&Store>, senders: &[Sender]) -> Metrics {
        if let Some(store) = store {
            let (store, senders) = (store.clone(), senders.to_vec());
            self.registry.register_collector(Box::new(told::ToldCollector { store, senders }));
        }
        self
    }

    /// Counts revised verdicts and outages; other events are counted by the shards.
    pub(crate) fn count(&self, body: &Body) {
        if let Body::VerdictRevised { revision, .. } = body {
            let labels = [("from", revision.from), ("to", revision.to)];
            self.distributions.revised.get_or_create(&labels).inc();
        } else if let Body::Outage(_) = body {
            self.distributions.outages.inc();
        }
    }

    /// Counts a connection of the admin interface that was ended at a limit.
    pub(crate) fn count_admin(&self, reason: AdminEnded) {
        self.distributions.admin_ended.get_or_create(&[("reason", reason.name())]).inc();
    }

    /// Counts a request to read the configuration file again.
    pub(crate) fn count_reload(&self, result: Reloaded) {
        self.distributions.config_reloads.get_or_create(&[("result", result.name())]).inc();
    }

    /// Returns the present values as OpenMetrics text.
    ///
    /// # Errors
    /// A metric could not be encoded, which is a bug of the gateway.
    pub fn scrape(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// A collector that reads at each scrape how many lines the log has dropped.
#[derive(Debug)]
struct LogCollector(Logs);

impl Collector for LogCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("systole_log_dropped", "Log lines dropped because nobody read stderr");
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.lines_dropped()).encode(metric)
    }
}

/// A collector that reads the counts of all shards at each scrape.
#[derive(Debug)]
struct ShardCollector {
    shards: Vec<Arc<ShardStats>>,
    clock: Clock,
}

/// A metric with one value per shard: name, help, and accessor.
type ShardMetric = (&'static str, &'static str, fn(&ShardStats) -> &Cell);

const GAUGES: [ShardMetric; 8] = [
    ("systole_links", "Links open now, in handshake or online", |shard| &shard.links),
    ("systole_sessions_online", "Sessions online now", |shard| &shard.online),
    ("systole_sessions_away", "Sessions without a link now", |shard| &shard.away),
    ("systole_suspects", "Sessions suspected now", |shard| &shard.suspects),
    ("systole_facts_waiting", "Sessions of which events wait", |shard| &shard.facts_waiting),
    ("systole_frame_bytes", "Memory of incomplete frames", |shard| &shard.frame_bytes),
    ("systole_window_bytes", "Memory of unacknowledged messages", |shard| &shard.window_bytes),
    ("systole_outbox_bytes", "Memory of unsent bytes", |shard| &shard.outbox_bytes),
];

const COUNTERS: [ShardMetric; 15] = [
    ("systole_accepted", "Connections accepted", |shard| &shard.accepted),
    ("systole_accept_pauses", "Times accepting paused at a limit", |shard| &shard.accept_pauses),
    (
        "systole_logins_withdrawn",
        "Logins whose client left before its webhook was asked",
        |shard| &shard.logins_withdrawn,
    ),
    ("systole_overdue", "Bounds that passed unenforced", |shard| &shard.overdue),
    ("systole_early_verdicts", "Verdicts forced by the kernel before the bound", |shard| {
        &shard.early
    }),
    ("systole_stalls", "Times the loop was absent", |shard| &shard.stalls),
    ("systole_telemetry_dropped", "Heartbeat lines dropped by a slow control plane", |shard| {
        &shard.telemetry_dropped
    }),
    ("systole_frames_dropped", "Links ended at the limit of incomplete frames", |shard| {
        &shard.frames_dropped
    }),
    ("systole_outboxes_dropped", "Links ended at the limit of all outboxes", |shard| {
        &shard.outboxes_dropped
    }),
    ("systole_cut_leaves", "Leave-takings of refused peers cut short for newcomers", |shard| {
        &shard.cut_leaves
    }),
    ("systole_undelivered", "Leave-takings that ended with bytes unacknowledged", |shard| {
        &shard.undelivered
    }),
    ("systole_resumptions", "Sessions resumed", |shard| &shard.resumed),
    ("systole_resumptions_gone", "Requests to resume a session that was gone", |shard| {
        &shard.not_resumed
    }),
    ("systole_resumptions_refused", "Requests to resume with a token of no session", |shard| {
        &shard.resumptions_refused
    }),
    ("systole_loop_turns", "Turns of the loop", |shard| &shard.turns),
];

/// A metric with two values per shard: name, help, and accessors for in and out.
type DirectionMetric = (&'static str, &'static str, [fn(&ShardStats) -> &Cell; 2]);

const DIRECTIONS: [&str; 2] = ["in", "out"];

const PAIRS: [DirectionMetric; 2] = [
    (
        "systole_heartbeats",
        "Heartbeats, asked and answered",
        [|shard| &shard.heartbeats_in, |shard| &shard.heartbeats_out],
    ),
    ("systole_bytes", "Bytes of clients", [|shard| &shard.bytes_in, |shard| &shard.bytes_out]),
];

impl Collector for ShardCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, read) in GAUGES {
            let values = self.per_shard(|shard| ConstGauge::new(read(shard).get()));
            encode_family(&mut encoder, name, help, MetricType::Gauge, values)?;
        }
        for (name, help, read) in COUNTERS {
            let values = self.per_shard(|shard| ConstCounter::new(read(shard).get()));
            encode_family(&mut encoder, name, help, MetricType::Counter, values)?;
        }
        let paused =
            |shard: &ShardStats| ConstGauge::new(u64::from(shard.accepting.paused().is_some()));
        let (name, help) = ("systole_accepting_paused", "Whether accepting is paused now");
        encode_family(&mut encoder, name, help, MetricType::Gauge, self.per_shard(paused))?;
        let stalled = |shard: &ShardStats| {
            ConstCounter::new(seconds(Span::from_nanos(shard.stalled_nanos.get())))
        };
        let help = "Time during which the loop was absent";
        encode_family(
            &mut encoder,
            "systole_stalled_seconds",
            help,
            MetricType::Counter,
            self.per_shard(stalled),
        )?;
        for (name, help, reads) in PAIRS {
            let values = self.shards.iter().enumerate().flat_map(|(number, shard)| {
                reads.into_iter().zip(DIRECTIONS).map(move |(read, direction)| {
                    let labels = [("direction", direction.to_owned()), shard_label(number)];
                    (labels, ConstCounter::new(read(shard).get()))
                })
            });
            encode_family(&mut encoder, name, help, MetricType::Counter, values)?;
        }
        let by_cause = |read: fn(&ShardStats) -> &[Cell; Cause::NAMES.len()]| {
            Cause::NAMES.into_iter().enumerate().map(move |(index, cause)| {
                let counts = self.shards.iter().map(|shard| read(shard)[index].get());
                ([("cause", cause)], ConstCounter::new(counts.sum::<u64>()))
            })
        };
        let (help, values) = ("Sessions ended, by cause", by_cause(|shard| &shard.verdicts));
        encode_family(&mut encoder, "systole_verdicts", help, MetricType::Counter, values)?;
        let help = "Links lost whose session went away, by cause";
        let values = by_cause(|shard| &shard.went_away);
        encode_family(&mut encoder, "systole_links_lost", help, MetricType::Counter, values)?;
        let help = "Links ended before they were a session, by cause";
        let values = by_cause(|shard| &shard.strangers);
        encode_family(&mut encoder, "systole_strangers", help, MetricType::Counter, values)?;
        let turned_away = TurnedAway::NAMES.into_iter().enumerate().map(|(index, reason)| {
            let counts = self.shards.iter().map(|shard| shard.turned_away[index].get());
            ([("reason", reason)], ConstCounter::new(counts.sum::<u64>()))
        });
        let (name, help) =
            ("systole_turned_away", "Connections closed at a limit of their address");
        encode_family(&mut encoder, name, help, MetricType::Counter, turned_away)?;
        let refused = Refusal::NAMES.into_iter().enumerate().map(|(index, reason)| {
            let counts = self.shards.iter().map(|shard| shard.refused[index].get());
            ([("reason", reason)], ConstCounter::new(counts.sum::<u64>()))
        });
        let help = "Logins refused, by reason";
        encode_family(&mut encoder, "systole_logins_refused", help, MetricType::Counter, refused)?;
        let uptime = ConstGauge::new(seconds(self.clock.monotonic()));
        let help = "Time since the start";
        let metric =
            encoder.encode_descriptor("systole_uptime_seconds", help, None, MetricType::Gauge)?;
        uptime.encode(metric)
    }
}

impl ShardCollector {
    fn per_shard<T>(&self, read: impl Fn(&ShardStats) -> T) -> impl Iterator<Item = (Labels, T)> {
        self.shards.iter().enumerate().map(move |(n, shard)| ([shard_label(n)], read(shard)))
    }
}

/// A collector that reads the additional counts of beacon shards at each scrape.
#[derive(Debug)]
struct BeaconCollector {
    shards: Vec<Arc<ShardStats>>,
    beacons: Vec<(usize, Arc<BeaconStats>)>,
}

impl Collector for BeaconCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let out = &mut encoder;
        let online = self.beacons.iter().filter_map(|(shard, _)| {
            let online = self.shards.get(*shard)?.online.get();
            Some(([shard_label(*shard)], ConstGauge::new(online)))
        });
        encode_family(out, "systole_beacons", "Devices online now", MetricType::Gauge, online)?;
        let datagrams = self.beacons.iter().flat_map(|(shard, stats)| {
            let counts = [&stats.datagrams_in, &stats.datagrams_out];
            counts.into_iter().zip(DIRECTIONS).map(move |(count, direction)| {
                let labels = [("direction", direction.to_owned()), shard_label(*shard)];
                (labels, ConstCounter::new(count.get()))
            })
        });
        let help = "Datagrams of beacon listeners";
        encode_family(out, "systole_beacon_datagrams", help, MetricType::Counter, datagrams)?;
        let dropped = BeaconStats::REASONS.into_iter().enumerate().map(|(index, reason)| {
            let counts = self.beacons.iter().map(|(_, stats)| stats.dropped[index].get());
            ([("reason", reason)], ConstCounter::new(counts.sum::<u64>()))
        });
        let help = "Datagrams dropped without an answer";
        encode_family(out, "systole_beacon_dropped", help, MetricType::Counter, dropped)?;
        let challenged = self.per_shard(|stats| &stats.challenged);
        let help = "Statements that had to be repeated under a challenge";
        encode_family(out, "systole_beacon_challenged", help, MetricType::Counter, challenged)?;
        let unsent = self.per_shard(|stats| &stats.unsent);
        let help = "Answers that the system did not take";
        encode_family(out, "systole_beacon_unsent", help, MetricType::Counter, unsent)
    }
}

impl BeaconCollector {
    fn per_shard(
        &self,
        read: impl Fn(&BeaconStats) -> &Cell,
    ) -> impl Iterator<Item = (Labels, ConstCounter<u64>)> {
        self.beacons.iter().map(move |(shard, stats)| {
            ([shard_label(*shard)], ConstCounter::new(read(stats).get()))
        })
    }
}

type Labels = [(&'static str, String); 1];

fn shard_label(number: usize) -> (&'static str, String) {
    ("shard", number.to_string())
}

/// Encodes a metric with one value per set of labels.
fn encode_family<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    values: impl Iterator<Item = (L, impl EncodeMetric)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::config::Log;

    const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

    /// Returns a scrape of two shards, one of them a beacon shard, with some counts above zero.
    fn scrape() -> String {
        let shards: Vec<Arc<ShardStats>> = (0..2).map(|_| Arc::default()).collect();
        shards[1].links.set(3);
        shards[0].verdicts[Cause::Unknown.index()].add(2);
        shards[1].verdicts[Cause::Unknown.index()].add(5);
        shards[1].strangers[Cause::PeerExited.index()].add(3);
        shards[1].went_away[Cause::PeerReset.index()].add(4);
        shards[1].stalled_nanos.add(1_500_000_000);
        shards[0].heartbeats_out.add(9);
        let distributions = Distributions::default();
        distributions.lateness.observe(0.0021);
        distributions.stretch.observe(0.0);
        distributions.stretch.observe(3.0);
        let beacons = vec![(1, Arc::new(BeaconStats::default()))];
        shards[1].online.set(12);
        beacons[0].1.dropped[2].add(4);
        let revised = [("from", "unknown"), ("to", "peer_rebooted")];
        distributions.revised.get_or_create(&revised).inc();
        let logs = Logs::detached(&Log::default());
        let metrics = Metrics::new(shards, beacons, &distributions, Clock::start(), logs);
        let (store, senders) = told::tests::told();
        metrics.with_store(Some(&store), &senders).scrape().unwrap()
    }

    /// Parses type and label names of each family, as strictly as the format allows.
    fn families(scrape: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let mut families = BTreeMap::new();
        let mut current: Option<(String, String)> = None;
        let body = scrape.strip_suffix("# EOF\n").expect("the end of the scrape");
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                let twice = families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
                assert!(twice.is_none(), "{name} twice");
                current = Some((name.to_owned(), kind.to_owned()));
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (name, kind) = current.as_ref().expect("a type before the first sample");
            let (series, value) = line.rsplit_once(' ').expect("a value");
            value.parse::<f64>().expect("a number");
            let (sample, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = sample.strip_prefix(name.as_str()).expect("a sample of this family");
            let legal: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_sum", "_count", "_bucket"],
                other => panic!("unexpected type {other}"),
            };
            assert!(legal.contains(&suffix), "{line}");
            let labels = labels.strip_suffix('}').expect("the end of the labels");
            let names = &mut families.get_mut(name).unwrap().1;
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').expect("a label");
                assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
                if label != "le" {
                    names.insert(label.to_owned());
                }
            }
        }
        families
    }

    #[test]
    fn a_scrape_parses_and_has_the_counts() {
        let scrape = scrape();
        for line in [
            "systole_links{shard=\"1\"} 3",
            "systole_verdicts_total{cause=\"unknown\"} 7",
            "systole_verdicts_total{cause=\"kicked\"} 0",
            "systole_strangers_total{cause=\"peer_exited\"} 3",
            "systole_links_lost_total{cause=\"peer_reset\"} 4",
            "systole_log_dropped_total 0",
            "systole_beacons{shard=\"1\"} 12",
            "systole_beacon_dropped_total{reason=\"wrong_tag\"} 4",
            "systole_stalled_seconds_total{shard=\"1\"} 1.5",
            "systole_heartbeats_total{direction=\"out\",shard=\"0\"} 9",
            "systole_verdict_lateness_seconds_bucket{le=\"0.0025\"} 1",
            "systole_verdict_lateness_seconds_bucket{le=\"0.002\"} 0",
            "systole_verdict_stretch_seconds_bucket{le=\"0.0\"} 1",
            "systole_verdict_stretch_seconds_bucket{le=\"5.0\"} 2",
        ] {
            assert!(scrape.lines().any(|found| found == line), "{line} in\n{scrape}");
        }
        assert!(families(&scrape).len() > 10);
    }

    #[test]
    fn the_document_names_exactly_the_causes() {
        let (_, rest) = DOCUMENT.split_once("The causes are ").expect("the sentence");
        let (sentence, _) = rest.split_once(':').expect("its end");
        let named: Vec<_> = sentence.split('`').skip(1).step_by(2).collect();
        assert_eq!(named, Cause::NAMES);
    }

    #[test]
    fn the_document_lists_exactly_the_metrics() {
        let documented: BTreeMap<String, (String, BTreeSet<String>)> = DOCUMENT
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .map(|(name, rest)| {
                let mut columns = rest.split(" | ");
                let kind = columns.next().expect("a type").to_owned();
                let labels = columns.next().expect("labels").split(", ");
                let labels = labels.map(|label| label.trim_matches('`').to_owned());
                (name.to_owned(), (kind, labels.filter(|label| !label.is_empty()).collect()))
            })
            .collect();
        let suffixed = families(&scrape()).into_iter().map(|(name, (kind, labels))| {
            let suffix = match kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            (name + suffix, (kind, labels))
        });
        assert_eq!(documented, suffixed.collect());
    }
}
