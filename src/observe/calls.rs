//! Calls as `/metrics` counts them: by route at the gateway, by peer at the relay. Counting is a few atomic additions, without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

/// The classes of status that calls are counted by.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Upper ends of the times that calls are sorted into, in microseconds.
const BOUNDS: [u64; 12] = [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// The calls of one door.
#[derive(Clone, Debug)]
pub struct Calls {
    label: &'static str,
    /// By name and class of status.
    counts: Family<[(&'static str, String); 2], Counter>,
    /// By name.
    times: Family<[(&'static str, String); 1], Times>,
}

/// The calls of one route or peer.
#[derive(Clone, Debug)]
pub struct Series {
    counts: [Counter; CLASSES.len()],
    times: Times,
}

impl Calls {
    /// Those of the door `door`, sorted by `label`, in `registry`. Calls that belong to none stand under the empty name.
    pub(super) fn new(registry: &mut Registry, door: &str, label: &'static str) -> Self {
        let this = Self { label, counts: Family::default(), times: Family::default() };
        registry.register(format!("p2pid_{door}_calls"), "Calls by class of their answer's status", this.counts.clone());
        registry.register(format!("p2pid_{door}_call_seconds"), "Time to the first byte of the answer", this.times.clone());
        this.series("");
        this
    }

    /// The series of one route or peer, at 0 until it counts.
    pub fn series(&self, name: &str) -> Series {
        let counts = CLASSES.map(|class| self.counts.get_or_create_owned(&[(self.label, name.to_owned()), ("status", class.to_owned())]));
        Series { counts, times: self.times.get_or_create_owned(&[(self.label, name.to_owned())]) }
    }

    /// Takes a route or peer that is gone out of the metrics.
    pub fn forget(&self, name: &str) {
        for class in CLASSES {
            self.counts.remove(&[(self.label, name.to_owned()), ("status", class.to_owned())]);
        }
        self.times.remove(&[(self.label, name.to_owned())]);
    }
}

impl Series {
    /// Counts one call.
    pub fn count(&self, status: StatusCode, time: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.counts[class].inc();
        self.times.observe(time);
    }
}

/// A histogram whose parts are counted apart. Who reads it meanwhile may see a call in one of them and not yet in another.
#[derive(Clone, Debug, Default)]
struct Times(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    within: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
    micros: AtomicU64,
}

impl Times {
    fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < micros);
        self.0.within.get(place).unwrap_or(&self.0.beyond).fetch_add(1, Ordering::Relaxed);
        self.0.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let within = self.0.within.iter().map(|count| count.load(Ordering::Relaxed));
        let mut buckets: Vec<(f64, u64)> = BOUNDS.iter().map(|bound| seconds(*bound)).zip(within).collect();
        buckets.push((f64::INFINITY, self.0.beyond.load(Ordering::Relaxed)));
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(self.0.micros.load(Ordering::Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Times {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_there_from_the_start_counted_and_forgotten() {
        let mut registry = Registry::default();
        let calls = Calls::new(&mut registry, "gateway", "route");
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).expect("text");
            text
        };
        assert!(text(&registry).contains("p2pid_gateway_calls_total{route=\"\",status=\"5xx\"} 0"), "{}", text(&registry));
        let series = calls.series("/p2pi");
        series.count(StatusCode::OK, Duration::from_micros(700));
        series.count(StatusCode::NOT_FOUND, Duration::from_secs(60));
        let shown = text(&registry);
        for line in [
            "p2pid_gateway_calls_total{route=\"/p2pi\",status=\"2xx\"} 1",
            "p2pid_gateway_calls_total{route=\"/p2pi\",status=\"4xx\"} 1",
            "p2pid_gateway_call_seconds_bucket{le=\"0.0005\",route=\"/p2pi\"} 0",
            "p2pid_gateway_call_seconds_bucket{le=\"0.001\",route=\"/p2pi\"} 1",
            "p2pid_gateway_call_seconds_bucket{le=\"30.0\",route=\"/p2pi\"} 1",
            "p2pid_gateway_call_seconds_bucket{le=\"+Inf\",route=\"/p2pi\"} 2",
            "p2pid_gateway_call_seconds_count{route=\"/p2pi\"} 2",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        calls.forget("/p2pi");
        assert!(!text(&registry).contains("/p2pi"));
    }
}
