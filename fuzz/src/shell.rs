//! Readers of the shell: configuration, documents of the admin API, cookies, names, sealed values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::{env, fs, process};

use http::HeaderMap;
use http::header::COOKIE;
use p2pid::config;
use p2pid::doors::admin::document;
use p2pid::doors::browser;
use p2pid::id::Id;
use p2pid::net::certificate::Pin;
use p2pid::net::problem::REQUEST_ID;
use p2pid::net::request_id;
use p2pid::oauth::pkce::Challenge;
use p2pid::oauth::token::{self, Kind};
use p2pid::outbound::ob_app;
use p2pid::store::{Place, Store};
use p2pid::system::SystemClock;

use crate::headers;

/// A folder of this process's own, where temporary files belong.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = env::temp_dir().join(format!("p2pid-fuzz-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
});

/// A configuration file.
pub fn configuration(data: &[u8]) {
    // Devices and pipes are read as certificates where a file names them; they may have no end.
    if data.windows(5).any(|window| window == b"/dev/" || window == b"/proc") {
        return;
    }
    let file = FOLDER.join("fuzzed.toml");
    fs::write(&file, data).expect("a file");
    let (_, outcome) = config::attempt(&file);
    let located = config::locate(&file);
    match outcome {
        Ok(config) => assert_eq!((located.name, located.state_dir), (config.instance.name, config.instance.state_dir)),
        Err(problems) => {
            assert!(problems.iter().len() > 0);
            let lines = data.split(|byte| *byte == b'\n').count();
            for problem in problems.iter() {
                assert!((1..=lines.max(1)).contains(&problem.line) && problem.column >= 1, "{problem}");
                assert!(!problem.what().chars().any(char::is_control), "{problem}");
            }
            for color in [false, true] {
                assert!(!problems.annotated(color).is_empty());
            }
            serde_json::to_string(&problems).expect("JSON");
        }
    }
}

/// Attributes of each type that the admin API's documents have.
#[derive(Debug, PartialEq, serde::Deserialize, serde::Serialize)]
struct Attributes {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_native: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grants: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<serde_json::Value>,
}

/// A document of the admin API.
pub fn admin_document(data: &[u8]) {
    let Ok(read) = document::attributes::<Attributes>("thing", data) else { return };
    let whole: serde_json::Value = serde_json::from_slice(data).expect("JSON");
    assert_eq!(whole["data"]["type"], "thing");
    assert_eq!(whole["data"]["attributes"]["name"], read.name.as_str());
    let written = serde_json::json!({ "data": { "type": "thing", "attributes": &read } }).to_string();
    assert_eq!(document::attributes::<Attributes>("thing", written.as_bytes()).ok(), Some(read));
}

/// Lines `name:value` with cookies.
pub fn cookies(data: &[u8]) {
    const NAME: &str = "__Host-p2pid-session-0123abcd";
    let Some(headers) = headers(data) else { return };
    let Some(value) = browser::cookie(&headers, NAME) else { return };
    assert!(!value.contains(';') && value.trim_end() == value);
    // Twice is as good as never.
    let mut doubled: HeaderMap = headers.clone();
    doubled.append(COOKIE, format!("{NAME}=other").parse().expect("a cookie"));
    assert_eq!(browser::cookie(&doubled, NAME), None);
    assert_ne!(browser::cookie(&headers, "__Host-p2pid-login-0123abcd"), Some("no such cookie"));
}

/// The short texts that have a form of their own.
pub fn words(data: &[u8]) {
    if let Ok(value) = http::HeaderValue::from_bytes(data)
        && let Some(given) = request_id::given(&HeaderMap::from_iter([(REQUEST_ID, value.clone())]))
    {
        assert!(given == value && given.to_str().is_ok_and(|text| text.len() <= 64 && !text.contains(' ')));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(pin) = text.parse::<Pin>() {
        assert_eq!(pin.to_string().parse(), Ok(pin));
    }
    if let Ok(id) = text.parse::<Id>() {
        assert_eq!(id.to_string().parse::<Id>().ok(), Some(id));
    }
    if let Ok(challenge) = text.parse::<Challenge>() {
        assert!(challenge.as_str() == text && !challenge.is_met_by(text));
    }
    let kinds = [Kind::Access, Kind::Refresh, Kind::Code, Kind::Ticket, Kind::ClientSecret, Kind::ApiKey, Kind::CallerKey, Kind::Session];
    assert!(kinds.into_iter().filter(|kind| token::digest_if(*kind, text).is_some()).count() <= 1, "{text} is of two kinds");
    if ob_app::is_name(text) {
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#%&=\\".contains(&byte)));
    }
    for url in [ob_app::base_url(text), ob_app::endpoint_url(text)].into_iter().flatten() {
        assert!(url.scheme() == "https" || p2pid::oauth::loopback::is_loopback(&url), "{url}");
        assert_eq!(ob_app::endpoint_url(url.as_str()).as_ref(), Ok(&url), "what is stored is read again");
    }
}

/// A value as it stands in the database.
pub fn sealed(data: &[u8]) {
    static STORE: LazyLock<Store> = LazyLock::new(|| {
        let folder = FOLDER.join("state");
        fs::create_dir_all(&folder).expect("a folder");
        Store::open(&folder, None, Arc::new(SystemClock::new())).expect("a new store")
    });
    let seals = STORE.seals();
    let place = Place { table: "peer", column: "secret", row: b"row" };
    assert!(seals.open(place, data).is_err(), "nobody else seals with our key");
    assert!(seals.open_bound(place, &[b"bound"], data).is_err());
    let sealed = seals.seal(place, data);
    assert_eq!(seals.open(place, &sealed).as_deref().map(Vec::as_slice), Ok(data));
    assert!(seals.open(Place { row: b"other", ..place }, &sealed).is_err());
    // One bit anywhere, and an end anywhere.
    let at = data.iter().fold(0, |sum, byte| (sum * 31 + usize::from(*byte)) % sealed.len());
    let mut changed = sealed.clone();
    changed[at] ^= 1;
    assert!(seals.open(place, &changed).is_err() && seals.open(place, &sealed[..at]).is_err());
}
