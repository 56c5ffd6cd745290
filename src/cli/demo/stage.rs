//! The stage of the demo: a folder for everything, two instances made by `p2pid init`, an application behind each, two daemons.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::application::Application;
use super::command::{CommandLine, Outcome};
use super::daemon::{Daemon, NotReady};
use crate::random;
use crate::system::SystemRandom;

/// Why the stage could not be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error("the demo's folder or sockets: {0}")]
    System(#[from] io::Error),
    #[error("`{command}` failed: {}", outcome.stderr.trim())]
    Init { command: String, outcome: Outcome },
    #[error("{name}: {why}")]
    Daemon { name: &'static str, why: NotReady },
}

/// Both instances. What it made on disk goes with it.
pub(super) struct Stage {
    pub(super) one: Side,
    pub(super) two: Side,
    _folder: Folder,
}

/// One instance with its application.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) public_url: String,
    pub(super) local: SocketAddr,
    pub(super) application: Application,
    pub(super) commands: CommandLine,
    daemon: Option<Daemon>,
    program: PathBuf,
    config: PathBuf,
    state: PathBuf,
}

impl Stage {
    /// Makes everything but the daemons: folder, applications, configurations.
    pub(super) async fn set(program: &Path) -> Result<Self, StageError> {
        let folder = Folder::new()?;
        let one = Side::new("instance1", "customers", program, &folder.0).await?;
        let two = Side::new("instance2", "orders", program, &folder.0).await?;
        Ok(Self { one, two, _folder: folder })
    }

    /// Stops both daemons in order.
    pub(super) async fn clear(&mut self) {
        tokio::join!(self.one.stop(), self.two.stop());
    }
}

impl Side {
    async fn new(name: &'static str, application: &str, program: &Path, folder: &Path) -> Result<Self, StageError> {
        let application = Application::start(application, (Ipv4Addr::LOCALHOST, 0).into()).await?;
        let [public, local, console] = free_ports()?;
        let public_url = format!("https://{public}");
        let (config, state) = (folder.join(format!("{name}.toml")), folder.join(name));
        let upstream = application.url();
        let directory = folder.to_string_lossy().into_owned();
        let init = ["init", name, "--public-url", &public_url, "--upstream", &upstream, "--dir", &directory, "--tls", "self-signed"];
        let anywhere = CommandLine::new(program);
        let outcome = anywhere.run(&init, None).await?;
        if !outcome.status.success() {
            return Err(StageError::Init { command: anywhere.written(&init), outcome });
        }
        // Two instances on one machine need ports of their own; a host with one instance takes the usual ones.
        let own = format!("[local]\nlisten = [\"{local}\"]\n\n[console]\nlisten = [\"{console}\"]\n");
        let additions = folder.join(format!("{name}.d"));
        std::fs::create_dir_all(&additions)?;
        std::fs::write(additions.join("demo.toml"), own)?;
        let commands = CommandLine::of(program, &config);
        Ok(Self { name, public_url, local, application, commands, daemon: None, program: program.to_owned(), config, state })
    }

    /// Starts the daemon. Gives how long it took until it was ready.
    pub(super) async fn start(&mut self) -> Result<Duration, StageError> {
        let log = self.config.with_extension("log");
        let none: [(&str, &str); 0] = [];
        let daemon = Daemon::start(&self.program, &self.config, &log, none).await;
        let daemon = self.daemon.insert(daemon.map_err(|why| StageError::Daemon { name: self.name, why })?);
        Ok(daemon.ready_after())
    }

    /// The certificate that stands for it.
    pub(super) fn certificate(&self) -> PathBuf {
        self.state.join("tls/cert.pem")
    }

    /// Its configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// The last lines of its log.
    pub(super) fn log(&self) -> String {
        let log = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    async fn stop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // One that cannot be waited for is killed when it is dropped.
            let _ = daemon.stop().await;
        }
    }
}

/// A folder that only we may read, removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("p2pid-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing is lost when it stays: the next demo has another.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ports that are free now, all different. They lie below those that the system gives to outgoing connections, so that none of these takes
/// one before its daemon does.
fn free_ports<const N: usize>() -> io::Result<[SocketAddr; N]> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    const ATTEMPTS: usize = 1000;
    let mut held: Vec<TcpListener> = Vec::new();
    for _ in 0..ATTEMPTS {
        let port = FIRST + u16::from_be_bytes(random::bytes(&SystemRandom)) % COUNT;
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if held.len() == N {
            break;
        }
    }
    let ports: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    ports.try_into().map_err(|_| io::Error::from(io::ErrorKind::AddrInUse))
}
