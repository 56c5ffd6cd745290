//! A daemon that serves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::audit::{Action, Entry};
use crate::instance::Instance;
use crate::net::cores::Cores;
use crate::net::serve::Server;
use crate::tasks::audit;
use crate::tasks::keeper::Links;
use crate::tasks::reload::Reloader;

/// Requests whose sender has gone may take this long to finish what they began.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// A daemon that serves, until [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    /// The instance, for whoever started it in process.
    pub instance: Arc<Instance>,
    /// The links to its peers.
    pub links: Arc<Links>,
    /// What takes changes of its configuration.
    pub reloader: Arc<Reloader>,
    pub(super) server: Server,
    pub(super) cores: Arc<Cores>,
    pub(super) ready: watch::Sender<bool>,
    /// What runs by itself; ends when it is dropped.
    pub(super) tasks: JoinSet<()>,
}

impl Running {
    /// The last rows of the audit.
    async fn tell_end(&self) {
        let end = Entry::of(Action::DaemonStopped);
        let tallied = audit::write_tally(&self.instance, true).await;
        let told = self.instance.store.write(move |transaction| transaction.record(&end)).await;
        if let Err(error) = tallied.and(told) {
            tracing::warn!(%error, "the audit does not say that this is the end");
        }
    }

    /// Takes no more connections, lets what is under way finish for `[limits] drain`, then closes the store.
    pub async fn stop(mut self) {
        self.ready.send_replace(false);
        self.server.drain(self.instance.config().limits.drain).await;
        // Those whose connection was cut, or closed by the other side, are finished all the same.
        self.instance.under_way.close();
        if tokio::time::timeout(LAST_REQUESTS, self.instance.under_way.wait()).await.is_err() {
            tracing::warn!("a request whose sender has gone is still under way; it is dropped");
        }
        self.links.stop().await;
        self.tasks.shutdown().await;
        self.cores.stop().await;
        self.tell_end().await;
        self.instance.store.close().await;
    }
}
