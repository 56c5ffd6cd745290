//! What can happen, as data: a list of these is a run, and what is left of one when parts are taken away is a run too.

use p2pid::random::{self, Random};

use crate::world::clock::SeededRandom;

/// Numbers that pick something are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// Somebody allows an app; the code is redeemed.
    Link { app: u8, trouble: CodeTrouble },
    /// A code comes again.
    ReplayCode { grant: u8 },
    /// The honest client calls with what it has stored.
    Use { grant: u8 },
    /// The honest client refreshes what it has stored; the answer may be lost.
    Refresh { grant: u8, asks: Asks, is_lost: bool },
    /// The same refresh token several times at once.
    Race { grant: u8, times: u8 },
    /// A refresh and a revocation at once.
    RefreshAndRevoke { grant: u8 },
    /// Some refresh token of the grant turns up, whoever sends it.
    OldRefresh { grant: u8, token: u8, asks: Asks },
    /// Some access token of the grant turns up.
    OldAccess { grant: u8, token: u8 },
    /// Another client presents a refresh token, or has it revoked.
    OtherClient { grant: u8, token: u8, app: u8, revokes: bool },
    /// A refresh token comes without the key that it is bound to.
    OtherKey { grant: u8 },
    /// A token is looked at by its own client.
    Introspect { grant: u8, token: u8 },
    /// The client ends the grant with any token that it ever had, twice.
    Revoke { grant: u8, token: u8 },
    /// The database fails in the middle of what it is asked.
    Fail { grant: u8, at: Failing },
    /// An app gets a token of its own.
    Alone { app: u8 },
    /// It is used, or revoked.
    UseAlone { token: u8 },
    /// It is revoked.
    RevokeAlone { token: u8 },
    /// A new client secret; the one before stays good for some minutes.
    RotateSecret { app: u8, minutes: u8 },
    /// Somebody tries an older secret.
    OldSecret { app: u8, secret: u8 },
    /// Time passes.
    Pass { seconds: u32 },
    /// The wall clock is set, ahead or back.
    Step { seconds: i32 },
    /// The machine is started again: boot time begins anew.
    Reboot,
    /// The daemon is stopped in order and started.
    Restart,
    /// The daemon is killed and started.
    Crash,
    /// A backup is made.
    BackUp,
    /// The last backup is put in place.
    Restore,
    /// What runs by itself: kept answers are forgotten, and what has run out is deleted.
    Tidy,
    /// Whatever was ended is tried again.
    TryTheDead { token: u8 },
}

/// What goes wrong when a code is redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeTrouble {
    Nothing,
    /// The answer is lost.
    Lost,
    /// It comes twice at once.
    Raced,
    /// Another client has it first.
    OtherClient,
    /// The verifier is wrong at first.
    WrongVerifier,
    /// The database fails at first.
    Fails,
}

/// The scope that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Whole,
    Less,
    More,
}

impl Asks {
    pub(super) fn scope(self) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Less => Some("a".to_owned()),
            Self::More => Some("a c".to_owned()),
        }
    }
}

/// Where the database fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    RefreshToken,
    AccessToken,
    Revocation,
}

/// A run of `length` operations.
pub(super) fn drawn(seed: u64, length: usize) -> Vec<Operation> {
    let chance = SeededRandom::new(seed);
    (0..length).map(|_| operation(&chance)).collect()
}

fn below(chance: &dyn Random, end: u64) -> u64 {
    u64::from_le_bytes(random::bytes(chance)) % end
}

fn pick<T: Copy>(chance: &dyn Random, among: &[T]) -> T {
    among[usize::try_from(below(chance, among.len() as u64)).expect("an index")]
}

fn operation(chance: &dyn Random) -> Operation {
    let byte = || u8::try_from(below(chance, 256)).expect("a byte");
    let asks = || pick(chance, &[Asks::Whole, Asks::Whole, Asks::Whole, Asks::Whole, Asks::Less, Asks::More]);
    match below(chance, 100) {
        0..6 => {
            let troubles = [
                CodeTrouble::Nothing,
                CodeTrouble::Nothing,
                CodeTrouble::Nothing,
                CodeTrouble::Lost,
                CodeTrouble::Raced,
                CodeTrouble::OtherClient,
                CodeTrouble::WrongVerifier,
                CodeTrouble::Fails,
            ];
            Operation::Link { app: byte(), trouble: pick(chance, &troubles) }
        }
        6..7 => Operation::ReplayCode { grant: byte() },
        7..17 => Operation::Use { grant: byte() },
        17..40 => Operation::Refresh { grant: byte(), asks: asks(), is_lost: below(chance, 3) == 0 },
        40..44 => Operation::Race { grant: byte(), times: 2 + byte() % 4 },
        44..45 => Operation::RefreshAndRevoke { grant: byte() },
        45..49 => Operation::OldRefresh { grant: byte(), token: byte(), asks: asks() },
        49..52 => Operation::OldAccess { grant: byte(), token: byte() },
        52..54 => Operation::OtherClient { grant: byte(), token: byte(), app: byte(), revokes: below(chance, 2) == 0 },
        54..55 => Operation::OtherKey { grant: byte() },
        55..58 => Operation::Introspect { grant: byte(), token: byte() },
        58..59 => Operation::Revoke { grant: byte(), token: byte() },
        59..62 => Operation::Fail { grant: byte(), at: pick(chance, &[Failing::RefreshToken, Failing::AccessToken, Failing::Revocation]) },
        62..64 => Operation::Alone { app: byte() },
        64..66 => Operation::UseAlone { token: byte() },
        66..67 => Operation::RevokeAlone { token: byte() },
        67..69 => Operation::RotateSecret { app: byte(), minutes: pick(chance, &[0, 1, 60]) },
        69..71 => Operation::OldSecret { app: byte(), secret: byte() },
        71..85 => {
            const HOUR: u32 = 3_600;
            let lengths = [0, 1, 2, 3, 20, 45, 59, 60, 61, 120, 1_900, HOUR, 11 * HOUR, 72 * HOUR];
            Operation::Pass { seconds: pick(chance, &lengths) }
        }
        85..87 => Operation::Step { seconds: pick(chance, &[-86_400, -7_200, -61, -1, 1, 61, 7_200, 86_400]) },
        87..88 => Operation::Reboot,
        88..90 => Operation::Restart,
        90..93 => Operation::Crash,
        93..94 => Operation::BackUp,
        94..95 => match below(chance, 3) {
            0 => Operation::Restore,
            _ => Operation::Pass { seconds: 11 * 86_400 },
        },
        95..97 => Operation::Tidy,
        _ => Operation::TryTheDead { token: byte() },
    }
}
