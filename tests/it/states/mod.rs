//! A state machine that attacks our own rules: clients, thieves, clocks, crashes and backups, in an order that a seed decides.
//!
//! [`run`] does thousands of operations to the real endpoints, token table and database, and to a [`model`] that is written from the rules
//! and calls nothing of what it judges. After each one all must hold: what was answered is what the model says; each grant is in the
//! database as the model has it, with one live branch, whatever was done to the others; what an honest client has stored gets it tokens;
//! and nothing that was revoked, replaced or left behind by a restore works again. [`daemons`] is the same, shorter, over two real daemons
//! that are killed.
//!
//! A failure prints its seed and the fewest operations that still show it. `P2PID_SEED=…` replays one seed, `P2PID_STEPS=…` makes runs longer.
//!
//! # Bugs of others that it catches
//!
//! Each was planted here, and the run failed by the operation named.
//!
//! | bug | planted | fails at |
//! |---|---|---|
//! | keycloak CVE-2026-1035: each of N parallel refreshes succeeds | a retry in the window gets a pair of its own | `Race` |
//! | keycloak CVE-2026-9802: a restart makes rotated tokens good again | the start makes a `retired` token `previous` | `Crash` |
//! | keycloak#49213: a failed transaction uses up the token | a judgement that failed is committed | `Fail` |
//! | keycloak#51885: replay within the same second | a token that was retired less than a second ago counts as current | `Refresh` |
//! | keycloak#31296: the restart forgets what was revoked | the revocation ends the token table's entries only | `RefreshAndRevoke` |
//! | MAS#4883, #5496: the endpoint consumes the token that it returns | the new token counts as used from the second refresh on | `Race` |
//! | Cogtrix#2164: the revocation is rolled back with the error | a replay is refused and its grant goes on | `OldRefresh` |
//! | restore from backup makes tokens good again | a restored database keeps its epoch | `Restore` |
//! | keycloak CVE-2026-17048: a rotated secret is still good | the overlap is a day, whatever was asked for | `OldSecret` |
//! | fosite CVE-2020-15223: a revocation that failed is answered 200 | an error of the store is no error | `Fail` |
//! | two live branches after a lost answer | the withdrawn pair's access token is not ended | `OldAccess` |
//! | a window that never closes | each retry opens it anew | `Race` |
//! | a lost answer loses the link | no second pair once the window is closed | `Refresh` |
//! | purge of what a replay is known by | it takes the retired tokens of living grants | `Tidy` |

mod daemons;
mod instance;
mod model;
mod operations;
mod run;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use p2pid::random;
use p2pid::system::SystemRandom;

use operations::{Operation, drawn};
use run::run;

/// The seed to replay, in place of all others.
const SEED: &str = "P2PID_SEED";

/// How many operations a run has, where that is not [`LENGTH`].
const STEPS: &str = "P2PID_STEPS";

const LENGTH: usize = 400;

/// Runs of every test run: these, and one that nobody has seen before.
const SEEDS: std::ops::Range<u64> = 1..7;

/// How long a failure is made smaller.
const SHRINKING: Duration = Duration::from_secs(60);

#[tokio::test]
async fn r3_r4_r5_r6_r7_r8_r9_v3_t4_no_run_breaks_a_rule() {
    let length = number(STEPS).and_then(|steps| usize::try_from(steps).ok()).unwrap_or(LENGTH);
    let seeds: Vec<u64> = seed().map_or_else(|| SEEDS.chain([unseen()]).collect(), |seed| vec![seed]);
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in &seeds {
        let operations = drawn(*seed, length);
        match run(*seed, &operations).await {
            Ok(counts) => counts.into_iter().for_each(|(what, count)| *done.entry(what).or_default() += count),
            Err(wrong) => {
                let (least, wrong) = smallest(*seed, operations, wrong).await;
                let list: String = least.iter().map(|operation| format!("  {operation:?}\n")).collect();
                panic!(
                    "{wrong}\nThe least operations that show it:\n{list}Replay: {SEED}={seed} {STEPS}={length} cargo test --test it no_run_breaks_a_rule"
                );
            }
        }
    }
    // A run that meets nothing shows nothing.
    if seeds.len() > 1 {
        for what in [
            "linked",
            "used",
            "use refused",
            "rotated",
            "repeated",
            "minted again",
            "access renewed",
            "refresh refused",
            "theft",
            "raced",
            "revoked",
            "refreshed and revoked at once",
            "code replayed",
            "failed",
            "restored",
            "dead tried",
        ] {
            assert!(done.get(what).is_some_and(|count| *count > 2), "{what} hardly ever happened: {done:?}");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: found {text:?}, expected a number")))
}

/// The one seed that is to be used.
fn seed() -> Option<u64> {
    number(SEED)
}

/// A seed that no run had before.
fn unseen() -> u64 {
    u64::from_le_bytes(random::bytes(&SystemRandom))
}

/// Takes operations away for as long as it still goes wrong.
async fn smallest(seed: u64, mut operations: Vec<Operation>, mut wrong: String) -> (Vec<Operation>, String) {
    let begin = Instant::now();
    let mut size = operations.len() / 2;
    while size > 0 && begin.elapsed() < SHRINKING {
        let mut from = 0;
        while from < operations.len() && begin.elapsed() < SHRINKING {
            let mut fewer = operations.clone();
            fewer.drain(from..(from + size).min(operations.len()));
            match run(seed, &fewer).await {
                Err(still) => (operations, wrong) = (fewer, still),
                Ok(_) => from += size,
            }
        }
        size /= 2;
    }
    (operations, wrong)
}
