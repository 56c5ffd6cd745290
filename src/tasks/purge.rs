//! Deletes what has run out, once a minute, by a wall clock that is believed: what is deleted too early does not come back when the clock is
//! set right.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::instance::Instance;
use crate::store::StoreError;
use crate::store::grant::over;

const EVERY: Duration = Duration::from_secs(60);

/// The pause after each few rows, several times as long as these take, so that nobody else waits for them.
const REST: Duration = Duration::from_millis(25);

/// The pause `elapsed` after the beginning. A backlog that is still there after a minute is one that grows, or a big one: each minute halves the
/// pause, until as much is deleted as the disk takes. A million rows are gone within minutes, and no client makes rows faster than they go.
pub fn rest(elapsed: Duration) -> Duration {
    let minutes = u32::try_from(elapsed.as_secs() / 60).unwrap_or(u32::MAX);
    REST.checked_div(2_u32.saturating_pow(minutes)).unwrap_or_default()
}

/// Runs until it is dropped; what is being deleted then is still finished.
pub async fn run(instance: Arc<Instance>) {
    loop {
        let purged_at = instance.clock.now();
        match purge(&instance, purged_at).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "what had run out was deleted"),
            Err(error) => tracing::warn!(%error, "what has run out could not be deleted; again in a minute"),
        }
        // A sleep may end early, and the clock may be moved under it.
        while instance.clock.now().age_of(&purged_at) < EVERY {
            instance.clock.sleep(EVERY).await;
        }
    }
}

async fn purge(instance: &Instance, now: Moment) -> Result<usize, StoreError> {
    if !instance.store.read(move |connection| over::may_end(connection, now)).await? {
        return Ok(0);
    }
    instance.store.purge_resting(now.wall, || instance.clock.sleep(rest(instance.clock.now().age_of(&now)))).await
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;

    use super::*;
    use crate::clock::{BootId, Clock, Timestamp};
    use crate::config;
    use crate::id::Id;
    use crate::inbound::session::Session;
    use crate::inbound::user::User;
    use crate::secret::Digest;
    use crate::store::{Store, Transaction, session, user};
    use crate::system::SystemRandom;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn the_pause_gets_shorter_while_a_backlog_stays() {
        let after = |seconds| rest(Duration::from_secs(seconds)).as_micros();
        assert_eq!([0, 59, 60, 120, 180, 100 * 60].map(after), [25_000, 25_000, 12_500, 6_250, 3_125, 0]);
        assert_eq!(rest(Duration::MAX), Duration::ZERO);
    }

    /// A clock on which every sleep is over at once, and early: after seven seconds at most.
    #[derive(Debug)]
    struct Hurrying(Mutex<Moment>);

    impl Clock for Hurrying {
        fn now(&self) -> Moment {
            *self.0.lock().expect("no panic under the lock")
        }

        fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            let slept = duration.min(Duration::from_secs(7));
            let mut now = self.0.lock().expect("no panic under the lock");
            now.boot += slept;
            now.wall = now.wall.plus(slept);
            Box::pin(tokio::task::yield_now())
        }
    }

    #[tokio::test]
    async fn what_runs_out_is_gone_within_a_minute() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("one.toml");
        let text = "[instance]\nname = \"one\"\npublic_url = \"https://one.example.com\"\n[public]\ntls = \"self-signed\"\n";
        std::fs::write(&file, text).expect("written");
        let loaded = config::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let clock = Arc::new(Hurrying(Mutex::new(Moment { wall: START, boot: Duration::from_secs(550), boot_id: BootId(1) })));
        let store = Store::open(&folder.path().join("state"), None, clock.clone()).expect("a new store");
        let (id, login) = (Id::from_bytes([1; 16]), "a".to_owned());
        let person = User {
            id,
            login,
            password: None,
            is_admin: false,
            permissions: Default::default(),
            roles: Vec::new(),
            api_keys: 0,
            created_at: START,
        };
        let mut ending = Session::new(Digest::of("cookie"), id, 1, START);
        ending.expires_at = START.plus(Duration::from_secs(90));
        let rows = move |transaction: &Transaction<'_>| {
            user::insert(transaction, &person)?;
            assert!(session::begin(transaction, &ending, &person, None)?);
            Ok(())
        };
        store.write(rows).await.expect("written");
        let instance = Arc::new(Instance::new(Arc::new(loaded.config), store.clone(), clock.clone(), Arc::new(SystemRandom)));
        let task = tokio::spawn(run(instance));
        while store.read(|connection| session::by_digest(connection, Digest::of("cookie"))).await.expect("read").is_some() {
            assert!(clock.now().wall < START.plus(Duration::from_secs(3_600)), "it is still there");
        }
        assert!(clock.now().wall >= START.plus(Duration::from_secs(90)), "it went too early");
        assert!(clock.now().boot >= Duration::from_secs(600), "the machine has just been started, and its clock may not have been set yet");
        task.abort();
    }
}
