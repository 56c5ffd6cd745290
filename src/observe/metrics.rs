//! What `/metrics` shows. Every metric exists from the start with 0, so that an alert never waits for a first event.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::calls::Calls;
use crate::clock::Timestamp;
use crate::net::outgoing::{Outgoing, Purpose};
use crate::store::Store;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The states a peer can have, as `peer show` prints them.
pub const LINK_STATES: [&str; 7] = ["no_credentials", "ready_to_link", "requested", "linked", "degraded", "relink_required", "maintenance"];

/// Why a refresh failed: an OAuth error code of the peer, or what happened on the way. What is not here counts as `other`.
pub const REFRESH_FAILURES: [&str; 9] = [
    "invalid_grant",
    "invalid_client",
    "invalid_scope",
    "unreachable",
    "timeout",
    "server_error",
    "bad_answer",
    "store_unavailable",
    "other",
];

/// The default tenant, whose peers are named without it.
const DEFAULT_TENANT: &str = "default";

/// All metrics of one daemon.
pub struct Metrics {
    registry: Registry,
    link_state: Family<LinkState, Gauge>,
    access_expires: Family<Peer, Gauge>,
    refresh_last_success: Family<Peer, Gauge>,
    refreshes: Family<Refresh, Counter>,
    /// The largest difference between our clock and a peer's, in seconds, as the latest probes saw it; above 0 the peer's is ahead.
    pub clock_skew: Gauge<f64, AtomicU64>,
    /// Configurations that were taken.
    pub reloads: Counter,
    /// Configurations that were refused.
    pub reloads_refused: Counter,
    /// Calls at the gateway, by route.
    pub gateway: Calls,
    /// Calls at the relay, by peer.
    pub relay: Calls,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkState {
    peer: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refresh {
    peer: String,
    result: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// All metrics, at 0.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let (gateway, relay) = (Calls::new(&mut registry, "gateway", "route"), Calls::new(&mut registry, "relay", "peer"));
        let mut metrics = Self {
            registry,
            link_state: Family::default(),
            access_expires: Family::default(),
            refresh_last_success: Family::default(),
            refreshes: Family::default(),
            clock_skew: Gauge::default(),
            reloads: Counter::default(),
            reloads_refused: Counter::default(),
            gateway,
            relay,
        };
        let registry = &mut metrics.registry;
        registry.register("p2pid_build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("p2pid_link_state", "1 for the state that the peer is in", metrics.link_state.clone());
        let help = "When the peer's access token runs out, as Unix time; 0 without one";
        registry.register("p2pid_link_access_expires_timestamp_seconds", help, metrics.access_expires.clone());
        let help = "When the peer's token was last refreshed, as Unix time; 0 when it never was";
        registry.register("p2pid_link_refresh_last_success_timestamp_seconds", help, metrics.refresh_last_success.clone());
        registry.register("p2pid_refresh", "Refreshes by result", metrics.refreshes.clone());
        registry.register("p2pid_clock_skew_seconds", "Largest clock difference to a peer", metrics.clock_skew.clone());
        registry.register("p2pid_config_reloads", "Configurations taken", metrics.reloads.clone());
        registry.register("p2pid_config_reloads_refused", "Configurations refused", metrics.reloads_refused.clone());
        // A family without a series is not shown at all: the peer without a name stands there until the first real one.
        metrics.make_series("");
        metrics
    }

    /// With what `store` counts itself.
    #[must_use]
    pub fn of_store(mut self, store: Store) -> Self {
        self.registry.register_collector(Box::new(StoreCounters(store)));
        self
    }

    /// With the connections that go out.
    #[must_use]
    pub fn of_outgoing(mut self, outgoing: Arc<Outgoing>) -> Self {
        self.registry.register_collector(Box::new(OutgoingGauges(outgoing)));
        self
    }

    /// The series of one peer, which start at 0 and are gone with [`Metrics::forget_peer`].
    pub fn peer(&self, tenant: &str, name: &str) -> PeerMetrics {
        self.forget_series("");
        let peer = label(tenant, name);
        self.make_series(&peer);
        PeerMetrics {
            access_expires: self.access_expires.get_or_create_owned(&Peer { peer: peer.clone() }),
            refresh_last_success: self.refresh_last_success.get_or_create_owned(&Peer { peer: peer.clone() }),
            states: LINK_STATES.map(|state| (state, self.link_state.get_or_create_owned(&LinkState { peer: peer.clone(), state }))),
            refreshes: self.refreshes.clone(),
            peer,
        }
    }

    /// Takes a peer that was deleted or renamed out of the metrics.
    pub fn forget_peer(&self, tenant: &str, name: &str) {
        let label = label(tenant, name);
        self.forget_series(&label);
        self.relay.forget(&label);
    }

    /// Everything in the OpenMetrics text format ([`CONTENT_TYPE`]).
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(4096);
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a String takes all that is written");
        text
    }

    fn make_series(&self, peer: &str) {
        let peer = || peer.to_owned();
        for state in LINK_STATES {
            self.link_state.get_or_create_owned(&LinkState { peer: peer(), state });
        }
        self.access_expires.get_or_create_owned(&Peer { peer: peer() });
        self.refresh_last_success.get_or_create_owned(&Peer { peer: peer() });
        for (result, reason) in refresh_results() {
            self.refreshes.get_or_create_owned(&Refresh { peer: peer(), result, reason });
        }
    }

    fn forget_series(&self, peer: &str) {
        let peer = || peer.to_owned();
        for state in LINK_STATES {
            self.link_state.remove(&LinkState { peer: peer(), state });
        }
        self.access_expires.remove(&Peer { peer: peer() });
        self.refresh_last_success.remove(&Peer { peer: peer() });
        for (result, reason) in refresh_results() {
            self.refreshes.remove(&Refresh { peer: peer(), result, reason });
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Read when somebody asks.
#[derive(Debug)]
struct StoreCounters(Store);

impl Collector for StoreCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in [
            ("p2pid_store_commits", "Commits of the database since the start; each is one sync to disk", self.0.commits()),
            ("p2pid_store_statements", "SQL statements since the start", self.0.statements()),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

/// Looked at when somebody asks.
#[derive(Debug)]
struct OutgoingGauges(Arc<Outgoing>);

impl Collector for OutgoingGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, is_limit) in [
            ("p2pid_outgoing_connections", "Connections that go out, by what they are for", false),
            ("p2pid_outgoing_connections_limit", "How many connections may go out, by what they are for", true),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for purpose in Purpose::ALL {
                let number = if is_limit { self.0.limit(purpose) } else { self.0.open(purpose) };
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                ConstGauge::new(number).encode(metric.encode_family(&[("purpose", purpose.name())])?)?;
            }
        }
        Ok(())
    }
}

/// The values of `result` and `reason` together.
fn refresh_results() -> impl Iterator<Item = (&'static str, &'static str)> {
    std::iter::once(("success", "")).chain(REFRESH_FAILURES.map(|reason| ("failure", reason)))
}

/// Peers of other tenants carry the tenant in front: names are unique only per tenant.
pub fn label(tenant: &str, name: &str) -> String {
    if tenant == DEFAULT_TENANT { name.to_owned() } else { format!("{tenant}/{name}") }
}

/// The series of one peer; kept by whoever looks after its link.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    peer: String,
    access_expires: Gauge,
    refresh_last_success: Gauge,
    states: [(&'static str, Gauge); LINK_STATES.len()],
    refreshes: Family<Refresh, Counter>,
}

impl PeerMetrics {
    /// The peer is in `state`, one of [`LINK_STATES`], and in no other.
    pub fn state(&self, state: &str) {
        for (name, gauge) in &self.states {
            gauge.set(i64::from(*name == state));
        }
    }

    /// When its access token runs out; `None` without a token.
    pub fn access_expires(&self, at: Option<Timestamp>) {
        self.access_expires.set(at.map_or(0, Timestamp::seconds));
    }

    /// A refresh was answered with a token that is stored.
    pub fn refreshed(&self, at: Timestamp) {
        self.refresh_last_success.set(at.seconds());
        self.count_refresh("success", "");
    }

    /// A refresh failed, for one of [`REFRESH_FAILURES`].
    pub fn refresh_failed(&self, reason: &str) {
        let known = REFRESH_FAILURES.into_iter().find(|known| *known == reason);
        self.count_refresh("failure", known.unwrap_or("other"));
    }

    fn count_refresh(&self, result: &'static str, reason: &'static str) {
        self.refreshes.get_or_create(&Refresh { peer: self.peer.clone(), result, reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_exists_from_the_start_with_0() {
        let text = Metrics::new().text();
        for line in [
            "p2pid_link_state{peer=\"\",state=\"linked\"} 0",
            "p2pid_link_access_expires_timestamp_seconds{peer=\"\"} 0",
            "p2pid_link_refresh_last_success_timestamp_seconds{peer=\"\"} 0",
            "p2pid_refresh_total{peer=\"\",result=\"success\",reason=\"\"} 0",
            "p2pid_clock_skew_seconds 0.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_peer_is_in_one_state_and_goes_with_its_series() {
        let metrics = Metrics::new();
        let peer = metrics.peer("default", "two");
        peer.state("linked");
        peer.refreshed(Timestamp::from_millis(5_000));
        peer.refresh_failed("timeout");
        let text = metrics.text();
        assert!(text.contains("p2pid_link_state{peer=\"two\",state=\"linked\"} 1"), "{text}");
        assert!(text.contains("p2pid_link_state{peer=\"two\",state=\"degraded\"} 0"), "{text}");
        assert!(text.contains("p2pid_refresh_total{peer=\"two\",result=\"failure\",reason=\"timeout\"} 1"), "{text}");
        assert!(!text.contains("p2pid_link_state{peer=\"\""), "{text}");
        metrics.forget_peer("default", "two");
        assert!(!metrics.text().contains("two"));
    }

    #[test]
    fn peers_of_other_tenants_do_not_share_series() {
        let metrics = Metrics::new();
        metrics.peer("default", "two").state("linked");
        metrics.peer("sales", "two").state("degraded");
        assert!(metrics.text().contains("p2pid_link_state{peer=\"sales/two\",state=\"degraded\"} 1"));
    }
}
