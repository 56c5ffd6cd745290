//! What ought to be so: grants, tokens and secrets as `protocol.md` has them, kept as plainly as can be. Nothing here calls the code under
//! test; times are numbers of milliseconds.

/// One reading of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) wall: i64,
    pub(super) boot: i64,
    pub(super) boots: u64,
}

impl Time {
    /// Boot time within one boot, else wall time; below zero counts as zero.
    fn age_of(self, earlier: Self) -> i64 {
        let age = if self.boots == earlier.boots { self.boot - earlier.boot } else { self.wall - earlier.wall };
        age.max(0)
    }
}

pub(super) const SECOND: i64 = 1_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const DAY: i64 = 24 * 60 * MINUTE;

/// The lives that the instance is configured with.
pub(super) const RETRY_WINDOW: i64 = MINUTE;
pub(super) const REFRESH_TTL: i64 = 10 * DAY;
pub(super) const GRANT_TTL: i64 = 60 * DAY;

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    RetrySafe,
    Strict,
    Kept,
}

/// Where a refresh token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Current,
    Previous,
    /// Replaced, or withdrawn: it never gets a token again.
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct Refresh {
    pub(super) text: String,
    pub(super) standing: Standing,
    since: Time,
}

#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) text: String,
    /// The refresh token that it came with, by its place.
    generation: usize,
    pub(super) scope: String,
    issued: i64,
    expires: i64,
    is_withdrawn: bool,
}

impl Access {
    fn is_good(&self, now: Time) -> bool {
        !self.is_withdrawn && self.is_in_its_time(now)
    }

    /// A token of use that seems to come from the future by more than a minute is refused.
    fn is_in_its_time(&self, now: Time) -> bool {
        self.issued <= now.wall + MINUTE && now.wall < self.expires
    }
}

/// A pair as an answer brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) refresh: String,
    pub(super) access: String,
}

/// What the token endpoint has to answer to a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// A pair that nobody has seen.
    NewPair,
    /// This pair, which was handed out before.
    Again(Pair),
    /// This refresh token, with an access token that nobody has seen.
    NewAccess(String),
    /// An error, and nothing else follows.
    Refused(&'static str),
    /// `invalid_grant`, and the end of the grant.
    Theft,
}

/// What somebody allowed, and the honest client that holds it.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) app: usize,
    pub(super) rotation: Rotation,
    access_ttl: i64,
    expires: Option<i64>,
    pub(super) refresh: Vec<Refresh>,
    pub(super) access: Vec<Access>,
    /// Whether anything of the current pair was ever presented.
    has_arrived: bool,
    /// What the previous token is answered again: its access token by place, and the scope that was asked.
    repeat: Option<(usize, String)>,
    /// The code that it was made from.
    pub(super) code: String,
    /// What the client has stored, and what it asked for when the answer was lost.
    pub(super) stored: Pair,
    pub(super) asked: Option<String>,
    /// Somebody else has used its tokens: the client may lose it.
    pub(super) is_compromised: bool,
}

pub(super) const WHOLE_SCOPE: &str = "a b";

impl Grant {
    pub(super) fn new(app: usize, rotation: Rotation, access_ttl: i64, has_end: bool, code: String, first: Pair, now: Time) -> Self {
        let mut grant = Self {
            app,
            rotation,
            access_ttl,
            expires: has_end.then_some(now.wall + GRANT_TTL),
            refresh: vec![Refresh { text: first.refresh.clone(), standing: Standing::Current, since: now }],
            access: Vec::new(),
            has_arrived: true,
            repeat: None,
            code,
            stored: first.clone(),
            asked: None,
            is_compromised: false,
        };
        grant.issue(first.access, WHOLE_SCOPE, now);
        grant
    }

    fn issue(&mut self, text: String, scope: &str, now: Time) {
        let end = now.wall + self.access_ttl;
        let expires = self.expires.map_or(end, |grant_end| grant_end.min(end));
        let generation = self.current();
        self.access.push(Access { text, generation, scope: scope.to_owned(), issued: now.wall, expires, is_withdrawn: false });
    }

    /// The place of the one token that stands to be presented next.
    pub(super) fn current(&self) -> usize {
        self.refresh.iter().position(|token| token.standing == Standing::Current).expect("a grant has a current token")
    }

    /// Whether its absolute end or its idle one has come.
    pub(super) fn has_run_out(&self, now: Time) -> bool {
        self.expires.is_some_and(|end| end <= now.wall) || self.idle(now) >= REFRESH_TTL
    }

    fn idle(&self, now: Time) -> i64 {
        now.age_of(self.refresh[self.current()].since)
    }

    /// It has been idle for so long that no step of the clock, as large as they are here, brings it back.
    pub(super) fn is_long_gone(&self, now: Time) -> bool {
        self.idle(now) >= 200 * DAY || self.expires.is_some_and(|end| end + 200 * DAY <= now.wall)
    }

    /// What has to be answered to the refresh token at `place`, asked by its own client for `asked`.
    pub(super) fn expects(&self, place: usize, asked: Option<&str>, now: Time) -> Expected {
        if self.has_run_out(now) {
            return Expected::Refused("invalid_grant");
        }
        let token = &self.refresh[place];
        let within_scope = asked.is_none_or(|asked| asked.split(' ').all(|word| WHOLE_SCOPE.split(' ').any(|known| known == word)));
        let new = |answer| if within_scope { answer } else { Expected::Refused("invalid_scope") };
        let is_open = now.age_of(self.refresh[self.current()].since) < RETRY_WINDOW;
        match (token.standing, self.rotation) {
            (Standing::Current, Rotation::Kept) => new(Expected::NewAccess(token.text.clone())),
            (Standing::Current, Rotation::RetrySafe | Rotation::Strict) => new(Expected::NewPair),
            (Standing::Previous, _) => match &self.repeat {
                Some((access, scope)) if is_open => self.repeats(*access, scope, asked, now),
                _ if !self.has_arrived => new(Expected::NewPair),
                _ => Expected::Theft,
            },
            // The loser of a race, or a straggler.
            (Standing::Over, Rotation::Strict) if now.age_of(token.since) <= 2 * SECOND => Expected::Refused("invalid_grant"),
            (Standing::Over, Rotation::RetrySafe) if now.age_of(token.since) < RETRY_WINDOW => Expected::Refused("invalid_grant"),
            (Standing::Over, _) => Expected::Theft,
        }
    }

    fn repeats(&self, access: usize, scope: &str, asked: Option<&str>, now: Time) -> Expected {
        if asked.unwrap_or(WHOLE_SCOPE) != scope {
            return Expected::Refused("invalid_request");
        }
        let (access, refresh) = (&self.access[access], self.refresh[self.current()].text.clone());
        let life = access.expires - access.issued;
        let remaining = (access.expires - now.wall).clamp(0, life);
        if access.is_in_its_time(now) && 2 * remaining >= life {
            Expected::Again(Pair { refresh, access: access.text.clone() })
        } else {
            Expected::NewAccess(refresh)
        }
    }

    /// Takes in what was answered as expected.
    pub(super) fn was_answered(&mut self, place: usize, asked: Option<&str>, expected: &Expected, answer: &Pair, now: Time) {
        let scope = asked.unwrap_or(WHOLE_SCOPE).to_owned();
        match expected {
            Expected::NewPair => self.was_minted(place, scope, answer, now),
            Expected::NewAccess(_) => {
                if self.rotation == Rotation::Kept {
                    self.refresh[place].since = now;
                }
                self.issue(answer.access.clone(), &scope, now);
                if let Some((access, _)) = &mut self.repeat {
                    *access = self.access.len() - 1;
                }
            }
            Expected::Again(_) | Expected::Refused(_) | Expected::Theft => {}
        }
    }

    fn was_minted(&mut self, place: usize, scope: String, answer: &Pair, now: Time) {
        let current = self.current();
        if place == current {
            for token in self.refresh.iter_mut().filter(|token| token.standing == Standing::Previous) {
                (token.standing, token.since) = (Standing::Over, now);
            }
            let becomes = if self.rotation == Rotation::Strict { Standing::Over } else { Standing::Previous };
            (self.refresh[place].standing, self.refresh[place].since) = (becomes, now);
        } else {
            // The pair that never arrived is dead, and stays dead wherever it turns up.
            (self.refresh[current].standing, self.refresh[current].since) = (Standing::Over, now);
            self.access.iter_mut().filter(|access| access.generation == current).for_each(|access| access.is_withdrawn = true);
        }
        if self.rotation == Rotation::Strict {
            self.access.iter_mut().for_each(|access| access.is_withdrawn = true);
        }
        self.refresh.push(Refresh { text: answer.refresh.clone(), standing: Standing::Current, since: now });
        self.has_arrived = false;
        self.issue(answer.access.clone(), &scope, now);
        self.repeat = (self.rotation == Rotation::RetrySafe).then(|| (self.access.len() - 1, scope));
    }

    /// Whether the access token at `place` has to be taken; that it was shown is remembered.
    pub(super) fn presents(&mut self, place: usize, now: Time) -> bool {
        let access = &self.access[place];
        // A grant of which the absolute end has come has no access token that has not.
        let is_good = access.is_good(now);
        if is_good && access.generation == self.current() {
            self.has_arrived = true;
        }
        is_good
    }

    /// Whether introspection has to call the refresh token at `place` active; that it was shown is remembered.
    pub(super) fn is_seen_active(&mut self, place: usize, now: Time) -> bool {
        // It is looked at as if asked for what the first answer had.
        let is_previous = self.refresh[place].standing == Standing::Previous;
        let asked = self.repeat.as_ref().filter(|_| is_previous).map(|(_, scope)| scope.clone());
        let is_active = !matches!(self.expects(place, asked.as_deref(), now), Expected::Refused(_) | Expected::Theft);
        if is_active && place == self.current() {
            self.has_arrived = true;
        }
        is_active
    }

    pub(super) fn has_arrived(&self) -> bool {
        self.has_arrived
    }

    /// Kept answers whose window has closed are overwritten.
    pub(super) fn is_tidied(&mut self, now: Time) {
        if now.age_of(self.refresh[self.current()].since) >= RETRY_WINDOW {
            self.repeat = None;
        }
    }

    /// Every token it ever had.
    pub(super) fn tokens(&self) -> impl Iterator<Item = String> {
        let refresh = self.refresh.iter().map(|token| token.text.clone());
        refresh.chain(self.access.iter().map(|token| token.text.clone()))
    }
}

/// A token of an app that acts for itself.
#[derive(Clone, Debug)]
pub(super) struct Alone {
    pub(super) text: String,
    pub(super) app: usize,
    issued: i64,
    expires: i64,
    pub(super) is_ended: bool,
}

impl Alone {
    pub(super) fn new(text: String, app: usize, access_ttl: i64, now: Time) -> Self {
        Self { text, app, issued: now.wall, expires: now.wall + access_ttl, is_ended: false }
    }

    pub(super) fn is_good(&self, now: Time) -> bool {
        !self.is_ended && self.issued <= now.wall + MINUTE && now.wall < self.expires
    }

    /// As [`Grant::is_long_gone`].
    pub(super) fn is_long_gone(&self, now: Time) -> bool {
        self.expires + 200 * DAY <= now.wall
    }
}

/// The secrets of an app: the newest, and those that were replaced, each for a while.
#[derive(Clone, Debug)]
pub(super) struct Secrets {
    pub(super) newest: String,
    replaced: Vec<(String, i64)>,
    /// Those that must never work again.
    pub(super) over: Vec<String>,
}

impl Secrets {
    pub(super) fn new(first: String) -> Self {
        Self { newest: first, replaced: Vec::new(), over: Vec::new() }
    }

    pub(super) fn rotate(&mut self, new: String, overlap: i64, now: Time) {
        let before = std::mem::replace(&mut self.newest, new);
        if overlap == 0 {
            self.over.extend(self.replaced.drain(..).map(|(secret, _)| secret));
            self.over.push(before);
        } else {
            self.replaced.push((before, now.wall + overlap));
        }
    }

    /// Whether there is room for another one, when those before it are to stay good.
    pub(super) fn has_room(&self, now: Time) -> bool {
        self.replaced.iter().filter(|(_, end)| now.wall < *end).count() < 3
    }

    /// One that has run out is deleted.
    pub(super) fn is_tidied(&mut self, now: Time) {
        self.over.extend(self.replaced.extract_if(.., |(_, end)| *end < now.wall).map(|(secret, _)| secret));
    }

    /// One that was replaced, and whether it is still good.
    pub(super) fn replaced(&self, which: usize, now: Time) -> Option<(&str, bool)> {
        self.replaced.get(which % self.replaced.len().max(1)).map(|(secret, end)| (secret.as_str(), now.wall < *end))
    }
}
