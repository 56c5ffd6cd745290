//! Takes a changed configuration into the running daemon: the new one is built whole, compared and swapped in, or the old one stays
//! and the reason is told.
//!
//! What changes nothing is not even looked at twice: folders are watched rather than files (a rename or a link swap loses a watched
//! file), events are let settle, and then contents decide.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::audit::{Action, Entry, Outcome};
use crate::clock::Timestamp;
use crate::config::{self, Config, Problems, Sources};
use crate::instance::Instance;

/// How long the files must be left alone before they are read: whoever saves writes more than once.
const SETTLE: Duration = Duration::from_millis(200);
/// A folder that never rests is looked at so often all the same.
const SETTLE_AT_MOST: Duration = Duration::from_secs(2);
/// How often the contents are compared although no event came: network file systems send none.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A part of the daemon that holds something made from the configuration, such as TLS identities. It makes the new one, or says why it
/// cannot; what it gives back puts it in place, once all parts have succeeded.
#[expect(clippy::type_complexity, reason = "one closure, written out once")]
pub struct Part(Box<dyn Fn(&Config) -> Result<Replacement, String> + Send + Sync>);

/// Puts what a [`Part`] has made in place.
pub struct Replacement(Box<dyn FnOnce() + Send>);

impl Part {
    /// A part that is made anew by `make`.
    pub fn new(make: impl Fn(&Config) -> Result<Replacement, String> + Send + Sync + 'static) -> Self {
        Self(Box::new(make))
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part")
    }
}

impl Replacement {
    /// What `place` does.
    pub fn new(place: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(place))
    }
}

/// How the configuration does, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `NAME.toml`
    pub file: PathBuf,
    /// When the configuration in force was read.
    pub loaded_at: Timestamp,
    /// Why what the files say now is not in force: `FILE:LINE: …`.
    pub error: Option<String>,
    /// Keys whose change waits for a restart.
    pub restart_needed: Vec<&'static str>,
}

/// Why a changed configuration was refused. The old one is in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The files are wrong.
    #[error("{0}")]
    Files(#[from] Problems),
    /// The files are fine, but a part of the daemon could not be made from them.
    #[error("{file}: {why}", file = .file.display())]
    Part {
        /// `NAME.toml`
        file: PathBuf,
        /// What failed.
        why: String,
    },
}

/// Reads the configuration again when told or when its files change.
#[derive(Debug)]
pub struct Reloader {
    instance: Arc<Instance>,
    parts: Vec<Part>,
    state: Mutex<State>,
    /// One reload at a time.
    turn: tokio::sync::Mutex<()>,
    /// How often the watched files were looked at and said nothing new, for tests that wait for it.
    #[cfg(test)]
    looks: tokio::sync::watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// What the files held at the last attempt.
    seen: Sources,
    /// Which of them are no longer there, though their settings are in force.
    gone: Vec<PathBuf>,
    condition: Condition,
}

impl Reloader {
    /// For the configuration in force in `instance`, which came from `sources`; `parts` are made anew in their order.
    pub fn new(instance: Arc<Instance>, sources: Sources, parts: Vec<Part>) -> Self {
        let file = sources.file().to_owned();
        let condition = Condition { file, loaded_at: instance.clock.now().wall, error: None, restart_needed: Vec::new() };
        Self {
            instance,
            parts,
            state: Mutex::new(State { seen: sources, gone: Vec::new(), condition }),
            turn: tokio::sync::Mutex::default(),
            #[cfg(test)]
            looks: tokio::sync::watch::Sender::new(0),
        }
    }

    /// How the configuration does.
    pub fn condition(&self) -> Condition {
        let state = self.state();
        let mut condition = state.condition.clone();
        let gone: Vec<String> = state.gone.iter().map(|path| gone(path, state.seen.file())).collect();
        if condition.error.is_none() && !gone.is_empty() {
            condition.error = Some(gone.join("; "));
        }
        condition
    }

    /// Reads the files now, changed or not. Gives how the configuration does then.
    ///
    /// # Errors
    /// [`Refused`]: everything stays as it was.
    pub async fn reload(&self) -> Result<Condition, Refused> {
        let _alone = self.turn.lock().await;
        let file = self.state().seen.file().to_owned();
        let attempt = tokio::task::spawn_blocking(move || config::attempt(&file)).await;
        let (seen, outcome) = attempt.expect("reading a configuration does not panic");
        let outcome = match outcome.map_err(Refused::from) {
            Ok(config) => self.take(config).await,
            Err(refused) => Err(refused),
        };
        if let Err(refused) = &outcome {
            self.tell_refusal(refused).await;
        }
        let mut state = self.state();
        state.seen = seen;
        state.gone.clear();
        match outcome {
            Ok(restart_needed) => {
                let known = state.condition.restart_needed == restart_needed;
                state.condition.loaded_at = self.instance.clock.now().wall;
                state.condition.error = None;
                state.condition.restart_needed = restart_needed;
                self.instance.metrics.reloads.inc();
                let waiting = state.condition.restart_needed.join(", ");
                let (event, file) = (Action::ConfigReloaded.as_str(), state.condition.file.display());
                if waiting.is_empty() || known {
                    tracing::info!(event, %file, "configuration read, and in force");
                } else {
                    tracing::warn!(event, %file, keys = waiting, "configuration read; these keys wait for a restart");
                }
                Ok(state.condition.clone())
            }
            Err(refused) => {
                let error = refused.in_short();
                self.instance.metrics.reloads_refused.inc();
                tracing::error!(event = Action::ConfigRefused.as_str(), error, "configuration refused; the one before stays in force");
                state.condition.error = Some(error);
                Err(refused)
            }
        }
    }

    /// Watches the files, and reloads when what they say has changed. Runs until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        let mut folders = Folders::new();
        loop {
            let sources = self.state().seen.clone();
            let look = tokio::task::spawn_blocking(move || {
                // Watched first: a change after the look below is an event.
                folders.watch(&sources.folders());
                let now = sources.again();
                let now = now.map(|now| (sources.is_changed_by(&now), sources.gone(&now)));
                (folders, now, sources)
            });
            let (now, sources);
            (folders, now, sources) = look.await.expect("looking at files does not panic");
            let Some((changed, gone)) = now else {
                tracing::warn!(
                    "the configuration is not looked at now: there are no files left to open (LimitNOFILE, `limits.connections`)"
                );
                folders.settled().await;
                continue;
            };
            // What was refused may be what is gone. A file that goes otherwise changes nothing.
            let is_mended = self.state().condition.error.is_some() && !gone.is_empty() && !gone.iter().any(|path| path == sources.file());
            if changed || is_mended {
                // Its outcome is logged and kept for `status`.
                let _ = self.reload().await;
                continue;
            }
            self.note_gone(gone, &sources);
            #[cfg(test)]
            self.looks.send_modify(|looks| *looks += 1);
            folders.settled().await;
        }
    }

    /// Keeps for `status` which files of `seen` are gone, and logs each once; nothing when they have been read again meanwhile.
    fn note_gone(&self, now_gone: Vec<PathBuf>, seen: &Sources) {
        let mut state = self.state();
        if state.seen != *seen {
            return;
        }
        for path in now_gone.iter().filter(|path| !state.gone.contains(path)) {
            tracing::warn!("{}", gone(path, state.seen.file()));
        }
        state.gone = now_gone;
    }

    /// Makes every part anew, then puts all in place. Gives the keys that wait for a restart.
    async fn take(&self, config: Config) -> Result<Vec<&'static str>, Refused> {
        let running = self.instance.config();
        let restart_needed = Config::needs_restart(&running, &config);
        let config = config.applied_to(&running);
        let changed = Config::changed_tables(&running, &config);
        let made: Result<Vec<Replacement>, String> = self.parts.iter().map(|part| (part.0)(&config)).collect();
        let refused = |why| Refused::Part { file: self.state().seen.file().to_owned(), why };
        let made = made.map_err(refused)?;
        // A configuration of which the audit does not know does not come into force.
        let told = Entry::of(Action::ConfigReloaded).with("changed", changed).with("restart_needed", restart_needed.clone());
        let written = self.instance.store.write(move |transaction| transaction.record(&told)).await;
        written.map_err(|error| refused(format!("the audit cannot be written: {error}")))?;
        self.instance.config.store(Arc::new(config));
        made.into_iter().for_each(|replacement| (replacement.0)());
        Ok(restart_needed)
    }

    async fn tell_refusal(&self, refused: &Refused) {
        let told = Entry::of(Action::ConfigRefused).ended(Outcome::Refused).with("reason", refused.in_short());
        if let Err(error) = self.instance.store.write(move |transaction| transaction.record(&told)).await {
            tracing::warn!(%error, "that a configuration was refused is not in the audit");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refused {
    /// The first problem on one line, with how many more there are.
    fn in_short(&self) -> String {
        match self {
            Self::Part { .. } => self.to_string(),
            Self::Files(problems) => {
                let problem = problems.first();
                let first = format!("{}:{}: {}", problem.file.display(), problem.line, problem.what());
                match problems.iter().len() {
                    1 => first,
                    all => format!("{first} (and {} more)", all - 1),
                }
            }
        }
    }
}

/// What is to be said of a file at `path` that is gone from the configuration `file`.
fn gone(path: &Path, file: &Path) -> String {
    if path == file {
        return format!("{}: the file is gone; what it said stays in force, and no change is taken before it is back", path.display());
    }
    format!("{}: the file is gone; what it said stays in force until the next change, `p2pid reload` or a restart", path.display())
}

/// The folders that are watched, and whether anything happened in them.
struct Folders {
    happened: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    fn new() -> Self {
        let happened = Arc::new(Notify::new());
        let tell = Arc::clone(&happened);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(&event.kind)) {
                tell.notify_one();
            }
        });
        let watcher =
            watcher.inspect_err(|error| tracing::warn!(%error, "changed files are noticed only every 30 s: they cannot be watched")).ok();
        Self { happened, watcher, watched: BTreeSet::new() }
    }

    /// Watches exactly `folders`. Those that are watched already are watched anew: another folder may have taken their name.
    fn watch(&mut self, folders: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in std::mem::take(&mut self.watched) {
            // One that is gone is no longer watched anyway.
            let _ = watcher.unwatch(&folder);
        }
        for folder in folders {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder.clone());
                }
                Err(error) => tracing::debug!(%error, folder = %Path::new(folder).display(), "a folder cannot be watched"),
            }
        }
    }

    /// Completes when something happened and the folders have come to rest, or after a while without any event.
    async fn settled(&self) {
        if timeout(LOOK_AGAIN, self.happened.notified()).await.is_err() {
            return;
        }
        let latest = Instant::now() + SETTLE_AT_MOST;
        while timeout_at(latest.min(Instant::now() + SETTLE), self.happened.notified()).await.is_ok() {}
    }
}

/// Reading is no change; our own would never end.
fn is_change(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests;
