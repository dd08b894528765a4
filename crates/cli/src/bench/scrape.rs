//! Reads the gateway's `/metrics`: the whole page, and the histogram of verdict lateness.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Name of the histogram, whose unit is seconds.
const LATENESS: &str = "systole_verdict_lateness_seconds_bucket";
/// Time limit of a scrape, which usually takes milliseconds on the loopback.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest metrics page in bytes; far above the real size.
const MAX_PAGE: u64 = 4 << 20;

/// A Prometheus histogram: pairs of an upper bound and a cumulative count, in rising order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Buckets(Vec<(f64, u64)>);

/// Fetches the histogram from `admin` (`HOST:PORT`, with or without `http://`).
pub(crate) fn lateness(admin: &str) -> io::Result<Buckets> {
    page(admin).map(|page| Buckets::parse(&page))
}

/// Fetches the metrics page.
pub(crate) fn page(admin: &str) -> io::Result<String> {
    let host = admin.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // HTTP/1.0, so that the answer is not chunked.
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_PAGE).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) != Some("200") {
        let line = head.lines().next().unwrap_or("nothing");
        return Err(io::Error::other(format!("{host}/metrics answered: {line}")));
    }
    Ok(body.to_owned())
}

impl Buckets {
    /// Parses a metrics page; adds up the buckets of all label sets.
    pub(crate) fn parse(page: &str) -> Buckets {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for line in page.lines().filter(|line| line.starts_with(LATENESS)) {
            let Some((_, rest)) = line.split_once("le=\"") else { continue };
            let Some((bound, rest)) = rest.split_once('"') else { continue };
            let count = rest
                .split_once('}')
                .and_then(|(_, count)| count.split_whitespace().next()?.parse::<f64>().ok());
            let (Ok(bound), Some(count)) = (bound.parse::<f64>(), count) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count as u64,
                None => buckets.push((bound, count as u64)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Buckets(buckets)
    }

    /// Returns the increase since `before`.
    pub(crate) fn since(&self, before: &Buckets) -> Buckets {
        let of = |bound: f64| {
            before.0.iter().find(|(known, _)| *known == bound).map_or(0, |(_, count)| *count)
        };
        Buckets(self.0.iter().map(|(at, count)| (*at, count.saturating_sub(of(*at)))).collect())
    }

    /// Returns the number of verdicts.
    pub(crate) fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// Returns the upper bound, in seconds, of the bucket that contains the quantile: the true
    /// value is not above it. `None` without verdicts, infinite in the last bucket.
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((self.count() as f64) * q).ceil().max(1.0) as u64;
        self.0.iter().find(|(_, count)| *count >= rank).map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP x\n\
        systole_verdict_lateness_seconds_bucket{le=\"0.001\",shard=\"0\"} 98\n\
        systole_verdict_lateness_seconds_bucket{le=\"0.002\",shard=\"0\"} 99\n\
        systole_verdict_lateness_seconds_bucket{le=\"+Inf\",shard=\"0\"} 100\n\
        systole_verdict_lateness_seconds_bucket{shard=\"1\",le=\"0.001\"} 0\n\
        systole_verdict_lateness_seconds_bucket{shard=\"1\",le=\"+Inf\"} 0\n\
        systole_verdict_lateness_seconds_count 100\n";

    #[test]
    fn quantiles_are_the_bounds_of_buckets() {
        let buckets = Buckets::parse(PAGE);
        assert_eq!(buckets.count(), 100);
        assert_eq!(buckets.quantile(0.5), Some(0.001));
        assert_eq!(buckets.quantile(0.99), Some(0.002));
        assert_eq!(buckets.quantile(0.999), Some(f64::INFINITY));
    }

    #[test]
    fn earlier_counts_are_subtracted() {
        let buckets = Buckets::parse(PAGE);
        assert_eq!(buckets.since(&Buckets::default()), buckets);
        assert_eq!(buckets.since(&buckets).count(), 0);
        assert_eq!(buckets.since(&buckets).quantile(0.99), None);
    }
}
