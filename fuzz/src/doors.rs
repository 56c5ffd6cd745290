//! Readers of single doors: who may be a browser, who asks the admin API, a token in a query, which rows of the audit are wanted.

use std::sync::{Arc, LazyLock};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use p2pid::doors::admin::{access, audit};
use p2pid::doors::gateway::query_token;
use p2pid::doors::local_browser;
use p2pid::outbound::client;
use p2pid::store::Store;
use p2pid::store::audit::list::rows;
use p2pid::system::SystemClock;
use tokio::runtime::Runtime;
use url::{Host, Url};

use crate::headers;

/// Lines `name:value`: the head of a request that a browser may have sent to a listener on port 7490 of this host.
pub fn browser_guard(data: &[u8]) {
    let Some(came) = headers(data) else { return };
    let (hosts, origins) = (["console.example".to_owned()], ["https://tool.example".to_owned()]);
    let check = |headers: &HeaderMap| local_browser::check(&Uri::from_static("/"), headers, 7490, &hosts, &origins);
    if check(&came).is_err() {
        return;
    }
    let named: Vec<Option<&str>> = came.get_all(HOST).iter().map(|host| host.to_str().ok()).collect();
    assert!(named.windows(2).all(|pair| pair[0] == pair[1]), "{named:?}");
    // Wherever a browser connects to for that name, it is here.
    if let Some(Some(host)) = named.first()
        && let Ok(url) = Url::parse(&format!("http://{host}/"))
    {
        let is_here = match url.host() {
            Some(Host::Domain(name)) => name == "console.example" || name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
            None => false,
        };
        assert!(is_here, "{host} is let in, and {url} is elsewhere");
    }
    for foreign in ["https://evil.example", "null", "http://127.0.0.1:7490.evil.example", "http://localhost"] {
        let mut crossed = came.clone();
        crossed.append(ORIGIN, foreign.parse().expect("an origin"));
        assert!(check(&crossed).is_err(), "{foreign} asks: {named:?}");
    }
}

/// A target of a request.
pub fn query_token(data: &[u8]) {
    let Ok(target) = PathAndQuery::try_from(data) else { return };
    let is_the_token = |pair: &str| form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| name == "access_token");
    let pairs: Vec<&str> = target.query().unwrap_or_default().split('&').collect();
    match query_token::taken(&target) {
        Some((token, rest)) => {
            let found: Vec<_> = form_urlencoded::parse(target.query().unwrap_or_default().as_bytes())
                .filter(|(name, _)| name == "access_token")
                .map(|(_, value)| value.into_owned())
                .collect();
            assert_eq!(found, [token]);
            assert_eq!(rest.path(), target.path());
            let left: Vec<&str> = pairs.iter().copied().filter(|pair| !is_the_token(pair)).collect();
            assert_eq!(rest.query().unwrap_or_default(), left.join("&"), "the application gets everything else as it was sent");
        }
        None => assert_ne!(pairs.iter().filter(|pair| is_the_token(pair)).count(), 1, "{target}"),
    }
}

/// A query of the audit; what is wanted is looked for.
pub fn audit_query(data: &[u8]) {
    static STORE: LazyLock<(Store, Runtime)> = LazyLock::new(|| {
        let folder = std::env::temp_dir().join(format!("p2pid-fuzz-audit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let store = Store::open(&folder, None, Arc::new(SystemClock::new())).expect("a new store");
        (store, tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"))
    });
    let Ok(wanted) = audit::wanted(data) else { return };
    assert!((1..=1000).contains(&wanted.limit));
    assert!(wanted.after.is_none_or(|id| id >= 0) && wanted.before.is_none_or(|id| id >= 0));
    assert!(wanted.actions.as_ref().is_none_or(|actions| !actions.is_empty()));
    let (store, runtime) = &*STORE;
    let (since, limit) = (wanted.since, wanted.limit);
    let found = runtime.block_on(store.read(move |connection| rows(connection, &wanted))).expect("whatever is asked can be looked for");
    assert!(found.len() <= limit && found.is_sorted_by_key(|row| row.id));
    assert!(found.iter().all(|row| since.is_none_or(|since| since.millis() <= row.at.millis())), "{found:?}");
}

/// Lines `name:value`: the head of a request to the admin API.
pub fn admin_credentials(data: &[u8]) {
    let Some(came) = headers(data) else { return };
    let Some((login, key)) = access::basic(&came) else { return };
    assert!(!login.contains(':') && came.get_all(AUTHORIZATION).iter().count() == 1, "{login:?} {key:?}");
    // What our own side writes of the two is read as the same two.
    let written = HeaderMap::from_iter([(AUTHORIZATION, client::basic(&login, &key))]);
    assert_eq!(access::basic(&written), Some((login, key)));
    let mut twice = came.clone();
    twice.append(AUTHORIZATION, client::basic("a", "b"));
    assert_eq!(access::basic(&twice), None, "who asks twice is nobody");
}
