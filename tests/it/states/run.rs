//! A run: each operation is done to the real instance and to the model, and what the one answers is what the other says.

macro_rules! wrong {
    ($($what:tt)*) => { return Err(format!($($what)*)) };
}

mod alone;
mod sound;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::future::{join, join_all};
use p2pid::secret::Digest;

use super::instance::{APPS, Answer, Real, VERIFIER, redeeming};
use super::model::{Alone, Expected, Grant, Pair, Secrets, Standing, Time};
use super::operations::{Asks, CodeTrouble, Failing, Operation};

/// What is wrong, in words.
pub(super) type Wrong = String;

const TOKEN: &str = "/oauth/token";
const REVOKE: &str = "/oauth/revoke";
const INTROSPECT: &str = "/oauth/introspect";

/// Grants at once, and refresh tokens of each, at most: a long run stays quick.
const GRANTS: usize = 8;
const TOKENS: usize = 40;

/// A token, or a code, that must never work again, and its app.
struct Dead {
    text: String,
    app: usize,
}

pub(super) struct Run {
    real: Real,
    has_grant_ttl: bool,
    grants: Vec<Grant>,
    alone: Vec<Alone>,
    secrets: Vec<Secrets>,
    dead: Vec<Dead>,
    /// The first refresh tokens of grants that were ended.
    graves: HashSet<Digest>,
    /// Access tokens of grants that were ended since the last look: the next call with one of them is refused already.
    ended_now: Vec<String>,
    seen: HashSet<String>,
    backup: Option<Vec<Secrets>>,
    /// How far the wall clock was set ahead, in seconds.
    set_ahead: i64,
    /// How often what happened.
    done: BTreeMap<&'static str, u32>,
}

/// Does all of it, or says what was wrong after which operation.
pub(super) async fn run(seed: u64, operations: &[Operation]) -> Result<BTreeMap<&'static str, u32>, Wrong> {
    let first: Vec<String> = APPS.iter().map(|app| format!("the-first-secret-of-{}", app.name)).collect();
    let has_grant_ttl = !seed.is_multiple_of(2);
    let mut run = Run {
        real: Real::new(seed ^ 0x5eed, has_grant_ttl, first.clone()).await,
        has_grant_ttl,
        grants: Vec::new(),
        alone: Vec::new(),
        secrets: first.into_iter().map(Secrets::new).collect(),
        dead: Vec::new(),
        graves: HashSet::new(),
        ended_now: Vec::new(),
        seen: HashSet::new(),
        backup: None,
        set_ahead: 0,
        done: BTreeMap::new(),
    };
    for (number, operation) in operations.iter().enumerate() {
        let done = async {
            run.does(*operation).await?;
            run.is_sound().await
        };
        done.await.map_err(|wrong| format!("{wrong}\n  by operation {number}, {operation:?}"))?;
    }
    for number in 0..run.dead.len().min(400) {
        run.tries_the_dead(run.dead.len() - 1 - number).await?;
    }
    Ok(run.done)
}

impl Run {
    fn now(&self) -> Time {
        self.real.now()
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn pick(&self, grant: u8) -> Option<usize> {
        (!self.grants.is_empty()).then(|| usize::from(grant) % self.grants.len())
    }

    /// A new text, or one that was handed out before, which is wrong.
    fn is_new(&mut self, text: &str) -> Result<(), Wrong> {
        if text.is_empty() || !self.seen.insert(text.to_owned()) {
            wrong!("a token was handed out twice, or is none: {text:?}");
        }
        Ok(())
    }

    async fn asks(&self, app: usize, path: &str, form: &[(&str, &str)]) -> Answer {
        self.real.posts(path, app, &self.secrets[app].newest, form).await
    }

    async fn does(&mut self, operation: Operation) -> Result<(), Wrong> {
        match operation {
            Operation::Link { app, trouble } => self.links(usize::from(app) % APPS.len(), trouble).await,
            Operation::Alone { app } => self.gets_one_alone(usize::from(app) % APPS.len()).await,
            Operation::UseAlone { token } => self.uses_alone(token).await,
            Operation::RevokeAlone { token } => self.revokes_alone(token).await,
            Operation::RotateSecret { app, minutes } => {
                let app = usize::from(app) % APPS.len();
                if !APPS[app].is_public {
                    let rotated = self.real.rotates_secret(app, Duration::from_secs(u64::from(minutes) * 60)).await;
                    let now = self.now();
                    match rotated {
                        Some(secret) => self.secrets[app].rotate(secret, i64::from(minutes) * super::model::MINUTE, now),
                        None if minutes > 0 && !self.secrets[app].has_room(now) => {}
                        None => wrong!("there was room for another secret"),
                    }
                }
                Ok(())
            }
            Operation::OldSecret { app, secret } => self.tries_old_secret(usize::from(app) % APPS.len(), usize::from(secret)).await,
            Operation::Pass { seconds } => {
                self.real.clock.advance(Duration::from_secs(u64::from(seconds)));
                Ok(())
            }
            Operation::Step { seconds } => {
                self.steps(i64::from(seconds));
                Ok(())
            }
            Operation::Reboot => {
                // A machine that boots has lost its processes.
                self.real.clock.reboot();
                self.real.crashes().await;
                Ok(())
            }
            Operation::Restart => {
                self.real.restarts().await;
                Ok(())
            }
            Operation::Crash => {
                self.real.crashes().await;
                Ok(())
            }
            Operation::BackUp => {
                self.real.backs_up();
                self.backup = Some(self.secrets.clone());
                Ok(())
            }
            Operation::Restore => {
                self.restores().await;
                Ok(())
            }
            Operation::Tidy => {
                self.tidies().await;
                Ok(())
            }
            Operation::TryTheDead { token } => match self.dead.len() {
                0 => Ok(()),
                // The youngest are the likeliest to be alive.
                dead => self.tries_the_dead(dead - 1 - usize::from(token) % dead.min(64)).await,
            },
            Operation::ReplayCode { grant }
            | Operation::Use { grant }
            | Operation::Refresh { grant, .. }
            | Operation::Race { grant, .. }
            | Operation::RefreshAndRevoke { grant }
            | Operation::OldRefresh { grant, .. }
            | Operation::OldAccess { grant, .. }
            | Operation::OtherClient { grant, .. }
            | Operation::OtherKey { grant }
            | Operation::Introspect { grant, .. }
            | Operation::Revoke { grant, .. }
            | Operation::Fail { grant, .. } => match self.pick(grant) {
                Some(grant) => self.does_to(grant, operation).await,
                None => self.links(usize::from(grant) % APPS.len(), CodeTrouble::Nothing).await,
            },
        }
    }

    async fn does_to(&mut self, grant: usize, operation: Operation) -> Result<(), Wrong> {
        let now = self.now();
        match operation {
            Operation::Use { .. } => {
                let stored = self.grants[grant].stored.access.clone();
                self.uses(grant, &stored).await
            }
            Operation::OldAccess { token, .. } => {
                let access = &self.grants[grant].access;
                let text = access[access.len() - 1 - usize::from(token) % access.len()].text.clone();
                self.grants[grant].is_compromised |= text != self.grants[grant].stored.access;
                self.uses(grant, &text).await
            }
            Operation::Refresh { asks, is_lost, .. } => self.refreshes(grant, asks, is_lost).await,
            Operation::OldRefresh { token, asks, .. } => {
                let refresh = &self.grants[grant].refresh;
                let place = refresh.len() - 1 - usize::from(token) % refresh.len().min(8);
                let expected = self.grants[grant].expects(place, asks.scope().as_deref(), now);
                self.grants[grant].is_compromised |= !matches!(expected, Expected::Refused(_));
                self.presents(grant, place, asks.scope().as_deref()).await.map(drop)
            }
            Operation::Race { times, .. } => self.races(grant, times).await,
            Operation::RefreshAndRevoke { .. } => self.refreshes_and_revokes(grant).await,
            Operation::ReplayCode { .. } => {
                let (app, code) = (self.grants[grant].app, self.grants[grant].code.clone());
                let answer = self.asks(app, TOKEN, &redeeming(&code, VERIFIER)).await;
                is_refused(&answer, "invalid_grant", "a code that was used")?;
                self.count("code replayed");
                self.buries(grant);
                Ok(())
            }
            Operation::OtherClient { token, app, revokes, .. } => {
                let own = self.grants[grant].app;
                let other = (own + 1 + usize::from(app) % (APPS.len() - 1)) % APPS.len();
                let refresh = &self.grants[grant].refresh;
                let text = refresh[usize::from(token) % refresh.len()].text.clone();
                let answer = if revokes {
                    self.asks(other, REVOKE, &[("token", &text)]).await
                } else {
                    self.asks(other, TOKEN, &refreshing(&text)).await
                };
                is_refused(&answer, "invalid_grant", "another client's token")
            }
            Operation::OtherKey { .. } => {
                let (app, text) = (self.grants[grant].app, self.grants[grant].stored.refresh.clone());
                if !APPS[app].is_public {
                    return Ok(());
                }
                let answer = self.real.posts_with_other_key(TOKEN, app, &refreshing(&text)).await;
                is_refused(&answer, "invalid_grant", "a token without its key")
            }
            Operation::Introspect { token, .. } => self.introspects(grant, usize::from(token)).await,
            Operation::Revoke { token, .. } => {
                let (app, tokens) = (self.grants[grant].app, self.grants[grant].tokens().collect::<Vec<_>>());
                let text = &tokens[usize::from(token) % tokens.len()];
                for _ in 0..2 {
                    let answer = self.asks(app, REVOKE, &[("token", text)]).await;
                    if answer.status != 200 {
                        wrong!("a revocation was answered {answer:?}");
                    }
                }
                self.count("revoked");
                self.buries(grant);
                Ok(())
            }
            Operation::Fail { at, .. } => self.fails(grant, at, now).await,
            _ => Ok(()),
        }
    }

    /// A code, redeemed with or without trouble.
    async fn links(&mut self, app: usize, trouble: CodeTrouble) -> Result<(), Wrong> {
        if self.grants.len() >= GRANTS {
            return Ok(());
        }
        let code = self.real.allows(app).await;
        match trouble {
            CodeTrouble::OtherClient => {
                let answer = self.asks((app + 1) % APPS.len(), TOKEN, &redeeming(&code, VERIFIER)).await;
                is_refused(&answer, "invalid_grant", "another client's code")?;
            }
            CodeTrouble::WrongVerifier => {
                let other = VERIFIER.replace("verifier", "VERIFIER");
                for verifier in [other.as_str(), VERIFIER] {
                    let answer = self.asks(app, TOKEN, &redeeming(&code, verifier)).await;
                    is_refused(&answer, "invalid_grant", "a code with a wrong verifier, and the code that this burnt")?;
                }
                return Ok(());
            }
            CodeTrouble::Fails => {
                self.real.breaks(Failing::AccessToken).await;
                let answer = self.asks(app, TOKEN, &redeeming(&code, VERIFIER)).await;
                self.real.heals().await;
                has_failed(&answer)?;
            }
            CodeTrouble::Raced => return self.links_twice_at_once(app, &code).await,
            CodeTrouble::Nothing | CodeTrouble::Lost => {}
        }
        let answer = self.asks(app, TOKEN, &redeeming(&code, VERIFIER)).await;
        let pair = pair_of(&answer)?;
        self.is_new(&pair.refresh)?;
        self.is_new(&pair.access)?;
        let now = self.now();
        self.grants.push(Grant::new(app, APPS[app].rotation, APPS[app].access_ttl, self.has_grant_ttl, code, pair, now));
        self.count("linked");
        if trouble == CodeTrouble::Lost {
            // Nobody knows these tokens; the client sends the code once more, which shows that somebody may.
            return self.does_to(self.grants.len() - 1, Operation::ReplayCode { grant: 0 }).await;
        }
        Ok(())
    }

    /// Of two at once exactly one gets tokens, and the other ends what it got.
    async fn links_twice_at_once(&mut self, app: usize, code: &str) -> Result<(), Wrong> {
        let form = redeeming(code, VERIFIER);
        let (one, two) = join(self.asks(app, TOKEN, &form), self.asks(app, TOKEN, &form)).await;
        let (good, bad) = if one.status == 200 { (one, two) } else { (two, one) };
        let pair = pair_of(&good)?;
        is_refused(&bad, "invalid_grant", "one of two redemptions at once")?;
        let now = self.now();
        self.grants.push(Grant::new(app, APPS[app].rotation, APPS[app].access_ttl, self.has_grant_ttl, code.to_owned(), pair, now));
        self.buries(self.grants.len() - 1);
        Ok(())
    }

    async fn uses(&mut self, grant: usize, access: &str) -> Result<(), Wrong> {
        let now = self.now();
        let place = self.grants[grant].access.iter().position(|known| known.text == access).expect("it was issued");
        let (ought, is) = (self.grants[grant].presents(place, now), self.real.takes(access).await);
        if ought != is {
            wrong!("an access token was {}", if is { "taken, and is not good" } else { "refused, and is good" });
        }
        self.count(if is { "used" } else { "use refused" });
        Ok(())
    }

    /// The honest client: it presents what it has stored, and asks again for what it asked when an answer was lost.
    async fn refreshes(&mut self, grant: usize, asks: Asks, is_lost: bool) -> Result<(), Wrong> {
        let client = &self.grants[grant];
        let place = client.refresh.iter().position(|token| token.text == client.stored.refresh).expect("it was issued");
        let scope = match (&client.asked, asks) {
            (Some(asked), _) => Some(asked.clone()),
            (None, Asks::Whole | Asks::More) => None,
            (None, Asks::Less) => asks.scope(),
        };
        let Some(answer) = self.presents(grant, place, scope.as_deref()).await? else { return Ok(()) };
        let client = &mut self.grants[grant];
        if is_lost {
            client.asked = Some(scope.unwrap_or_else(|| super::model::WHOLE_SCOPE.to_owned()));
        } else {
            (client.stored, client.asked) = (answer, None);
        }
        Ok(())
    }

    /// Presents a refresh token as its own client. Gives the pair that came, if one had to come.
    async fn presents(&mut self, grant: usize, place: usize, asked: Option<&str>) -> Result<Option<Pair>, Wrong> {
        let (app, text, now) = (self.grants[grant].app, self.grants[grant].refresh[place].text.clone(), self.now());
        let expected = self.grants[grant].expects(place, asked, now);
        let mut form = refreshing(&text).to_vec();
        form.extend(asked.map(|asked| ("scope", asked)));
        let answer = self.asks(app, TOKEN, &form).await;
        self.settles(grant, place, asked, &expected, &answer, now)
    }

    /// Compares an answer with what was expected, and follows it.
    fn settles(
        &mut self,
        grant: usize,
        place: usize,
        asked: Option<&str>,
        expected: &Expected,
        answer: &Answer,
        now: Time,
    ) -> Result<Option<Pair>, Wrong> {
        let pair = match expected {
            Expected::Refused(code) => {
                is_refused(answer, code, "a refresh token")?;
                self.count("refresh refused");
                return Ok(None);
            }
            Expected::Theft => {
                is_refused(answer, "invalid_grant", "a refresh token that only a thief can have")?;
                self.count("theft");
                self.buries(grant);
                return Ok(None);
            }
            Expected::NewPair | Expected::Again(_) | Expected::NewAccess(_) => pair_of(answer)?,
        };
        match expected {
            Expected::Again(known) if *known != pair => wrong!("a repetition brought another pair"),
            Expected::Again(_) => self.count("repeated"),
            Expected::NewAccess(refresh) if *refresh != pair.refresh => wrong!("another refresh token came than the one that stays"),
            Expected::NewAccess(_) => {
                self.is_new(&pair.access)?;
                self.count("access renewed");
            }
            _ => {
                self.is_new(&pair.refresh)?;
                self.is_new(&pair.access)?;
                let is_current = self.grants[grant].refresh[place].standing == Standing::Current;
                self.count(if is_current { "rotated" } else { "minted again" });
            }
        }
        self.grants[grant].was_answered(place, asked, expected, &pair, now);
        let access = self.grants[grant].access.iter().find(|known| known.text == pair.access).expect("it was issued");
        let scope = answer.text("scope").unwrap_or(super::model::WHOLE_SCOPE);
        if scope != access.scope {
            wrong!("the scope {scope:?} came instead of {:?}", access.scope);
        }
        if answer.expires_in() > APPS[self.grants[grant].app].access_ttl / 1_000 {
            wrong!("the access token lives longer than one may");
        }
        Ok(Some(pair))
    }

    /// The same token several times at once: each that gets an answer gets what the first one got.
    async fn races(&mut self, grant: usize, times: u8) -> Result<(), Wrong> {
        let client = &self.grants[grant];
        let (app, text, now) = (client.app, client.stored.refresh.clone(), self.now());
        let place = client.refresh.iter().position(|token| token.text == text).expect("it was issued");
        let asked = client.asked.clone();
        let mut form = refreshing(&text).to_vec();
        form.extend(asked.as_deref().map(|asked| ("scope", asked)));
        let answers = join_all((0..times).map(|_| self.asks(app, TOKEN, &form))).await;
        let mut answers: Vec<&Answer> = answers.iter().collect();
        // In which order they were judged nobody knows, but the first that got tokens was judged before any that were refused.
        answers.sort_by_key(|answer| answer.status);
        let mut last = None;
        for answer in answers {
            let expected = self.grants[grant].expects(place, asked.as_deref(), now);
            match self.settles(grant, place, asked.as_deref(), &expected, answer, now)? {
                Some(pair) => last = Some(pair),
                None if expected == Expected::Theft => return Ok(()),
                None => {}
            }
        }
        self.count("raced");
        if let Some(pair) = last {
            (self.grants[grant].stored, self.grants[grant].asked) = (pair, None);
        }
        Ok(())
    }

    /// Whichever comes first: when both are answered, no token of the grant works.
    async fn refreshes_and_revokes(&mut self, grant: usize) -> Result<(), Wrong> {
        let (app, text) = (self.grants[grant].app, self.grants[grant].stored.refresh.clone());
        let access = self.grants[grant].stored.access.clone();
        let (form, token) = (refreshing(&text), [("token", text.as_str())]);
        let ((refreshed, revoked), _) =
            join(join(self.asks(app, TOKEN, &form), self.asks(app, REVOKE, &token)), self.real.takes(&access)).await;
        if revoked.status != 200 {
            wrong!("a revocation was answered {revoked:?}");
        }
        if refreshed.status == 200 {
            let Pair { refresh, access } = pair_of(&refreshed)?;
            self.dead.extend([refresh, access].map(|text| Dead { text, app }));
        } else {
            is_refused(&refreshed, refreshed.error(), "a refresh beside a revocation")?;
        }
        self.count("refreshed and revoked at once");
        let from = self.dead.len().saturating_sub(2);
        self.buries(grant);
        for number in from..self.dead.len() {
            self.tries_the_dead(number).await?;
        }
        Ok(())
    }

    async fn introspects(&mut self, grant: usize, token: usize) -> Result<(), Wrong> {
        let (app, now) = (self.grants[grant].app, self.now());
        if APPS[app].is_public {
            return Ok(());
        }
        let (count, is_refresh) = (self.grants[grant].refresh.len(), token.is_multiple_of(2));
        let client = &mut self.grants[grant];
        let (text, ought) = if is_refresh {
            let place = count - 1 - (token / 2) % count.min(8);
            client.is_compromised |= client.refresh[place].text != client.stored.refresh;
            (client.refresh[place].text.clone(), client.is_seen_active(place, now))
        } else {
            let place = client.access.len() - 1 - (token / 2) % client.access.len();
            client.is_compromised |= client.access[place].text != client.stored.access;
            (client.access[place].text.clone(), client.presents(place, now))
        };
        let answer = self.asks(app, INTROSPECT, &[("token", &text)]).await;
        if answer.is_active() != Some(ought) {
            wrong!("introspection says {answer:?}, and the token is {}", if ought { "good" } else { "not good" });
        }
        Ok(())
    }

    /// The database fails half-way. It is no answer that anything rests on, and nothing of it is there afterwards.
    async fn fails(&mut self, grant: usize, at: Failing, now: Time) -> Result<(), Wrong> {
        let client = &self.grants[grant];
        let (app, text) = (client.app, client.stored.refresh.clone());
        let place = client.refresh.iter().position(|token| token.text == text).expect("it was issued");
        let expected = client.expects(place, client.asked.as_deref(), now);
        let touches = match at {
            Failing::RefreshToken => expected == Expected::NewPair,
            Failing::AccessToken => matches!(expected, Expected::NewPair | Expected::NewAccess(_)),
            Failing::Revocation => true,
        };
        if !touches {
            return Ok(());
        }
        let asked = client.asked.clone();
        let mut form = refreshing(&text).to_vec();
        form.extend(asked.as_deref().map(|asked| ("scope", asked)));
        self.real.breaks(at).await;
        let answer = match at {
            Failing::Revocation => self.asks(app, REVOKE, &[("token", &text)]).await,
            Failing::RefreshToken | Failing::AccessToken => self.asks(app, TOKEN, &form).await,
        };
        self.real.heals().await;
        self.count("failed");
        has_failed(&answer)
    }
}

fn refreshing(token: &str) -> [(&'static str, &str); 2] {
    [("grant_type", "refresh_token"), ("refresh_token", token)]
}

fn pair_of(answer: &Answer) -> Result<Pair, Wrong> {
    match (answer.status, answer.text("refresh_token"), answer.text("access_token")) {
        (200, Some(refresh), Some(access)) => Ok(Pair { refresh: refresh.to_owned(), access: access.to_owned() }),
        _ => Err(format!("tokens ought to have come instead of {} {}", answer.status, answer.error())),
    }
}

fn is_refused(answer: &Answer, code: &str, what: &str) -> Result<(), Wrong> {
    if (400..500).contains(&answer.status) && answer.error() == code {
        return Ok(());
    }
    Err(format!("{what} ought to be refused with {code}, and was answered {} {}", answer.status, answer.error()))
}

fn has_failed(answer: &Answer) -> Result<(), Wrong> {
    if answer.status >= 500 && answer.error() == "server_error" {
        return Ok(());
    }
    Err(format!("the database failed, and the answer is {} {}", answer.status, answer.error()))
}
