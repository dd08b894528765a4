//! The metrics of the store, and of those who are told about sessions.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::encode_family;
use crate::stats::Cell;
use crate::store::{Store, StoreStats};
use crate::webhooks::{Sender, SenderStatus};

/// Reads at each scrape how it goes with a store and with those who are told.
#[derive(Debug)]
pub(super) struct ToldCollector {
    pub(super) store: Store,
    pub(super) senders: Vec<Sender>,
}

/// A metric of the store: name, help, and accessor.
type StoreMetric = (&'static str, &'static str, fn(&StoreStats) -> &Cell);

const GAUGES: [StoreMetric; 2] = [
    ("systole_store_owed", "Sessions whose end is owed to webhooks", |store| &store.owed),
    ("systole_store_entries", "Events on disk that wait for webhooks", |store| &store.entries),
];

const COUNTERS: [StoreMetric; 7] = [
    ("systole_store_commits", "Transactions written", |store| &store.commits),
    ("systole_store_failures", "Transactions that failed", |store| &store.failures),
    ("systole_store_lost", "Sessions that a killed gateway had left behind", |store| &store.lost),
    ("systole_store_undurable", "Logins that went on unwritten", |store| &store.undurable),
    ("systole_store_refused", "Logins refused by a full or failing store", |store| &store.refused),
    (
        "systole_store_over_share",
        "Logins of identities and addresses with too many events",
        |store| &store.over_share,
    ),
    ("systole_store_dropped", "Events that a full store did not keep", |store| &store.dropped),
];

/// A metric of a receiver: name, help, type, and accessor.
type ReceiverMetric = (&'static str, &'static str, fn(&SenderStatus) -> u64);

const PER_RECEIVER: [ReceiverMetric; 3] = [
    ("systole_webhook_delivered", "Events that the webhook has taken", |it| it.delivered),
    ("systole_webhook_failures", "Attempts that failed", |it| it.failures),
    ("systole_webhook_dead", "Events that went to the dead letters", |it| it.dead),
];

impl Collector for ToldCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (out, stats) = (&mut encoder, self.store.stats());
        for (name, help, read) in GAUGES {
            let metric = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(read(stats).get()).encode(metric)?;
        }
        for (name, help, read) in COUNTERS {
            let metric = out.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(read(stats).get()).encode(metric)?;
        }
        let health = self.store.health();
        let is_durable = health.failing.is_none() && !health.is_volatile;
        let (name, help) = ("systole_store_durable", "Whether what is owed survives a kill");
        let metric = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(u64::from(is_durable)).encode(metric)?;
        let all: Vec<_> = self
            .senders
            .iter()
            .zip(&stats.dead)
            .map(|(sender, evicted)| {
                let mut status = sender.status();
                status.dead += evicted.get();
                ([("webhook", sender.receiver().name.clone())], status)
            })
            .collect();
        for (name, help, read) in PER_RECEIVER {
            let values =
                all.iter().map(|(label, status)| (label.clone(), ConstCounter::new(read(status))));
            encode_family(out, name, help, MetricType::Counter, values)?;
        }
        let down = all
            .iter()
            .map(|(label, status)| (label.clone(), ConstGauge::new(u64::from(status.is_down))));
        let help = "Whether the webhook takes nothing now";
        encode_family(out, "systole_webhook_down", help, MetricType::Gauge, down)?;
        let waiting = all
            .iter()
            .zip(&stats.waiting)
            .map(|((label, _), waiting)| (label.clone(), ConstGauge::new(waiting.get())));
        let help = "Events on disk that wait for the webhook";
        encode_family(out, "systole_webhook_waiting", help, MetricType::Gauge, waiting)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use systole_core::Span;

    use super::*;
    use crate::webhooks::fixture;

    /// A store in memory and a receiver that nobody reaches.
    pub(in crate::metrics) fn told() -> (Store, Vec<Sender>) {
        let nobody = "http://127.0.0.1:1/".to_owned();
        let (store, sender) = fixture::sender(nobody, "leave", Span::from_secs(1));
        (store, vec![sender])
    }
}
