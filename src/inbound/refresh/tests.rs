//! The rules one by one, then all of them against everything that can happen between an honest client and us.

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::clock::BootId;
use crate::id::Id;
use crate::secret::{Digest, ExposeSecret};

const WINDOW: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn at(seconds: u64) -> Moment {
    let wall = Timestamp::from_millis(1_000_000_000_000).plus(Duration::from_secs(seconds));
    Moment { wall, boot: Duration::from_secs(seconds), boot_id: BootId(1) }
}

fn scope(text: &str) -> Scope {
    text.parse().expect("a scope")
}

fn policy(rotation: Rotation) -> Policy {
    Policy { access_ttl: HOUR, refresh_ttl: 90 * 24 * HOUR, grant_ttl: None, rotation, retry_window: WINDOW, require_par: false }
}

fn fresh(name: &str) -> Fresh {
    Fresh { access: SecretString::from(format!("access of {name}")), refresh: SecretString::from(format!("refresh of {name}")) }
}

fn grant() -> Grant {
    Grant {
        id: Id::from_bytes([1; 16]),
        app: Id::from_bytes([2; 16]),
        user: None,
        scope: scope("a b"),
        created_at: at(0).wall,
        expires_at: None,
        ended: None,
        binding: None,
        made_by: crate::inbound::grant::MadeBy::Consent,
    }
}

fn repeat(minted: u64) -> Repeat {
    Repeat {
        refresh: SecretString::from("refresh of the first answer"),
        access: SecretString::from("access of the first answer"),
        scope: scope("a b"),
        issued_at: at(minted).wall,
        expires_at: at(minted).wall.plus(HOUR),
        binding: None,
    }
}

/// A token that was replaced at `minted` and is in `state`, beside a successor that is used or not.
fn replaced(state: State, minted: u64, is_used: bool) -> Facts {
    Facts {
        grant: grant(),
        presented: Token { generation: 1, state, since: at(minted), remints: 0, presented_from: Some("192.0.2.1".into()) },
        current: Current { generation: 2, since: at(minted), is_used },
        repeat: (state == State::Previous).then(|| repeat(minted)),
    }
}

fn current(minted: u64) -> Facts {
    let token = Token { generation: 1, state: State::Current, since: at(minted), remints: 0, presented_from: None };
    let current = Current { generation: 1, since: at(minted), is_used: true };
    Facts { grant: grant(), presented: token, current, repeat: None }
}

fn judged(facts: &Facts, asked: Option<&str>, from: &str, policy: &Policy, now: Moment) -> Judgement {
    let (asked, fresh, token) = (asked.map(scope), fresh("new"), SecretString::from("presented"));
    judge(
        facts,
        &Request { client: facts.grant.app, token: &token, scope: asked.as_ref(), from: Some(from), fresh: &fresh, binding: None },
        policy,
        now,
    )
}

fn judged_safe(facts: &Facts, now: u64) -> Judgement {
    judged(facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), at(now))
}

#[test]
fn r3_the_current_token_is_replaced_and_becomes_previous() {
    let judgement = judged_safe(&current(0), 10);
    let Changes::Mint(mint) = judgement.changes else { panic!("{:?}", judgement.changes) };
    assert_eq!((mint.presented_becomes, mint.replaces, mint.remints), (State::Previous, Replaces::Previous, 0));
    assert_eq!((mint.access.generation, mint.access.expires_at), (2, at(10).wall.plus(HOUR)));
    assert_eq!(mint.access.digest, Digest::of("access of new"));
    let answer = judgement.answer.expect("tokens");
    assert_eq!((answer.refresh.expose_secret(), answer.expires_in, judgement.event), ("refresh of new", HOUR, None));
    assert_eq!(mint.repeat.expect("a repeat").refresh.expose_secret(), "refresh of new");
}

#[test]
fn r4_inside_the_window_the_first_answer_comes_again_whether_or_not_it_was_used() {
    for is_used in [false, true] {
        let judgement = judged_safe(&replaced(State::Previous, 0, is_used), 59);
        assert!(matches!(judgement.changes, Changes::Nothing));
        let answer = judgement.answer.expect("tokens");
        assert_eq!(answer.refresh.expose_secret(), "refresh of the first answer");
        assert_eq!(answer.access.expose_secret(), "access of the first answer");
        assert_eq!(answer.expires_in, HOUR - Duration::from_secs(59));
        assert_eq!(judgement.event, Some(Event::Repeated { from_elsewhere: false }));
    }
}

#[test]
fn r4_a_repeat_with_less_than_half_its_life_left_gets_a_fresh_access_token() {
    let facts = Facts { repeat: Some(Repeat { expires_at: at(40).wall, ..repeat(0) }), ..replaced(State::Previous, 0, true) };
    assert!(matches!(judged_safe(&facts, 20).changes, Changes::Nothing));
    let judgement = judged_safe(&facts, 21);
    let Changes::ReplaceAccess { access, repeat } = judgement.changes else { panic!("{:?}", judgement.changes) };
    assert_eq!((access.generation, access.expires_at), (2, at(21).wall.plus(HOUR)));
    assert_eq!(repeat.refresh.expose_secret(), "refresh of the first answer");
    let answer = judgement.answer.expect("tokens");
    assert_eq!((answer.refresh.expose_secret(), answer.access.expose_secret()), ("refresh of the first answer", "access of new"));
    assert_eq!(answer.expires_in, HOUR);
}

#[test]
fn r4_after_the_window_an_unused_successor_is_replaced_each_time() {
    let mut facts = replaced(State::Previous, 0, false);
    for times in 1..=4 {
        let judgement = judged_safe(&facts, 60 * u64::from(times));
        let Changes::Mint(mint) = judgement.changes else { panic!("{:?}", judgement.changes) };
        assert_eq!((mint.presented_becomes, mint.replaces, mint.remints), (State::Previous, Replaces::Current, times));
        assert_eq!(mint.access.generation, 2 + times);
        let event = judgement.event.expect("an event");
        assert_eq!(event, Event::Reminted { times });
        assert_eq!(event.is_alert(), times == 3);
        facts.presented.remints = times;
        facts.current = Current { generation: mint.access.generation, since: at(60 * u64::from(times)), ..facts.current };
    }
}

#[test]
fn r5_a_token_whose_successor_was_used_is_theft_once_the_window_is_over() {
    let judgement = judged_safe(&replaced(State::Previous, 0, true), 60);
    assert!(matches!(judgement.changes, Changes::End(EndReason::RefreshTokenReplayed)));
    assert_eq!(judgement.answer.map(|_| ()), Err(Refusal::Replayed));
    assert!(judgement.event.expect("an event").is_alert());
}

#[test]
fn r6_only_the_immediate_predecessor_is_answered() {
    for state in [State::Retired, State::Withdrawn] {
        let early = judged_safe(&replaced(state, 0, true), 59);
        assert!(matches!(early.changes, Changes::Nothing));
        assert_eq!((early.answer.map(|_| ()), early.event), (Err(Refusal::Replaced), Some(Event::LatePresentation)));
        let late = judged_safe(&replaced(state, 0, false), 60);
        assert!(matches!(late.changes, Changes::End(EndReason::RefreshTokenReplayed)));
    }
}

#[test]
fn r6_the_window_counts_from_the_mint_of_the_live_successor() {
    // Replaced at 0, its successor at 100: the window of the second mint is what is open.
    let mut facts = replaced(State::Previous, 0, true);
    facts.current.since = at(100);
    assert!(judged_safe(&facts, 159).answer.is_ok());
    assert_eq!(judged_safe(&facts, 160).answer.map(|_| ()), Err(Refusal::Replayed));
}

#[test]
fn r7_a_step_of_the_wall_clock_moves_no_window() {
    let facts = replaced(State::Previous, 1_000, true);
    let stepped = |wall: u64, boot: u64| Moment { wall: at(wall).wall, ..at(boot) };
    assert!(judged(&facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), stepped(1_000_000, 1_059)).answer.is_ok());
    assert!(judged(&facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), stepped(0, 1_059)).answer.is_ok());
    assert!(judged(&facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), stepped(0, 1_060)).answer.is_err());
    // After a reboot wall time is all there is; below zero counts as zero.
    let rebooted = |wall: u64| Moment { wall: at(wall).wall, boot: Duration::ZERO, boot_id: BootId(2) };
    assert!(judged(&facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), rebooted(1_059)).answer.is_ok());
    assert!(judged(&facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), rebooted(1_060)).answer.is_err());
    assert!(judged(&facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), rebooted(5)).answer.is_ok());
}

#[test]
fn r7_a_wall_clock_set_back_does_not_lengthen_a_life() {
    let facts = replaced(State::Previous, 1_000, true);
    let judgement = judged(&facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), Moment { wall: at(0).wall, ..at(1_010) });
    assert_eq!(judgement.answer.expect("tokens").expires_in, HOUR);
}

#[test]
fn r7_a_repeat_whose_access_token_seems_to_come_from_the_future_gets_a_fresh_one() {
    let facts = replaced(State::Previous, 1_000, true);
    let set_back = |seconds: u64| Moment { wall: at(1_000 - seconds).wall, ..at(1_010) };
    let judged_at = |now| judged(&facts, None, "192.0.2.1", &policy(Rotation::RetrySafe), now);
    assert!(matches!(judged_at(set_back(60)).changes, Changes::Nothing));
    let judgement = judged_at(set_back(61));
    let Changes::ReplaceAccess { access, .. } = judgement.changes else { panic!("{:?}", judgement.changes) };
    assert_eq!(access.issued_at, set_back(61).wall);
    assert_eq!(judgement.answer.expect("tokens").refresh.expose_secret(), "refresh of the first answer");
}

#[test]
fn r2_the_scope_may_only_narrow_and_a_retry_asks_for_the_same() {
    let safe = policy(Rotation::RetrySafe);
    let narrowed = judged(&current(0), Some("a"), "192.0.2.1", &safe, at(1));
    let Changes::Mint(mint) = narrowed.changes else { panic!("{:?}", narrowed.changes) };
    assert_eq!((mint.access.scope, narrowed.answer.expect("tokens").scope), (scope("a"), scope("a")));
    assert_eq!(judged(&current(0), Some("a b c"), "192.0.2.1", &safe, at(1)).answer.map(|_| ()), Err(Refusal::Scope));

    let facts = replaced(State::Previous, 0, true);
    assert!(judged(&facts, Some("a b"), "192.0.2.1", &safe, at(1)).answer.is_ok());
    for asked in ["a", "a b c"] {
        let other = judged(&facts, Some(asked), "192.0.2.1", &safe, at(1));
        assert!(matches!(other.changes, Changes::Nothing) && other.event.is_none());
        assert_eq!(other.answer.map(|_| ()), Err(Refusal::OtherScope), "{asked}");
    }
}

#[test]
fn r2_more_than_was_allowed_is_refused_wherever_a_token_would_be_made() {
    for (facts, rotation) in [
        (current(0), Rotation::RetrySafe),
        (current(0), Rotation::Strict),
        (current(0), Rotation::None),
        (replaced(State::Previous, 0, false), Rotation::RetrySafe),
    ] {
        let judgement = judged(&facts, Some("a c"), "192.0.2.1", &policy(rotation), at(60));
        assert!(matches!(judgement.changes, Changes::Nothing) && judgement.event.is_none(), "{facts:?}");
        assert_eq!(judgement.answer.map(|_| ()), Err(Refusal::Scope), "{facts:?}");
    }
}

#[test]
fn r5_asking_for_too_much_hides_no_theft() {
    let late = Some(Event::LatePresentation);
    let theft = Some(Event::RefreshTokenReplayed);
    for (state, is_used, rotation, seconds, refusal, event) in [
        (State::Retired, true, Rotation::RetrySafe, 59, Refusal::Replaced, &late),
        (State::Retired, true, Rotation::RetrySafe, 60, Refusal::Replayed, &theft),
        (State::Withdrawn, false, Rotation::RetrySafe, 59, Refusal::Replaced, &late),
        (State::Withdrawn, false, Rotation::RetrySafe, 60, Refusal::Replayed, &theft),
        (State::Previous, true, Rotation::RetrySafe, 60, Refusal::Replayed, &theft),
        (State::Retired, true, Rotation::Strict, 2, Refusal::Replaced, &late),
        (State::Retired, true, Rotation::Strict, 3, Refusal::Replayed, &theft),
    ] {
        let judgement = judged(&replaced(state, 0, is_used), Some("a b c"), "192.0.2.1", &policy(rotation), at(seconds));
        let case = format!("{state:?} under {rotation:?} after {seconds} s");
        assert_eq!(matches!(judgement.changes, Changes::End(EndReason::RefreshTokenReplayed)), *event == theft, "{case}");
        assert_eq!((judgement.answer.map(|_| ()), &judgement.event), (Err(refusal), event), "{case}");
    }
}

#[test]
fn r10_idle_and_absolute_life_end_a_grant_and_rotation_extends_only_the_idle_one() {
    let safe = Policy { refresh_ttl: Duration::from_secs(100), ..policy(Rotation::RetrySafe) };
    assert!(judged(&current(0), None, "192.0.2.1", &safe, at(99)).answer.is_ok());
    let idle = judged(&current(0), None, "192.0.2.1", &safe, at(100));
    assert!(matches!(idle.changes, Changes::Nothing));
    assert_eq!(idle.answer.map(|_| ()), Err(Refusal::Idle));

    // It is an age: the wall clock alone ends nothing and lengthens nothing.
    let stepped = |wall: u64, boot: u64| Moment { wall: at(wall).wall, ..at(boot) };
    assert!(judged(&current(0), None, "192.0.2.1", &safe, stepped(1_000_000, 99)).answer.is_ok());
    assert_eq!(judged(&current(50), None, "192.0.2.1", &safe, stepped(0, 150)).answer.map(|_| ()), Err(Refusal::Idle));

    let mut facts = current(0);
    facts.grant.expires_at = Some(at(50).wall);
    let judgement = judged(&facts, None, "192.0.2.1", &safe, at(49));
    assert_eq!(judgement.answer.expect("tokens").expires_in, Duration::from_secs(1), "no access token outlives its grant");
    assert_eq!(judged(&facts, None, "192.0.2.1", &safe, at(50)).answer.map(|_| ()), Err(Refusal::GrantEnded));
}

#[test]
fn r1_an_ended_grant_refuses_every_token_and_changes_nothing() {
    for mut facts in [current(0), replaced(State::Previous, 0, false), replaced(State::Retired, 0, true)] {
        facts.grant.ended = Some(super::super::grant::Ended { at: at(1).wall, reason: EndReason::RevokedByClient });
        let judgement = judged_safe(&facts, 2);
        assert!(matches!(judgement.changes, Changes::Nothing) && judgement.event.is_none());
        assert_eq!(judgement.answer.map(|_| ()), Err(Refusal::GrantEnded));
    }
}

#[test]
fn r1_another_clients_token_is_refused_and_counts_as_no_use() {
    for facts in [current(0), replaced(State::Previous, 0, true), replaced(State::Retired, 0, true)] {
        let (fresh, token) = (fresh("new"), SecretString::from("presented"));
        let request = Request { client: Id::from_bytes([9; 16]), token: &token, scope: None, from: None, fresh: &fresh, binding: None };
        let judgement = judge(&facts, &request, &policy(Rotation::RetrySafe), at(1_000));
        assert!(matches!(judgement.changes, Changes::Nothing));
        assert_eq!(judgement.answer.map(|_| ()), Err(Refusal::OtherClient));
        assert_eq!(judgement.event, Some(Event::RefreshTokenOfAnotherClient));
    }
}

#[test]
fn a_repeat_from_a_second_address_alerts() {
    let judgement = judged(&replaced(State::Previous, 0, true), None, "198.51.100.7", &policy(Rotation::RetrySafe), at(1));
    assert!(judgement.answer.is_ok() && judgement.event.expect("an event").is_alert());
}

#[test]
fn strict_refuses_every_second_use_and_takes_a_late_one_for_theft() {
    let strict = policy(Rotation::Strict);
    let first = judged(&current(0), None, "192.0.2.1", &strict, at(1));
    let Changes::Mint(mint) = first.changes else { panic!("{:?}", first.changes) };
    assert!(mint.presented_becomes == State::Retired && mint.ends_earlier_access && mint.repeat.is_none());
    let race = judged(&replaced(State::Retired, 0, false), None, "192.0.2.1", &strict, at(2));
    assert!(matches!(race.changes, Changes::Nothing) && race.answer.is_err());
    let theft = judged(&replaced(State::Retired, 0, false), None, "192.0.2.1", &strict, at(3));
    assert!(matches!(theft.changes, Changes::End(_)) && theft.answer.is_err());
}

#[test]
fn r11_without_rotation_the_same_refresh_token_stays() {
    let judgement = judged(&current(0), None, "192.0.2.1", &policy(Rotation::None), at(1));
    assert!(matches!(judgement.changes, Changes::Renew(NewAccess { generation: 1, .. })));
    assert_eq!(judgement.answer.expect("tokens").refresh.expose_secret(), "presented");
}

/// One refresh token as the search keeps it. Time is counted in lapsed windows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kept {
    state: State,
    since: u8,
    is_used: bool,
}

/// Everything that matters for what can still happen.
#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    tokens: BTreeMap<u32, Kept>,
    is_ended: bool,
    now: u8,
    /// The refresh token that the client has stored.
    stored: u32,
    /// Requests that may still be judged, by the token that they present.
    requests: Vec<u32>,
    /// Answers that may still arrive: the token that asked, and the successor or a refusal.
    answers: Vec<(u32, Option<u32>)>,
    /// The client has given up: it got `invalid_grant` for the token that it holds.
    is_lost: bool,
    sends: u8,
    crashes: u8,
    lapses: u8,
}

impl World {
    fn new(sends: u8, crashes: u8, lapses: u8) -> Self {
        let first = Kept { state: State::Current, since: 0, is_used: true };
        Self {
            tokens: [(1, first)].into(),
            is_ended: false,
            now: 0,
            stored: 1,
            requests: Vec::new(),
            answers: Vec::new(),
            is_lost: false,
            sends,
            crashes,
            lapses,
        }
    }

    fn current(&self) -> u32 {
        let mut current = self.tokens.iter().filter(|(_, token)| token.state == State::Current).map(|(generation, _)| *generation);
        let only = current.next().expect("a grant has a current token");
        assert!(current.next().is_none(), "two live branches");
        only
    }

    fn judge(&self, generation: u32, rotation: Rotation) -> Judgement {
        let moment = |lapses: u8| at(u64::from(lapses) * WINDOW.as_secs());
        let (presented, current) = (self.tokens[&generation], self.tokens[&self.current()]);
        let facts = Facts {
            grant: Grant {
                ended: self.is_ended.then(|| super::super::grant::Ended { at: at(0).wall, reason: EndReason::RefreshTokenReplayed }),
                ..grant()
            },
            presented: Token { generation, state: presented.state, since: moment(presented.since), remints: 0, presented_from: None },
            current: Current { generation: self.current(), since: moment(current.since), is_used: current.is_used },
            repeat: (presented.state == State::Previous).then(|| Repeat {
                refresh: SecretString::from(self.current().to_string()),
                ..repeat(u64::from(current.since) * WINDOW.as_secs())
            }),
        };
        let next = Fresh { refresh: SecretString::from((self.current() + 1).to_string()), access: SecretString::from("access") };
        let token = SecretString::from(generation.to_string());
        judge(
            &facts,
            &Request { client: facts.grant.app, token: &token, scope: None, from: None, fresh: &next, binding: None },
            &policy(rotation),
            moment(self.now),
        )
    }

    fn apply(&mut self, generation: u32, changes: &Changes) {
        match changes {
            Changes::Nothing | Changes::ReplaceAccess { .. } | Changes::Renew(_) => {}
            Changes::End(_) => self.is_ended = true,
            Changes::Mint(mint) => {
                let (aside, becomes) = match mint.replaces {
                    Replaces::Previous => (State::Previous, State::Retired),
                    Replaces::Current => (State::Current, State::Withdrawn),
                };
                for token in self.tokens.values_mut().filter(|token| token.state == aside) {
                    *token = Kept { state: becomes, since: self.now, ..*token };
                }
                let presented = self.tokens.get_mut(&generation).expect("it was judged");
                if presented.state != mint.presented_becomes {
                    *presented = Kept { state: mint.presented_becomes, since: self.now, ..*presented };
                }
                self.tokens.insert(mint.access.generation, Kept { state: State::Current, since: self.now, is_used: false });
            }
        }
    }

    /// Every state that one event leads to.
    fn successors(&self, rotation: Rotation) -> Vec<Self> {
        let mut worlds = Vec::new();
        let mut happens = |event: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            event(&mut world);
            worlds.push(world);
        };
        if self.is_lost {
            return worlds;
        }
        // The client sends, again and again while it has no answer. Two may be under way: a timed-out one, and the next.
        if self.sends > 0 && self.requests.len() < 2 {
            happens(&|world| {
                world.sends -= 1;
                world.requests.push(world.stored);
            });
        }
        for position in 0..self.requests.len() {
            let judged = |world: &mut Self| {
                let generation = world.requests.remove(position);
                let judgement = world.judge(generation, rotation);
                world.apply(generation, &judgement.changes);
                let successor = judgement.answer.ok().map(|answer| answer.refresh.expose_secret().parse().expect("a generation"));
                (generation, successor)
            };
            // It is judged, and the answer is on its way, or lost.
            happens(&|world| {
                let answer = judged(world);
                world.answers.push(answer);
            });
            happens(&|world| {
                judged(world);
            });
            // It never arrives.
            happens(&|world| {
                world.requests.remove(position);
            });
        }
        // An answer arrives. The client stores by compare-and-set: what answers an older token is dropped.
        for position in 0..self.answers.len() {
            happens(&|world| {
                let (asked, successor) = world.answers.remove(position);
                if asked == world.stored {
                    match successor {
                        Some(successor) => world.stored = successor,
                        None => world.is_lost = true,
                    }
                }
            });
        }
        // The client uses the access token that came with what it has stored.
        if self.tokens[&self.stored].state == State::Current && !self.tokens[&self.stored].is_used {
            happens(&|world| world.tokens.get_mut(&world.stored).expect("it is stored").is_used = true);
        }
        // The client dies: answers under way find nobody, requests under way may still be judged.
        if self.crashes > 0 {
            happens(&|world| {
                world.crashes -= 1;
                world.answers.clear();
            });
        }
        // A window passes. No request and no wait for an answer lasts that long.
        if self.lapses > 0 {
            happens(&|world| {
                world.lapses -= 1;
                world.now += 1;
                world.requests.clear();
                world.answers.clear();
            });
        }
        worlds
    }

    /// What must hold at every point: one live branch, no theft seen, and the client's token still gets tokens.
    fn is_sound(&self, rotation: Rotation) -> bool {
        self.current();
        let previous = self.tokens.values().filter(|token| token.state == State::Previous).count();
        previous <= 1 && !self.is_ended && !self.is_lost && self.judge(self.stored, rotation).answer.is_ok()
    }
}

/// Visits every state that can be reached; the number of states, or nothing when one of them is not sound.
fn search(start: World, rotation: Rotation) -> Option<usize> {
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        if !world.is_sound(rotation) {
            return None;
        }
        for next in world.successors(rotation) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Some(seen.len())
}

#[test]
fn r3_r4_r6_no_order_of_losses_crashes_and_lapses_loses_the_link_or_makes_two() {
    let states = search(World::new(5, 1, 3), Rotation::RetrySafe).expect("every reachable state is sound");
    assert!(states > 20_000, "only {states} states were searched");
}

#[test]
fn the_search_sees_a_lost_link() {
    assert_eq!(search(World::new(2, 0, 1), Rotation::Strict), None, "strict rotation loses the link with a lost answer");
}
