//! A daemon as a child process: started, waited for until it says READY=1, stopped or killed, its log kept.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

/// How long a start may take, far beyond what it does take.
const START: Duration = Duration::from_secs(30);
/// How long a stop may take: the default drain and then some.
const STOP: Duration = Duration::from_secs(30);

/// A daemon that is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// The system does not let us.
    #[error("the daemon cannot be started: {0}")]
    System(#[from] io::Error),
    /// It ended instead.
    #[error("the daemon ended before it was ready ({status}); its log: {log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said.
        log: String,
    },
    /// It never said that it was ready.
    #[error("the daemon was not ready after {} s; its log: {log}", START.as_secs())]
    Silent {
        /// What it said.
        log: String,
    },
}

/// A running daemon. It dies with this value, and with the process that started it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    ready_after: Duration,
}

impl Daemon {
    /// Starts `p2pid -c CONFIG run` from the binary `program` and waits until it is ready. Its log is appended to `log`; beside it stands
    /// the socket on which it says that it is ready.
    ///
    /// # Errors
    /// [`NotReady`]; no process is left then.
    pub async fn start<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        program: &Path,
        config: &Path,
        log: &Path,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, NotReady> {
        let notify = log.with_extension("ready");
        let _ = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify)?;
        let started = Instant::now();
        let child = Command::new(program)
            .args(["demo", "--daemon"])
            .arg(config)
            .env("NOTIFY_SOCKET", &notify)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(log)?)
            .kill_on_drop(true)
            .spawn()?;
        let mut daemon = Self { child, log: log.to_owned(), ready_after: Duration::ZERO };
        tokio::select! {
            ready = tokio::time::timeout(START, heard_ready(&socket)) => match ready {
                Ok(ready) => ready?,
                Err(_) => return Err(NotReady::Silent { log: daemon.log() }),
            },
            status = daemon.child.wait() => return Err(NotReady::Ended { status: status?, log: daemon.log() }),
        }
        daemon.ready_after = started.elapsed();
        Ok(daemon)
    }

    /// How long it took from the start to READY=1.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Everything that it and its predecessors with the same log said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // Whoever is gone already needs no signal.
            let _ = rustix::process::kill_process(id, signal);
        }
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.child.wait().await
    }

    /// Ends it in order (SIGTERM), and waits until it is gone; one that does not end is killed.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

async fn heard_ready(socket: &UnixDatagram) -> io::Result<()> {
    let mut message = [0; 4096];
    loop {
        let length = socket.recv(&mut message).await?;
        if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

/// Becomes the daemon of `config`, after asking the system to end it with the process that started it, however that one ends. Returns only
/// when that fails.
pub(super) fn become_daemon(config: &Path) -> io::Error {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    if rustix::process::getppid().is_none_or(Pid::is_init) {
        return io::Error::other("whoever started this is gone already");
    }
    match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).arg("-c").arg(config).arg("run").exec(),
        Err(error) => error,
    }
}
