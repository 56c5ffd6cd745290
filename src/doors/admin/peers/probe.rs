//! Looking at a peer: is it there, is it believed, is it who we think, does it offer what we ask for, is its clock right?

use std::time::Duration;

use http::{StatusCode, Uri};
use url::Url;

use crate::doors::admin::{AdminError, AdminState};
use crate::net::client::SendError;
use crate::net::trust::Untrusted;
use crate::outbound::metadata::{CallEndpoint, Metadata};
use crate::outbound::ob_app::{Grant, ObApp, Server};
use crate::outbound::peer::{Peer, PeerTrust, redirect_uri};
use crate::tasks::keeper::NoMetadata;

/// A clock that is off by more is worth a word.
const TOLERATED_SKEW: u64 = 10_000;

/// A certificate that ends sooner is worth a word.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// What is as it should be, as one sentence.
    pub(super) found: String,
    /// What is not, with the fix.
    pub(super) warnings: Vec<String>,
    /// What the server said of itself.
    pub(super) metadata: Option<Metadata>,
}

impl Finding {
    /// Says too what the server of `app` has to know of us, when there was a look at it.
    pub(super) fn tell_redirect_uri(&mut self, state: &AdminState, app: Option<&ObApp>) {
        let uri = app.and_then(|app| redirect_uri_to_register(state, app, self.metadata.as_ref()));
        if let Some(uri) = uri.filter(|_| !self.found.is_empty()) {
            self.found += &format!(" It has to know our redirect URI: {uri}.");
        }
    }
}

/// Looks at `peer`, and at the server of its OB app. Only a certificate that is not believed is an error: everything else may mend itself.
pub(super) async fn look(state: &AdminState, peer: &Peer, app: Option<&ObApp>) -> Result<Finding, AdminError> {
    let mut finding = Finding::default();
    let host = peer.url.host_str().unwrap_or_default().to_owned();
    let client = state.links.client(&peer.trust, peer.guarded).map_err(|error| {
        let attribute = if peer.trust.pin.is_some() { "pin" } else { "ca" };
        AdminError::bad_attribute(attribute, error.to_string(), "sha256: and 64 hexadecimal digits, or certificates in PEM form")
    })?;
    let uri: Uri = peer.url.as_str().parse().map_err(|_| AdminError::bad_attribute("url", peer.url.as_str(), "a URL"))?;
    let mut good = Vec::new();
    match client.certificate(&uri).await {
        Ok(None) => good.push("no TLS (loopback)".to_owned()),
        Ok(Some(certificate)) => match certificate.valid_for(state.instance.clock.now().wall) {
            Some(left) => {
                good.push(format!("certificate valid {} d", left.as_secs() / 86_400));
                if left < SOON {
                    finding.warnings.push(format!("the certificate of {host} ends {}; its owner has to renew it", certificate.not_after));
                }
            }
            // Only a pinned certificate gets here.
            None => finding.warnings.push(format!("the certificate of {host} is not valid now; it is believed because it is pinned")),
        },
        Err(SendError::Untrusted(untrusted)) => return Err(not_trusted(peer, &untrusted)),
        Err(error) => {
            finding.warnings.push(format!("{host} cannot be reached now: {error}. It is tried again by itself"));
            return Ok(finding);
        }
    }
    if let Some(app) = app {
        look_at_server(state, peer, app, &mut good, &mut finding).await?;
    }
    finding.found = format!("reached {host}: {}.", good.join(", "));
    Ok(finding)
}

/// Whether a look at one peer, with its OB app, is a look at the other.
pub(super) fn is_same((peer, app): (&Peer, Option<&ObApp>), (other, other_app): (&Peer, Option<&ObApp>)) -> bool {
    let of_peer = |peer: &Peer| (peer.url.clone(), peer.base_url.clone(), peer.trust.clone(), peer.guarded);
    let of_app = |app: &ObApp| (app.server.clone(), app.grant, app.scope.clone(), app.ca.clone(), app.guarded);
    of_peer(peer) == of_peer(other) && app.map(of_app) == other_app.map(of_app)
}

/// What has to be registered at a server that is no p2pid, where `ib create --peer-url` does it; nothing while that is not known.
fn redirect_uri_to_register(state: &AdminState, app: &ObApp, metadata: Option<&Metadata>) -> Option<String> {
    let is_known = match &app.server {
        Server::Issuer(_) => metadata.is_some_and(|metadata| metadata.p2pi_endpoint.is_none()),
        Server::Endpoints { .. } => true,
    };
    let public_url = &state.instance.config().instance.public_url;
    (is_known && app.grant == Grant::AuthorizationCode).then(|| redirect_uri(public_url.as_str(), app, metadata))
}

async fn look_at_server(
    state: &AdminState,
    peer: &Peer,
    app: &ObApp,
    good: &mut Vec<String>,
    finding: &mut Finding,
) -> Result<(), AdminError> {
    let Server::Issuer(issuer) = &app.server else { return Ok(()) };
    let trust = app.ca.clone().map_or_else(|| peer.trust.clone(), |ca| PeerTrust { ca: Some(ca), pin: None });
    let (metadata, ahead) = match state.links.metadata(app, &trust, issuer).await {
        Ok(found) => found,
        Err(NoMetadata::Untrusted(untrusted)) => return Err(not_trusted(peer, &untrusted)),
        Err(problem) => {
            finding.warnings.push(problem.to_string());
            return Ok(());
        }
    };
    good.push("issuer matches".to_owned());
    let offered = metadata.scopes_supported.as_deref();
    let missing: Vec<&str> =
        app.scope.words().filter(|word| offered.is_some_and(|offered| !offered.iter().any(|scope| scope == word))).collect();
    match (app.scope.is_empty(), missing.as_slice()) {
        (true, _) => {}
        (false, []) => good.push(format!("scope {} offered", app.scope)),
        (false, missing) => {
            let offered = offered.unwrap_or_default().join(" ");
            finding.warnings.push(format!("the peer does not offer the scope {} (it offers: {offered})", missing.join(" ")));
        }
    }
    if app.grant == Grant::AuthorizationCode && metadata.authorization_endpoint.is_none() {
        finding.warnings.push("the peer names no authorization endpoint: nobody can allow the link".to_owned());
    }
    if let (Some(CallEndpoint::OffOrigin(url)), None) = (&metadata.p2pi_endpoint, &peer.base_url) {
        finding
            .warnings
            .push(format!("the peer takes calls at {url}, which is not on its own origin: add --base-url {url} if you trust it"));
    }
    // Elsewhere another resource takes the calls, of which this server says nothing.
    if Url::parse(issuer).is_ok_and(|issuer| issuer.origin() == peer.base(Some(&metadata)).origin())
        && let Some(problem) = state.links.resource_problem(app, &trust, issuer).await
    {
        finding.warnings.push(format!("what the peer says of itself as a protected resource is not believed: {problem}"));
    }
    if let Some(ahead) = ahead {
        // The peer's Date header has whole seconds, so nothing finer is known.
        let seconds = ahead / 1_000;
        if ahead.unsigned_abs() > TOLERATED_SKEW {
            finding.warnings.push(format!("the peer's clock is {seconds:+} s off ours; set both by NTP"));
        } else if seconds == 0 {
            good.push("clock within 1 s".to_owned());
        } else {
            good.push(format!("clock {seconds:+} s"));
        }
    }
    finding.metadata = Some(metadata);
    Ok(())
}

/// The answer to a certificate that nobody vouches for: its fingerprint, and the flag that trusts it for this peer only.
fn not_trusted(peer: &Peer, untrusted: &Untrusted) -> AdminError {
    let message = format!("the certificate of {} is not trusted: {}", untrusted.host, untrusted.reason);
    AdminError::new(StatusCode::CONFLICT, "untrusted_certificate", message)
        .found(untrusted.pin.to_string())
        .expected("a certificate from an authority that is known, or one that is pinned")
        .next(format!(
            "compare the fingerprint with the one on {}; then repeat the command with --pin {} (or --ca FILE), which holds for the peer {} only",
            untrusted.host, untrusted.pin, peer.name
        ))
}
