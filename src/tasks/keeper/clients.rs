//! HTTP clients: one for all peers that are believed in the usual way, one for each that has a trust of its own.

use std::sync::Arc;

use url::Url;

use crate::config::{Config, Limits};
use crate::net::certificate::Pin;
use crate::net::client::Client;
use crate::net::outgoing::{Outgoing, Purpose};
use crate::net::trust::{Trust, TrustError};
use crate::outbound::metadata;
use crate::outbound::ob_app::ObApp;
use crate::outbound::peer::PeerTrust;

/// The clients under one configuration.
#[derive(Debug)]
pub(super) struct Clients {
    config: Arc<Config>,
    outgoing: Arc<Outgoing>,
    trust: Trust,
    common: PeerClients,
}

impl Clients {
    /// Reads the system's authorities and those of the configuration.
    pub(super) fn new(config: Arc<Config>, outgoing: &Arc<Outgoing>) -> Result<Self, TrustError> {
        let trust = Trust::system(&config.trust.ca)?;
        let common = PeerClients::new(&trust, &config.limits, outgoing);
        Ok(Self { config, outgoing: Arc::clone(outgoing), trust, common })
    }

    /// Whether a change to `config` leaves the clients as they are.
    pub(super) fn fit(&self, config: &Config) -> bool {
        self.config.trust == config.trust && self.config.limits == config.limits
    }

    /// The clients of a peer with that trust. A trust that no longer reads believes nobody: such a peer is unreachable, and says why.
    pub(super) fn of(&self, trust: &PeerTrust) -> PeerClients {
        if *trust == PeerTrust::default() {
            return self.common.clone();
        }
        let own = self.own_trust(trust).unwrap_or_else(|problem| {
            tracing::error!(reason = %problem, "a peer's own certificates cannot be read; it is not called");
            // Matches no certificate: SHA-256 of nothing that could be one.
            Trust::pinned(Pin::of(&Vec::new().into()))
        });
        PeerClients::new(&own, &self.config.limits, &self.outgoing)
    }

    /// Reads a peer's own trust.
    pub(super) fn own_trust(&self, trust: &PeerTrust) -> Result<Trust, TrustProblem> {
        match (&trust.pin, &trust.ca) {
            (Some(pin), _) => Ok(Trust::pinned(pin.parse().map_err(|_| TrustProblem::NotAPin)?)),
            (None, Some(ca)) => Ok(self.trust.with_authorities(ca.as_bytes(), "ca")?),
            (None, None) => Ok(self.trust.clone()),
        }
    }
}

/// A peer's own trust cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustProblem {
    /// The pin is none.
    #[error("a pin is sha256: and 64 hexadecimal digits")]
    NotAPin,
    /// The authorities are none.
    #[error(transparent)]
    Authorities(#[from] TrustError),
}

/// How one peer is called.
#[derive(Clone, Debug)]
pub(super) struct PeerClients {
    /// For what we ask ourselves: tokens, metadata.
    own: Ways,
    /// For the calls of the relay.
    calls: Ways,
}

#[derive(Clone, Debug)]
struct Ways {
    /// For URLs that somebody gave who rules the instance, and what is on their host.
    direct: Client,
    /// For URLs that were learnt, or that somebody else gave, which may not lead into private networks.
    guarded: Client,
}

impl Ways {
    const fn guarded_if(&self, guarded: bool) -> &Client {
        if guarded { &self.guarded } else { &self.direct }
    }
}

impl PeerClients {
    fn new(trust: &Trust, limits: &Limits, outgoing: &Arc<Outgoing>) -> Self {
        let ways = |purpose| Ways {
            direct: Client::new(trust, limits, outgoing.share(purpose)),
            guarded: Client::guarded(trust, limits, outgoing.share(purpose)),
        };
        Self { own: ways(Purpose::Own), calls: ways(Purpose::Peers) }
    }

    /// The client for `endpoint` of the server of `app`, learnt from the metadata of `issuer` or, without one, given by an operator.
    pub(super) fn for_endpoint(&self, app: &ObApp, issuer: Option<&Url>, endpoint: &Url) -> &Client {
        self.own.guarded_if(app.guarded || issuer.is_some_and(|issuer| metadata::is_off_host(issuer, endpoint)))
    }

    /// The client for what we ask ourselves, the guarded one when `guarded`.
    pub(super) const fn guarded_if(&self, guarded: bool) -> &Client {
        self.own.guarded_if(guarded)
    }

    /// The client for the relay's calls, the guarded one when `guarded`.
    pub(super) const fn for_calls(&self, guarded: bool) -> &Client {
        self.calls.guarded_if(guarded)
    }
}
