//! What must hold after every operation, what ends a grant, and what concerns all of them at once.

use std::collections::HashMap;
use std::time::Duration;

use p2pid::secret::Digest;

use super::super::model::{DAY, Expected, Grant, Rotation, Standing, Time};
use super::{APPS, Dead, INTROSPECT, Run, TOKEN, TOKENS, Wrong, is_refused, refreshing};

impl Run {
    /// The wall clock is set, by no more than a hundred days in all.
    pub(super) fn steps(&mut self, seconds: i64) {
        if (self.set_ahead + seconds).abs() * 1_000 > 100 * DAY {
            return;
        }
        self.set_ahead += seconds;
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds > 0 {
            self.real.clock.step_wall_forward(by);
        } else {
            self.real.clock.step_wall_back(by);
        }
    }

    pub(super) async fn restores(&mut self) {
        let Some(secrets) = self.backup.clone() else { return };
        self.real.restores().await;
        self.count("restored");
        // Every token of before is dead; secrets are what they were, and those of since are no more.
        while !self.grants.is_empty() {
            self.buries(0);
        }
        self.dead.extend(self.alone.drain(..).map(|token| Dead { text: token.text, app: token.app }));
        for (now, then) in self.secrets.iter_mut().zip(secrets) {
            let newest = std::mem::replace(now, then).newest;
            if newest != now.newest {
                now.over.push(newest);
            }
        }
    }

    pub(super) async fn tidies(&mut self) {
        self.real.tidies().await;
        let now = self.now();
        self.grants.iter_mut().for_each(|grant| grant.is_tidied(now));
        self.secrets.iter_mut().for_each(|secrets| secrets.is_tidied(now));
    }

    /// The grant has ended: nothing of it ever works again.
    pub(super) fn buries(&mut self, grant: usize) {
        let grant = self.grants.swap_remove(grant);
        self.graves.insert(Digest::of(&grant.refresh[0].text));
        self.ended_now.extend(grant.access.iter().rev().take(4).map(|access| access.text.clone()));
        self.ended_now.push(grant.stored.access.clone());
        self.dead.extend(grant.tokens().map(|text| Dead { text, app: grant.app }));
    }

    /// A token of what has ended: it is not taken, not refreshed, and introspection knows nothing of it.
    pub(super) async fn tries_the_dead(&mut self, number: usize) -> Result<(), Wrong> {
        let Dead { text, app } = &self.dead[number];
        if text.starts_with("p2pr_") {
            let answer = self.asks(*app, TOKEN, &refreshing(text)).await;
            is_refused(&answer, "invalid_grant", "a refresh token of what has ended")?;
        } else if self.real.takes(text).await || self.real.remembers(text).await {
            wrong!("an access token of what has ended was taken");
        }
        if !APPS[*app].is_public {
            let answer = self.asks(*app, INTROSPECT, &[("token", text)]).await;
            if answer.is_active() != Some(false) {
                wrong!("introspection of what has ended says {answer:?}");
            }
        }
        self.count("dead tried");
        Ok(())
    }

    /// What must hold after everything: the database has each grant as the model has it, whatever was done to others; each has one live
    /// branch; no honest client is lost; and what was ended stays so.
    pub(super) async fn is_sound(&mut self) -> Result<(), Wrong> {
        for access in std::mem::take(&mut self.ended_now) {
            if self.real.takes(&access).await {
                wrong!("an access token was taken right after its grant was ended");
            }
        }
        let now = self.now();
        let rows = self.real.rows().await;
        let mut by_grant: HashMap<_, Vec<_>> = HashMap::new();
        for row in &rows {
            by_grant.entry(row.grant).or_default().push(row);
        }
        let owners: HashMap<Digest, _> = rows.iter().map(|row| (row.digest, row.grant)).collect();
        for grant in &self.grants {
            let Some(rows) = owners.get(&Digest::of(&grant.refresh[0].text)).map(|owner| &by_grant[owner]) else {
                wrong!("a grant has gone from the database");
            };
            if rows.len() != grant.refresh.len() {
                wrong!("a grant has {} refresh tokens in the database, and was given {}", rows.len(), grant.refresh.len());
            }
            let states: HashMap<Digest, &_> = rows.iter().map(|row| (row.digest, *row)).collect();
            for token in &grant.refresh {
                let Some(row) = states.get(&Digest::of(&token.text)) else { wrong!("a refresh token has gone from the database") };
                let standing = match row.state.as_str() {
                    "current" => Standing::Current,
                    "previous" => Standing::Previous,
                    _ => Standing::Over,
                };
                if standing != token.standing || !row.is_active {
                    wrong!(
                        "a refresh token is {} (of an active grant: {}), and ought to be {:?}",
                        row.state,
                        row.is_active,
                        token.standing
                    );
                }
                if standing == Standing::Current && row.is_used != grant.has_arrived() {
                    wrong!("that the current pair has arrived is {}, and ought to be {}", row.is_used, grant.has_arrived());
                }
            }
            let live = rows.iter().filter(|row| row.state == "current").count();
            if live != 1 {
                wrong!("{live} live branches");
            }
            is_not_lost(grant, now)?;
        }
        for grave in self.graves.iter().filter_map(|first| owners.get(first)) {
            if by_grant[grave].iter().any(|row| row.is_active) {
                wrong!("a grant that was ended is active");
            }
        }
        self.forgets_what_is_over(now);
        Ok(())
    }

    /// What ran out long ago, and what has grown too long.
    pub(super) fn forgets_what_is_over(&mut self, now: Time) {
        let (gone, going): (Vec<_>, Vec<_>) =
            self.grants.drain(..).partition(|grant| grant.is_long_gone(now) || grant.refresh.len() > TOKENS);
        self.grants = going;
        for grant in gone.into_iter().filter(|grant| grant.is_long_gone(now)) {
            self.dead.extend(grant.refresh.iter().map(|token| Dead { text: token.text.clone(), app: grant.app }));
        }
        self.alone.retain(|token| !token.is_long_gone(now));
    }
}

/// The promise to an honest client whose tokens nobody else has used: whatever was lost, what it has stored gets it tokens.
fn is_not_lost(grant: &Grant, now: Time) -> Result<(), Wrong> {
    if grant.is_compromised || grant.rotation == Rotation::Strict || grant.has_run_out(now) {
        return Ok(());
    }
    let place = grant.refresh.iter().position(|token| token.text == grant.stored.refresh).expect("it was issued");
    match grant.expects(place, grant.asked.as_deref(), now) {
        Expected::NewPair | Expected::Again(_) | Expected::NewAccess(_) => Ok(()),
        lost => Err(format!("the link is lost: what the client has stored gets it {lost:?}")),
    }
}
