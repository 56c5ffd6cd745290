//! What is made from the configuration and held: made anew when the configuration changes.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Config, Limits, Tls};
use crate::doors::gateway::Gateway;
use crate::instance::Instance;
use crate::net::client::Client;
use crate::net::files;
use crate::net::outgoing::Purpose;
use crate::net::serve::Server;
use crate::net::tls::{Identity, ServerTls, TlsError};
use crate::net::trust::Trust;
use crate::tasks::keeper::Links;
use crate::tasks::reload::{Part, Replacement};

/// The certificate that `tls` says; `None` without TLS.
pub(super) fn identity(config: &Config, tls: &Tls, clock: &dyn Clock) -> Result<Option<Identity>, TlsError> {
    match tls {
        Tls::Off => Ok(None),
        Tls::Files { cert, key } => Identity::from_files(cert, key).map(Some),
        Tls::SelfSigned => {
            Identity::self_signed(&config.instance.state_dir.join("tls"), config.instance.public_url.url(), clock.now().wall).map(Some)
        }
    }
}

/// The certificate of a listener; `which` finds its `tls` in a configuration.
pub(super) fn certificate(listener: &'static str, shown: Option<ServerTls>, which: fn(&Config) -> &Tls, clock: Arc<dyn Clock>) -> Part {
    Part::new(move |config| {
        let identity = identity(config, which(config), &*clock).map_err(|error| format!("{listener} tls: {error}"))?;
        let shown = shown.clone();
        Ok(Replacement::new(move || {
            if let (Some(shown), Some(identity)) = (shown, identity) {
                shown.replace(identity);
            }
        }))
    })
}

/// Says in the log that fewer connections fit than are allowed.
pub(super) fn tell_of_files(limits: &Limits) {
    if let Some(reason) = files::too_few(limits, files::limit()) {
        tracing::warn!("{reason}");
    }
}

/// The limits of connections.
pub(super) fn limits(server: Server, instance: Arc<Instance>) -> Part {
    Part::new(move |config| {
        let outgoing = Arc::clone(&instance.outgoing);
        let (server, limits, proxies) = (server.clone(), config.limits.clone(), config.public.trusted_proxies.clone());
        Ok(Replacement::new(move || {
            tell_of_files(&limits);
            server.set_limits(&limits, &proxies);
            outgoing.set_limits(&limits);
        }))
    })
}

/// The way to the applications: authorities and limits.
pub(super) fn applications(gateway: Arc<Gateway>, instance: Arc<Instance>) -> Part {
    Part::new(move |config| {
        let running = instance.config();
        if running.trust == config.trust && running.limits == config.limits {
            return Ok(Replacement::new(|| ()));
        }
        let gateway = Arc::clone(&gateway);
        let trust = Trust::system(&config.trust.ca).map_err(|error| format!("[trust] ca: {error}"))?;
        let client = Client::new(&trust, &config.limits, instance.outgoing.share(Purpose::Applications));
        Ok(Replacement::new(move || gateway.set_client(client)))
    })
}

/// What the routes ask of the streams that are open.
pub(super) fn routes(gateway: Arc<Gateway>) -> Part {
    Part::new(move |_| {
        let gateway = Arc::clone(&gateway);
        Ok(Replacement::new(move || gateway.reconfigured()))
    })
}

/// The way to the peers: authorities and limits.
pub(super) fn peers(links: Arc<Links>) -> Part {
    Part::new(move |_| {
        let links = Arc::clone(&links);
        Ok(Replacement::new(move || {
            tokio::spawn(async move {
                if let Err(error) = links.reconfigured().await {
                    tracing::error!(%error, "authorities changed while they were read; those before are believed");
                }
            });
        }))
    })
}
