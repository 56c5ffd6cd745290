//! After a commit of which it was unknown whether it holds: what is in memory is read again, and the streams that callers have open end.
//!
//! Whoever asked was told to come again, and may not. What it asked for may be stored all the same: a grant that has ended, a key that was
//! taken away, a link that was given up.

use std::sync::Arc;
use std::time::Duration;

use super::keeper::Links;
use crate::instance::Instance;

/// How long to wait before callers that could not be read are read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub async fn run(instance: Arc<Instance>, links: Arc<Links>) {
    let mut reopenings = instance.store.reopenings();
    while reopenings.changed().await.is_ok() {
        instance.tokens.end_streams();
        // Together: one that cannot be read again is asked for until it can, and holds up no other.
        tokio::join!(read_callers(&instance), futures_util::future::join_all(links.all().iter().map(|link| links.changed(link.id()))));
    }
}

async fn read_callers(instance: &Instance) {
    while let Err(error) = instance.callers.reload(&instance.store).await {
        tracing::error!(reason = %error, "the callers cannot be read again; nobody is one until they can");
        instance.callers.forget();
        instance.clock.sleep(READ_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::secret::ExposeSecret;
    use crate::store::{Store, StoreError, Transaction, sample};
    use crate::system::{SystemClock, SystemRandom};

    #[tokio::test]
    async fn a_token_is_looked_up_again_when_it_was_unknown_whether_its_end_is_stored() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("one.toml");
        let text = "[instance]\nname = \"one\"\npublic_url = \"https://one.example.com\"\n[public]\ntls = \"self-signed\"\n";
        std::fs::write(&file, text).expect("written");
        let loaded = config::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let clock = Arc::new(SystemClock::new());
        let state = folder.path().join("state");
        let store = Store::open(&state, None, clock.clone()).expect("a new store");
        let token = sample::linked(&store).await.access;
        let instance = Arc::new(Instance::new(Arc::new(loaded.config), store.clone(), clock, Arc::new(SystemRandom)));
        let links = Links::start(Arc::clone(&instance)).await.expect("links");
        let task = tokio::spawn(run(Arc::clone(&instance), links));
        let stream = instance.tokens.present(token.expose_secret()).await.expect("read").expect("it is good").life.clone();

        // As if the commit that is reported as failed had taken hold.
        let other = rusqlite::Connection::open(state.join("p2pid.db")).expect("it opens");
        other.execute("UPDATE grant SET ended_at = 1, ended_why = 'revoked_by_client'", []).expect("written");
        assert!(instance.tokens.cached(token.expose_secret()).is_some() && !stream.is_ended(), "nobody was told");
        let failing = |transaction: &Transaction<'_>| {
            transaction.execute("UPDATE tenant SET created_at = 1", [])?;
            Ok(transaction.commit_hook(Some(|| true))?)
        };
        assert!(matches!(store.write(failing).await, Err(StoreError::Unavailable)));
        let forgotten = async {
            while instance.tokens.cached(token.expose_secret()).is_some() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(Duration::from_secs(10), forgotten).await.expect("it is forgotten");
        assert!(stream.is_ended(), "the streams of whoever was shut out go on");
        assert!(instance.tokens.present(token.expose_secret()).await.expect("read").is_none());
        task.abort();
    }
}
