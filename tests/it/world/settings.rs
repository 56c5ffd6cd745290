//! One instance of the world: its folder, its addresses, its configuration file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::address::{free_ports, own_address};

/// Everything that is fixed before a daemon starts, in process or as a process.
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) public: SocketAddr,
    /// Where it listens for clients with certificates, if it does.
    pub(crate) mtls: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) console: SocketAddr,
    /// The path of its `public_url`; empty, or with a slash in front and none at its end.
    path: &'static str,
    folder: TempDir,
}

impl Settings {
    /// An instance with addresses of its own, one route `/p2pi` to `upstream`, and the scope `p2pi` for it.
    pub(crate) fn new(name: &str, upstream: &str) -> Self {
        let address = own_address();
        let [public, mtls, local, console] = free_ports(address);
        let settings = Self {
            name: name.to_owned(),
            public,
            mtls,
            local,
            console,
            path: "",
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let text = format!(
            r#"[instance]
name = "{name}"
public_url = "https://{public}"
state_dir = "state"

[public]
listen = ["{public}"]
tls = "self-signed"

[local]
listen = ["{local}"]

[console]
listen = ["{console}"]

[[route]]
path = "/p2pi"
upstream = "{upstream}"
scopes = ["p2pi"]

[scopes]
p2pi = "Call this instance's platform interface"
"#
        );
        std::fs::write(settings.config(), text).expect("the temporary folder can be written");
        settings
    }

    /// Adds to the configuration, or says otherwise: a file in `NAME.d`.
    pub(crate) fn says(&self, file: &str, toml: &str) {
        let folder = self.folder.path().join(format!("{}.d", self.name));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        std::fs::write(folder.join(file), toml).expect("the temporary folder can be written");
    }

    /// Listens for clients with certificates, with `more` in `[mtls]`.
    pub(crate) fn offers_mtls(&self, more: &str) {
        let mtls = self.mtls;
        self.says("mtls.toml", &format!("[mtls]\nlisten = [\"{mtls}\"]\npublic_url = \"https://{mtls}\"\n{more}\n"));
    }

    /// Puts its `public_url` below `path`.
    pub(crate) fn stands_below(&mut self, path: &'static str) {
        self.path = path;
        self.says("path.toml", &format!("[instance]\npublic_url = \"{}\"\n", self.url()));
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join(format!("{}.toml", self.name))
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Another connection to the running daemon's database.
    pub(crate) fn reads_database(&self) -> rusqlite::Connection {
        let files = std::fs::read_dir(self.state_dir()).expect("the state folder");
        let mut files = files.map(|entry| entry.expect("a file").path());
        let database = files.find(|path| path.extension().is_some_and(|kind| kind == "db")).expect("a database");
        rusqlite::Connection::open(database).expect("it opens")
    }

    /// The same, which keeps everybody else from writing until it ends its transaction.
    pub(crate) fn blocks_database(&self) -> rusqlite::Connection {
        let blocker = self.reads_database();
        blocker.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes now");
        blocker
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.state_dir().join("admin.sock")
    }

    /// The issuer.
    pub(crate) fn url(&self) -> String {
        format!("https://{}{}", self.public, self.path)
    }

    /// The certificate that stands for it; there once it has started.
    pub(crate) fn authority(&self) -> PathBuf {
        self.state_dir().join("tls/cert.pem")
    }
}

/// An HTTP/1.1 request with a body of this length, for a [`super::wire::Wire`].
pub(crate) fn request(method: &str, target: &str, host: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}
