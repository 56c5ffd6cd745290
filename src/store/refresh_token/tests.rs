//! The rules of a refresh over the real database: every change as it is written, and a link through everything that can happen to it.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::inbound::grant::{Fresh, Policy};
use crate::inbound::refresh::{Answer, Refusal, Request, judge};
use crate::oauth::rotation::Rotation;
use crate::store::Store;
use crate::store::sample::{HOUR, StandingClock, fresh, linked};
use crate::store::token_table::TokenTable;

const WINDOW: Duration = Duration::from_secs(60);

struct World {
    directory: tempfile::TempDir,
    clock: Arc<StandingClock>,
    store: Store,
    policy: Policy,
}

impl World {
    async fn new(rotation: Rotation) -> (Self, Fresh) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock = StandingClock::new();
        let store = Store::open(directory.path(), None, clock.clone()).expect("a new store");
        let pair = linked(&store).await;
        let policy =
            Policy { access_ttl: HOUR, refresh_ttl: 90 * 24 * HOUR, grant_ttl: None, rotation, retry_window: WINDOW, require_par: false };
        (Self { directory, clock, store, policy }, pair)
    }

    async fn refresh(&self, token: &SecretString) -> Result<Answer, Refusal> {
        let (policy, seals, token, fresh) = (self.policy, self.store.seals().clone(), token.clone(), fresh());
        let judged = self.store.write(move |transaction| {
            let (facts, _) = find(transaction, &seals, &token)?.expect("the token was ours");
            let request =
                Request { client: facts.grant.app, token: &token, scope: None, from: Some("192.0.2.1"), fresh: &fresh, binding: None };
            let judgement = judge(&facts, &request, &policy, transaction.now());
            let presented = Presented { token: &token, grant: facts.grant.id, from: Some("192.0.2.1") };
            apply(transaction, &seals, presented, &judgement.changes, &fresh.refresh, policy.refresh_ttl)?;
            Ok(judgement.answer)
        });
        judged.await.expect("judged")
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.store.read(move |connection| Ok(connection.query_row(sql, [], |row| row.get(0))?)).await.expect("read")
    }

    fn table(&self) -> TokenTable {
        TokenTable::new(self.store.clone(), self.clock.clone())
    }

    async fn is_live(&self, access: &SecretString) -> bool {
        self.table().present(access.expose_secret()).await.expect("read").is_some()
    }

    /// The daemon ends and starts again on the same directory.
    async fn restart(&mut self) {
        self.store.close().await;
        self.store = Store::open(self.directory.path(), None, self.clock.clone()).expect("the store again");
    }
}

/// What the manual says of growth (`manual/operations.md`).
#[tokio::test]
async fn a_refresh_adds_two_rows_that_stay_and_less_than_400_bytes() {
    const REFRESHES: i64 = 300;
    const ROWS: &str = "SELECT (SELECT count(*) FROM access_token) + (SELECT count(*) FROM refresh_token)";
    const BYTES: &str = "SELECT (p.page_count - f.freelist_count) * s.page_size
        FROM pragma_page_count AS p, pragma_freelist_count AS f, pragma_page_size AS s";
    let (world, pair) = World::new(Rotation::RetrySafe).await;
    let before = (world.count(ROWS).await, world.count(BYTES).await);
    let mut current = pair.refresh;
    for _ in 0..REFRESHES {
        current = world.refresh(&current).await.expect("tokens").refresh;
        world.clock.pass(HOUR * 9 / 10);
        world.store.purge(world.clock.now().wall).await.expect("purged");
    }
    let grown = (world.count(ROWS).await - before.0, world.count(BYTES).await - before.1);
    assert_eq!(grown.0, 2 * REFRESHES);
    assert!((300..400).contains(&(grown.1 / REFRESHES)), "{} bytes for each", grown.1 / REFRESHES);
}

#[tokio::test]
async fn r4_the_first_answer_comes_again_after_a_restart_and_is_overwritten_when_the_window_closes() {
    let (mut world, pair) = World::new(Rotation::RetrySafe).await;
    let first = world.refresh(&pair.refresh).await.expect("tokens");
    world.restart().await;
    world.clock.pass(Duration::from_secs(59));
    let again = world.refresh(&pair.refresh).await.expect("tokens");
    assert_eq!(again.refresh.expose_secret(), first.refresh.expose_secret());
    assert_eq!(again.access.expose_secret(), first.access.expose_secret());

    let forget = |world: &World| {
        let store = world.store.clone();
        async move { store.write(|transaction| forget_repeats(transaction, WINDOW, 10)).await.expect("written") }
    };
    assert_eq!(forget(&world).await, 0);
    world.clock.pass(Duration::from_secs(1));
    assert_eq!(forget(&world).await, 1);
    assert_eq!(world.count("SELECT count(*) FROM refresh_token WHERE repeat_sealed IS NOT NULL").await, 0);
}

#[tokio::test]
async fn r4_the_kept_answer_is_overwritten_when_the_successor_is_presented() {
    let (world, pair) = World::new(Rotation::RetrySafe).await;
    let first = world.refresh(&pair.refresh).await.expect("tokens");
    world.refresh(&first.refresh).await.expect("tokens");
    assert_eq!(world.count("SELECT count(*) FROM refresh_token WHERE repeat_sealed IS NOT NULL").await, 1);
    assert_eq!(world.refresh(&pair.refresh).await.map(|_| ()), Err(Refusal::Replaced));
    assert!(world.is_live(&first.access).await, "calls in flight keep their token");
}

#[tokio::test]
async fn r4_an_unused_successor_is_withdrawn_with_its_access_token() {
    let (world, pair) = World::new(Rotation::RetrySafe).await;
    let lost = world.refresh(&pair.refresh).await.expect("tokens");
    world.clock.pass(WINDOW);
    let next = world.refresh(&pair.refresh).await.expect("tokens");
    assert_ne!(next.refresh.expose_secret(), lost.refresh.expose_secret());
    assert!(!world.is_live(&lost.access).await && world.is_live(&next.access).await);
    assert_eq!(world.refresh(&lost.refresh).await.map(|_| ()), Err(Refusal::Replaced));
}

#[tokio::test]
async fn r5_a_replay_after_the_window_ends_the_grant_with_all_its_tokens() {
    let (world, pair) = World::new(Rotation::RetrySafe).await;
    let next = world.refresh(&pair.refresh).await.expect("tokens");
    assert!(world.is_live(&next.access).await);
    world.clock.pass(WINDOW);
    assert_eq!(world.refresh(&pair.refresh).await.map(|_| ()), Err(Refusal::Replayed));
    assert!(!world.is_live(&next.access).await);
    assert_eq!(world.refresh(&next.refresh).await.map(|_| ()), Err(Refusal::GrantEnded));
    assert_eq!(world.count("SELECT count(*) FROM grant WHERE ended_why = 'refresh_token_replayed'").await, 1);
}

#[tokio::test]
async fn r7_the_first_presentation_survives_a_crash_right_behind_it() {
    let (mut world, pair) = World::new(Rotation::RetrySafe).await;
    let next = world.refresh(&pair.refresh).await.expect("tokens");
    assert!(world.is_live(&next.access).await);
    world.restart().await;
    world.clock.pass(WINDOW);
    assert_eq!(world.refresh(&pair.refresh).await.map(|_| ()), Err(Refusal::Replayed), "its successor had arrived");
}

#[tokio::test]
async fn strict_ends_earlier_access_tokens_with_the_rotation() {
    let (world, pair) = World::new(Rotation::Strict).await;
    let next = world.refresh(&pair.refresh).await.expect("tokens");
    assert!(!world.is_live(&pair.access).await && world.is_live(&next.access).await);
}

#[tokio::test]
async fn r11_without_rotation_idle_life_is_renewed_under_the_same_token() {
    let (mut world, pair) = World::new(Rotation::None).await;
    world.policy.refresh_ttl = 2 * HOUR;
    for _ in 0..3 {
        world.clock.pass(HOUR);
        let answer = world.refresh(&pair.refresh).await.expect("tokens");
        assert_eq!(answer.refresh.expose_secret(), pair.refresh.expose_secret());
        assert!(world.is_live(&answer.access).await);
    }
    world.clock.pass(2 * HOUR);
    assert_eq!(world.refresh(&pair.refresh).await.map(|_| ()), Err(Refusal::Idle));
}

#[tokio::test]
async fn k1_no_token_stands_in_the_database_in_clear() {
    let (world, pair) = World::new(Rotation::RetrySafe).await;
    let next = world.refresh(&pair.refresh).await.expect("tokens");
    world.store.close().await;
    for entry in std::fs::read_dir(world.directory.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        for secret in [&pair.access, &pair.refresh, &next.access, &next.refresh] {
            let secret = secret.expose_secret().as_bytes();
            assert!(!bytes.windows(20).any(|window| window == &secret[5..25]), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn r10_a_wall_clock_that_is_a_year_ahead_for_a_while_ends_and_deletes_no_grant() {
    for rotation in [Rotation::RetrySafe, Rotation::None] {
        let (mut world, pair) = World::new(rotation).await;
        let mut token = world.refresh(&pair.refresh).await.expect("tokens").refresh;
        let year = 365 * 24 * HOUR;
        world.clock.change(|now| now.wall = now.wall.plus(year));
        world.store.purge(world.clock.now().wall).await.expect("purged");
        token = world.refresh(&token).await.expect("the link holds").refresh;
        world.clock.change(|now| now.wall = now.wall.minus(year));
        world.restart().await;
        world.clock.pass(world.policy.refresh_ttl - HOUR);
        token = world.refresh(&token).await.expect("the link holds").refresh;
        world.clock.pass(world.policy.refresh_ttl);
        assert_eq!(world.refresh(&token).await.map(|_| ()), Err(Refusal::Idle), "{rotation:?}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client refreshes; the answer arrives and is stored.
    Refresh,
    /// The client refreshes; the answer is lost.
    RefreshAndLose,
    /// The client uses its access token.
    Use,
    /// A part of a window passes.
    Wait,
    /// A window passes.
    Lapse,
    /// The daemon is started again.
    Restart,
    /// The wall clock is set back by some seconds.
    SetBack,
    /// The wall clock is set forward by hours.
    SetForward,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The honest client: whatever happens, its stored token gets tokens, and one refresh token is current.
    #[test]
    fn r7_no_link_is_lost_by_lost_answers_restarts_and_clock_steps(
        steps in prop::collection::vec(
            prop_oneof![
                Just(Step::Refresh), Just(Step::RefreshAndLose), Just(Step::Use), Just(Step::Wait), Just(Step::Lapse), Just(Step::Restart),
                Just(Step::SetBack), Just(Step::SetForward),
            ],
            1..24,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mut world, mut pair) = World::new(Rotation::RetrySafe).await;
            for step in steps {
                match step {
                    Step::Refresh => {
                        let answer = world.refresh(&pair.refresh).await.expect("the link holds");
                        pair = Fresh { access: answer.access, refresh: answer.refresh };
                    }
                    Step::RefreshAndLose => drop(world.refresh(&pair.refresh).await.expect("the link holds")),
                    Step::Use => drop(world.is_live(&pair.access).await),
                    Step::Wait => world.clock.pass(WINDOW / 3),
                    Step::Lapse => world.clock.pass(WINDOW),
                    Step::Restart => world.restart().await,
                    Step::SetBack => world.clock.change(|now| now.wall = now.wall.minus(Duration::from_secs(45))),
                    Step::SetForward => world.clock.change(|now| now.wall = now.wall.plus(3 * HOUR)),
                }
                let current = world.count("SELECT count(*) FROM refresh_token WHERE state = 'current'").await;
                let previous = world.count("SELECT count(*) FROM refresh_token WHERE state = 'previous'").await;
                assert!(current == 1 && previous <= 1, "{current} current, {previous} previous");
            }
            let answer = world.refresh(&pair.refresh).await.expect("the link holds");
            assert!(world.is_live(&answer.access).await);
            assert_eq!(world.count("SELECT count(*) FROM grant WHERE ended_at IS NOT NULL").await, 0);
        });
    }
}
