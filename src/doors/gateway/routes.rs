//! The routes of one configuration, ready for calls: longest path first, what is answered made beforehand.

use std::sync::Arc;

use http::{HeaderValue, Method};

use crate::config::{self, Config, Paths};
use crate::doors::call;
use crate::inbound::permit::RouteRule;
use crate::net::life::Needed;
use crate::net::path::{BadPath, Path, Upstream, below};
use crate::oauth::bearer::{self, Challenge};
use crate::oauth::scope::Scope;
use crate::observe::calls::{Calls, Series};

/// The routes of one configuration.
pub(super) struct Routes {
    /// Which configuration's.
    pub(super) config: Arc<Config>,
    /// The routes themselves.
    pub(super) table: Table,
    /// 401 without a token.
    pub(super) no_token: HeaderValue,
    /// 401 with a token that does not hold.
    pub(super) invalid_token: HeaderValue,
    /// 400 with a token presented wrongly.
    pub(super) invalid_request: HeaderValue,
    /// 401 with a bound token and no proof by its key.
    pub(super) other_key: HeaderValue,
    /// 401 with a proof that does not hold.
    pub(super) invalid_proof: HeaderValue,
    /// 401 with a proof that lacks a nonce.
    pub(super) use_nonce: HeaderValue,
}

/// One route.
pub(super) struct Route {
    /// Its path as it is asked for, without a slash at the end.
    prefix: String,
    paths: Paths,
    /// All of these are needed.
    scopes: Arc<Scope>,
    /// The same, for streams: it is that of the route with this path in the configuration before, and becomes what this one says.
    pub(super) needed: Arc<Needed>,
    methods: Option<Vec<Method>>,
    tenant: String,
    /// Where its calls go.
    pub(super) upstream: Upstream,
    /// Its methods, as a 405 names them.
    pub(super) allow: HeaderValue,
    /// 403 with a token that lacks a scope.
    pub(super) insufficient_scope: HeaderValue,
    /// Where its calls are counted.
    pub(super) series: Series,
    /// As the configuration writes it.
    path: String,
}

/// Why a path leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// It could be read in two ways.
    Bad(BadPath),
    /// There is none.
    Missing,
}

impl Routes {
    pub(super) fn new(config: Arc<Config>, calls: &Calls) -> Self {
        let metadata = metadata_url(&config);
        let (no_token, invalid_token) = (Challenge::NoToken.header(&metadata), Challenge::InvalidToken.header(&metadata));
        let invalid_request = Challenge::InvalidRequest.header(&metadata);
        let dpop = |error: &str| bearer::dpop_challenge(&metadata, error);
        let (other_key, invalid_proof, use_nonce) = (dpop("invalid_token"), dpop("invalid_dpop_proof"), dpop("use_dpop_nonce"));
        // Peers call below public_url, and a proxy in front may take its path away or leave it: each route is at both places.
        let base = config.instance.public_url.url().path().trim_end_matches('/');
        let places = if base.is_empty() { vec![""] } else { vec![base, ""] };
        let routes = places.iter().flat_map(|base| config.routes.iter().map(move |route| (base, route)));
        let table = Table::new(routes.filter_map(|(base, route)| Route::new(base, route, &metadata, calls)).collect());
        Self { config, table, no_token, invalid_token, invalid_request, other_key, invalid_proof, use_nonce }
    }

    /// Takes the place of `old`: streams that are open at a route of that rest on the one with the same path and tenant here, and end where there
    /// is none. Those at another upstream or by another method than it has now were let in, and go on. Routes that are not here any more are taken
    /// out of the metrics.
    pub(super) fn succeed(&mut self, old: &Self, calls: &Calls) {
        for before in &old.table.0 {
            match self.table.0.iter_mut().find(|route| route.takes_the_place_of(before)) {
                Some(route) => {
                    before.needed.becomes(Arc::clone(&route.scopes));
                    route.needed = Arc::clone(&before.needed);
                }
                None => before.needed.ends(),
            }
        }
        let is_gone = |route: &&Route| !self.table.0.iter().any(|kept| kept.path == route.path);
        old.table.0.iter().filter(is_gone).for_each(|route| calls.forget(&route.path));
    }
}

/// Routes, longest path first.
pub(super) struct Table(Vec<Route>);

impl Table {
    fn new(mut routes: Vec<Route>) -> Self {
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Self(routes)
    }

    /// The route that takes `path`, and what follows the route's own path.
    pub(super) fn find<'p>(&self, path: &'p Path<'_>) -> Result<(&Route, &'p str), NoRoute> {
        let text = path.as_str();
        let found = self.0.iter().find_map(|route| below(text, &route.prefix).map(|rest| (route, rest)));
        // Path parameters are cut off by some servers before they look at a path: that must not lead to another route than ours.
        if text.contains(';') {
            let without: String =
                text.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/");
            let also = self.0.iter().find(|route| below(&without, &route.prefix).is_some());
            if found.map(|(route, _)| &route.prefix) != also.map(|route| &route.prefix) {
                return Err(NoRoute::Bad(BadPath::ParameterInRoute));
            }
        }
        match (found, path.strictly()) {
            (Some((route, _)), Err(bad)) if route.paths == Paths::Strict => Err(NoRoute::Bad(bad)),
            (Some(found), _) => Ok(found),
            (None, Err(bad)) => Err(NoRoute::Bad(bad)),
            (None, Ok(())) => Err(NoRoute::Missing),
        }
    }
}

impl Route {
    /// The route as it is found below `base`; `None` for an upstream that is no HTTP URL, which a checked configuration does not have.
    fn new(base: &str, route: &config::Route, metadata: &str, calls: &Calls) -> Option<Self> {
        let listed = |methods: &Vec<Method>| methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let scopes = Arc::new(route.scopes.clone());
        Some(Self {
            prefix: format!("{base}{}", route.path.trim_end_matches('/')),
            paths: route.paths,
            scopes: Arc::clone(&scopes),
            needed: Arc::new(Needed::new(scopes)),
            methods: route.methods.clone(),
            tenant: route.tenant.clone(),
            upstream: Upstream::new(&route.upstream)?,
            allow: route.methods.as_ref().and_then(|methods| HeaderValue::try_from(listed(methods)).ok()).unwrap_or(call::ALLOW),
            insufficient_scope: Challenge::InsufficientScope(&route.scopes).header(metadata),
            series: calls.series(&route.path),
            path: route.path.clone(),
        })
    }

    /// Whether it is where `before` was, for the same callers. Below the path of a public_url two routes may have one prefix.
    fn takes_the_place_of(&self, before: &Self) -> bool {
        let is_there = self.prefix == before.prefix && self.path.trim_end_matches('/') == before.path.trim_end_matches('/');
        is_there && self.tenant == before.tenant
    }

    /// What it demands of a call.
    pub(super) fn rule(&self) -> RouteRule<'_> {
        RouteRule { scopes: &self.scopes, methods: self.methods.as_deref(), tenant: &self.tenant }
    }
}

/// Where the metadata of this protected resource is (RFC 9728 §3.1): the well-known path stands before the issuer's own.
fn metadata_url(config: &Config) -> String {
    let public = &config.instance.public_url;
    let path = public.url().path().trim_end_matches('/');
    format!("{}/.well-known/oauth-protected-resource{path}", public.origin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Metrics;

    fn routes(paths: &[(&str, Paths)]) -> Table {
        let metadata = "https://two.example/.well-known/oauth-protected-resource";
        let route = |(path, paths): &(&str, Paths)| config::Route {
            path: (*path).to_owned(),
            upstream: "http://127.0.0.1:8080/base".parse().expect("a URL"),
            scopes: "p2pi".parse().expect("a scope"),
            methods: None,
            tenant: "default".to_owned(),
            paths: *paths,
        };
        Table::new(paths.iter().filter_map(|given| Route::new("", &route(given), metadata, &Metrics::new().gateway)).collect())
    }

    fn found(routes: &Table, asked: &str) -> Result<(String, String), NoRoute> {
        let path = Path::read(asked).map_err(NoRoute::Bad)?;
        routes.find(&path).map(|(route, rest)| (route.prefix.clone(), rest.to_owned()))
    }

    #[test]
    fn the_longest_path_wins_on_segment_boundaries() {
        let routes = routes(&[("/p2pi", Paths::Strict), ("/", Paths::Strict), ("/p2pi/admin/", Paths::Strict), ("/p2pix", Paths::Strict)]);
        for (asked, prefix, rest) in [
            ("/p2pi", "/p2pi", ""),
            ("/p2pi/", "/p2pi", "/"),
            ("/p2pi/orders", "/p2pi", "/orders"),
            ("/p2pi/%61dmin/x", "/p2pi/admin", "/x"),
            ("/p2pi/administration", "/p2pi", "/administration"),
            ("/p2pix/y", "/p2pix", "/y"),
            ("/p2piy", "", "/p2piy"),
            ("/", "", "/"),
        ] {
            assert_eq!(found(&routes, asked), Ok((prefix.to_owned(), rest.to_owned())), "{asked}");
        }
    }

    #[test]
    fn a_path_without_a_route_is_missing_and_an_ambiguous_one_is_bad() {
        let strict = routes(&[("/p2pi", Paths::Strict), ("/raw", Paths::Raw)]);
        assert_eq!(found(&strict, "/other"), Err(NoRoute::Missing));
        assert_eq!(found(&strict, "/p2pi//x"), Err(NoRoute::Bad(BadPath::EmptySegment)));
        assert_eq!(found(&strict, "/p2pi/a%2fb"), Err(NoRoute::Bad(BadPath::EncodedSlash)));
        assert_eq!(found(&strict, "//p2pi/x"), Err(NoRoute::Bad(BadPath::EmptySegment)));
        assert_eq!(found(&strict, "/raw/a//b%2fc"), Ok(("/raw".to_owned(), "/a//b%2fc".to_owned())));
        assert_eq!(found(&strict, "/raw/..%2fp2pi"), Err(NoRoute::Bad(BadPath::DotSegment)));
    }

    #[test]
    fn a_path_parameter_does_not_lead_to_another_route() {
        let routes = routes(&[("/admin", Paths::Strict), ("/", Paths::Strict)]);
        assert_eq!(found(&routes, "/admin;x=1/users"), Err(NoRoute::Bad(BadPath::ParameterInRoute)));
        assert_eq!(found(&routes, "/admin;"), Err(NoRoute::Bad(BadPath::ParameterInRoute)));
        assert!(found(&routes, "/admin/users;x=1").is_ok());
        assert!(found(&routes, "/orders;x=1").is_ok());
    }
}
