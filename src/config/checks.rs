//! Rules between keys: what each key says is fine by itself, and together they are not.

use std::path::Path;

use super::build::{Listening, PlacedRoute};
use super::section::{Findings, Placed};
use super::tree::quoted;
use super::{BUILT_IN_PATHS, Listen, OfferedScope, Paths, PublicUrl, Tls};
use crate::oauth::loopback::{is_loopback, is_loopback_address};

/// Tokens and passwords do not cross a network in clear.
pub(super) fn clear_text(tls: &Placed<Tls>, listen: &[Placed<Listen>], findings: &Findings) {
    if tls.value != Tls::Off {
        return;
    }
    for placed in listen {
        if let Listen::Tcp(address) = placed.value
            && !is_loopback_address(address.ip())
        {
            let found = format!("{address} without TLS");
            findings.note(placed.at, placed.key.clone(), found, format!("a loopback address, or a certificate in `{}`", tls.key));
        }
    }
}

/// Certificates are shown in a TLS handshake.
pub(super) fn asks_for_certificates(tls: &Placed<Tls>, listen: &[Placed<Listen>], findings: &Findings) {
    for placed in listen {
        match &placed.value {
            Listen::Unix(_) => findings.note(placed.at, placed.key.clone(), "a Unix socket, which has no TLS", "an address with port"),
            Listen::Tcp(address) if tls.value == Tls::Off => {
                let expected = format!("a certificate of ours in `{}`, or in `public.tls`", tls.key);
                findings.note(placed.at, placed.key.clone(), format!("{address} without TLS"), expected);
            }
            Listen::Tcp(_) => {}
        }
    }
}

/// What is served under both URLs is served at the same paths.
pub(super) fn mtls_public_url(url: &Placed<PublicUrl>, public_url: &PublicUrl, findings: &Findings) {
    let found = quoted(url.value.as_str());
    let path = public_url.url().path();
    if url.value.url().scheme() != "https" {
        findings.note(url.at, url.key.clone(), found, "an https URL: certificates are shown in TLS");
    } else if url.value.url().path() != path {
        let expected = format!("the path of instance.public_url, {path}");
        findings.note(url.at, url.key.clone(), found, expected);
    }
}

/// Whoever may call without a key must be on this host.
pub(super) fn open(open: &Option<Placed<bool>>, listen: &[Placed<Listen>], findings: &Findings) {
    let Some(open) = open.as_ref().filter(|open| open.value) else { return };
    for placed in listen {
        if let Listen::Tcp(address) = placed.value
            && !is_loopback_address(address.ip())
        {
            let found = format!("true, with local.listen on {address}");
            findings.note(open.at, open.key.clone(), found, "false, or only loopback addresses and Unix sockets in local.listen");
        }
    }
}

/// An issuer in clear is for trying things out on one host.
pub(super) fn public_url(url: &Placed<PublicUrl>, tls: &Tls, findings: &Findings) {
    let is_clear = url.value.url().scheme() == "http";
    let host_is_local = is_loopback(url.value.url());
    let found = quoted(url.value.as_str());
    if is_clear && !(host_is_local && *tls == Tls::Off) {
        findings.note(url.at, url.key.clone(), found, "an https URL (http only with a loopback host and `public.tls = \"off\"`)");
    }
}

/// Where peers call us must lead somewhere.
pub(super) fn p2pi_path(path: &Placed<String>, routes: &[PlacedRoute], findings: &Findings) {
    if !routes.iter().any(|route| lies_within(&path.value, &route.route.value.path)) {
        let known: Vec<&str> = routes.iter().map(|route| route.route.value.path.as_str()).collect();
        let expected =
            if known.is_empty() { "a [[route]] for it".to_owned() } else { format!("a path of or below a route: {}", known.join(", ")) };
        findings.note(path.at, path.key.clone(), quoted(&path.value), expected);
    }
}

/// Routes: no two alike, none where we answer ourselves, and none below one that passes encoded slashes.
pub(super) fn routes(routes: &[PlacedRoute], admin_api: bool, findings: &Findings) {
    for (position, placed) in routes.iter().enumerate() {
        let route = &placed.route;
        let path = &route.value.path;
        let found = quoted(path);
        if routes[..position].iter().any(|earlier| earlier.route.value.path == *path) {
            findings.note(route.at, route.key.clone(), format!("{found}, which an earlier route has"), "one route for each path");
        }
        let ours = BUILT_IN_PATHS.iter().copied().chain(admin_api.then_some(super::ADMIN_API_PATH));
        if let Some(ours) = ours.into_iter().find(|ours| lies_within(path, ours)) {
            findings.note(route.at, route.key.clone(), found, format!("a path that is not {ours} or below it, where p2pid itself answers"));
        }
        let below = |other: &&PlacedRoute| other.route.value.path != *path && lies_within(&other.route.value.path, path);
        if route.value.paths == Paths::Raw
            && let Some(below) = routes.iter().find(below)
        {
            let key = route.key.replace(".path", ".paths");
            let found = format!("\"raw\", with the route {} below it", below.route.value.path);
            findings.note(placed.paths, key, found, "\"strict\": with encoded slashes in play a request could choose between the two");
        }
    }
}

/// A route asks only for scopes that a peer of its tenant can be given.
pub(super) fn route_scopes(routes: &[PlacedRoute], scopes: &[Placed<(String, OfferedScope)>], findings: &Findings) {
    for route in routes {
        let tenant = &route.route.value.tenant;
        for scope in &route.scopes {
            let offered = scopes.iter().map(|placed| &placed.value).find(|(name, _)| *name == scope.value);
            match offered {
                None => findings.note(scope.at, scope.key.clone(), quoted(&scope.value), "a scope that [scopes] describes"),
                Some((_, offered)) if offered.tenant != *tenant => {
                    let found = format!("{}, a scope of tenant {}", quoted(&scope.value), offered.tenant);
                    findings.note(scope.at, scope.key.clone(), found, format!("a scope of the route's tenant {tenant}"));
                }
                Some(_) => {}
            }
        }
    }
}

/// No address is listened on twice; port 0 is a different one each time.
pub(super) fn addresses(listening: &Listening, findings: &Findings) {
    let mut seen: Vec<&Placed<Listen>> = Vec::new();
    for placed in listening.public.iter().chain(&listening.mtls).chain(&listening.local).chain(&listening.console) {
        if let Some(first) = seen.iter().find(|first| collide(&first.value, &placed.value)) {
            let found = format!("{}, which {} has", placed.value, first.key);
            findings.note(placed.at, placed.key.clone(), found, "an address of its own for each listener");
        }
        seen.push(placed);
    }
    let admin = &listening.admin;
    if let Some(first) = seen.iter().find(|first| is_socket(&first.value, &admin.value)) {
        let found = format!("{}, which {} has", admin.value.display(), first.key);
        findings.note(admin.at, admin.key.clone(), found, "a socket of its own for the command line");
    }
}

fn collide(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Unix(one), Listen::Unix(other)) => one == other,
        (Listen::Tcp(one), Listen::Tcp(other)) => {
            let same_host =
                one.ip() == other.ip() || (one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified()));
            one.port() != 0 && one.port() == other.port() && same_host
        }
        _ => false,
    }
}

fn is_socket(listen: &Listen, path: &Path) -> bool {
    matches!(listen, Listen::Unix(socket) if socket == path)
}

/// Whether `path` is `prefix` or lies below it, on segment boundaries.
fn lies_within(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
