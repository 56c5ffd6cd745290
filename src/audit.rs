//! The words of the audit: who did what to which record, from where. Rows are made of them in one place, `store::audit`.
//!
//! A new kind of action is a line in [`Action`]; a judge then says `transaction.record(Entry::of(Action::…).on(record))`.

pub mod wall_clock;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::secret::Digest;

/// The longest text in a row, in characters; what is longer is cut.
const LONGEST_TEXT: usize = 255;

/// The most texts of one detail: more than there are permissions.
const MOST_TEXTS: usize = 64;

/// The most details of one row.
const MOST_DETAILS: usize = 16;

/// The actions, their names in rows, and what each means.
macro_rules! actions {
    ($($(#[$meaning:meta])* $action:ident = $name:literal,)*) => {
        /// What was done. Names are never changed: people search for them years later.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Action { $($(#[$meaning])* $action,)* }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$action,)*];

            /// As it stands in a row.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$action => $name,)* }
            }
        }
    };
}

actions! {
    /// The daemon began to serve.
    DaemonStarted = "daemon.started",
    /// It was told to end, and has finished what was under way.
    DaemonStopped = "daemon.stopped",
    /// A changed configuration is in force.
    ConfigReloaded = "config.reloaded",
    /// A changed configuration was refused.
    ConfigRefused = "config.refused",
    /// The database was copied into a file.
    BackupMade = "backup.made",
    /// A backup took the place of the database.
    BackupRestored = "backup.restored",
    /// The database is not the one that ran before: tokens, codes and sessions of before are refused.
    EpochBegun = "epoch.begun",
    /// Rows of the audit that had been kept for their time were deleted.
    AuditPruned = "audit.pruned",
    /// The wall clock is far from where it was expected: nothing is deleted for its age until it is back, or has stayed there.
    ClockDoubted = "clock.doubted",
    /// Something was changed over the admin API that has no action of its own.
    AdminChanged = "admin.changed",
    /// Somebody may not do what they asked for over the admin API.
    AdminDenied = "admin.denied",
    /// A wrong API key came.
    ApiKeyFailed = "api_key.failed",

    /// A person was made known.
    UserCreated = "user.created",
    /// A person's password or rights were changed.
    UserUpdated = "user.updated",
    /// A person was deleted.
    UserDeleted = "user.deleted",
    /// A person got a new API key.
    UserKeyMade = "user.key_made",
    /// A person's API key was revoked.
    UserKeyRevoked = "user.key_revoked",
    /// A role was made.
    RoleCreated = "role.created",
    /// A role was changed.
    RoleUpdated = "role.updated",
    /// A role was deleted.
    RoleDeleted = "role.deleted",
    /// A tenant was made.
    TenantCreated = "tenant.created",
    /// A tenant was deleted.
    TenantDeleted = "tenant.deleted",
    /// An IB app was registered.
    IbAppCreated = "ib_app.created",
    /// An IB app was changed.
    IbAppUpdated = "ib_app.updated",
    /// An IB app got a new secret.
    IbAppSecretRotated = "ib_app.secret_rotated",
    /// An IB app was deleted.
    IbAppDeleted = "ib_app.deleted",
    /// A realm was made.
    RealmCreated = "realm.created",
    /// A realm was changed.
    RealmUpdated = "realm.updated",
    /// A realm was deleted, and whom it had signed in is signed out.
    RealmDeleted = "realm.deleted",
    /// A realm got a role, or a role another description.
    RealmRolePut = "realm.role_put",
    /// A realm's role was deleted.
    RealmRoleDeleted = "realm.role_deleted",
    /// A person got a role of a realm.
    RealmRoleAssigned = "realm.role_assigned",
    /// A person's role of a realm was taken.
    RealmRoleUnassigned = "realm.role_unassigned",
    /// An OB app was entered.
    ObAppCreated = "ob_app.created",
    /// An OB app was changed.
    ObAppUpdated = "ob_app.updated",
    /// An OB app got a new signing key.
    ObAppKeyRotated = "ob_app.key_rotated",
    /// An OB app was deleted.
    ObAppDeleted = "ob_app.deleted",
    /// A peer was entered.
    PeerCreated = "peer.created",
    /// A peer was changed.
    PeerUpdated = "peer.updated",
    /// A peer got another name.
    PeerRenamed = "peer.renamed",
    /// A peer's maintenance was begun, moved or ended.
    PeerMaintenance = "peer.maintenance",
    /// A peer was deleted.
    PeerDeleted = "peer.deleted",
    /// A request URL was made for a peer.
    PeerRequested = "peer.requested",
    /// Somebody asked for a peer's token to be renewed.
    PeerRefreshAsked = "peer.refresh_asked",
    /// A link to a peer is in force.
    PeerLinked = "peer.linked",
    /// A link to a peer was ended from here.
    PeerUnlinked = "peer.unlinked",
    /// A peer has ended a link; it needs a new request URL.
    PeerRelinkRequired = "peer.relink_required",
    /// A peer gave a bearer token where the one before was bound to our key.
    PeerTokensUnbound = "peer.tokens_unbound",
    /// A caller was made.
    CallerCreated = "caller.created",
    /// A caller's peers were changed.
    CallerUpdated = "caller.updated",
    /// A caller got a new key.
    CallerKeyRotated = "caller.key_rotated",
    /// A caller was deleted.
    CallerDeleted = "caller.deleted",
    /// A wrong caller key came.
    CallerKeyFailed = "caller_key.failed",
    /// A state key was added.
    StateKeyAdded = "state_key.added",
    /// What is sealed was sealed again under the first state key.
    StateKeyRotated = "state_key.rotated",

    /// A person signed in.
    LogInSucceeded = "login.succeeded",
    /// Login or password was wrong.
    LogInFailed = "login.failed",
    /// A person signed out.
    LogOut = "logout.succeeded",
    /// A realm signed a person in by a password.
    SignInSucceeded = "sign_in.succeeded",
    /// A realm handed in a login or password that was wrong, or of somebody without a role there.
    SignInFailed = "sign_in.failed",
    /// A person allowed a link.
    ConsentAllowed = "consent.allowed",
    /// A person declined a link.
    ConsentDeclined = "consent.declined",
    /// A person was asked to allow a link, or pressed Allow, who may not.
    ConsentRefused = "consent.refused",
    /// An app did not show that it is the client it claims to be.
    ClientFailed = "client.failed",
    /// A code was exchanged and made a grant.
    CodeRedeemed = "code.redeemed",
    /// A code came again from its own app.
    CodeReplayed = "code.replayed",
    /// The right app failed at its own code.
    CodeBurnt = "code.burnt",
    /// An app presented another's code.
    CodeOfAnotherClient = "code.of_another_client",
    /// A replaced refresh token got its first answer again.
    RefreshRepeated = "refresh.repeated",
    /// A replaced refresh token got another successor.
    RefreshReminted = "refresh.reminted",
    /// A refresh token came shortly after it was retired.
    RefreshLate = "refresh.late",
    /// A refresh token came that only a thief could have.
    RefreshReplayed = "refresh.replayed",
    /// An app presented another's refresh token.
    RefreshOfAnotherClient = "refresh.of_another_client",
    /// An app presented a refresh token without its key.
    RefreshWithoutItsKey = "refresh.without_its_key",
    /// A grant was ended.
    GrantEnded = "grant.ended",
    /// An app's own token was ended.
    TokenRevoked = "token.revoked",
    /// A DPoP proof came a second time.
    ProofReplayed = "proof.replayed",
    /// A call came with a bound token, and not with the key or certificate that it is bound to.
    TokenWithoutItsKey = "token.without_its_key",
    /// An app asked to end another's token.
    RevocationOfAnotherClient = "revocation.of_another_client",

    /// Somebody pressed the button of a request URL.
    HandshakeBegun = "handshake.begun",
    /// The peer's person declined.
    HandshakeDeclined = "handshake.declined",
    /// The peer refused a handshake.
    HandshakeRefused = "handshake.refused",
    /// The peer gave no token for its code.
    HandshakeFailed = "handshake.failed",
}

impl Action {
    /// The action with that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.as_str() == name)
    }

    /// Whether `word` means this action: its whole name, or what stands before the dot.
    pub fn is_meant_by(self, word: &str) -> bool {
        let name = self.as_str();
        name == word || name.split_once('.').is_some_and(|(group, _)| group == word)
    }
}

/// Who did it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Actor {
    /// The daemon, by itself.
    #[default]
    Daemon,
    /// A process on this host: by the admin socket, or a command that works on the files.
    Process {
        /// Its user.
        uid: u32,
    },
    /// A person, by an API key.
    ApiKey {
        /// The login.
        login: String,
    },
    /// A person, by a browser session.
    Session {
        /// The login.
        login: String,
    },
    /// An IB app, which has shown that it is.
    Client {
        /// Its `client_id`.
        client_id: String,
    },
    /// Somebody who has shown nothing, or nothing right.
    Unknown,
}

impl Actor {
    /// What kind it is, as it stands in a row.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Process { .. } => "process",
            Self::ApiKey { .. } => "api_key",
            Self::Session { .. } => "session",
            Self::Client { .. } => "client",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("p2pid"),
            Self::Process { uid } => write!(f, "uid {uid}"),
            Self::ApiKey { login } | Self::Session { login } => f.write_str(login),
            Self::Client { client_id } => f.write_str(client_id),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Where a change comes from: what a door knows of a request before anything is judged, handed in once.
#[derive(Debug, Default)]
pub struct Origin {
    /// Who asks, as far as it is known by now.
    pub actor: Actor,
    /// From where, behind trusted proxies what they report.
    pub address: Option<IpAddr>,
    /// What the answer and the log call the request by.
    pub request_id: Option<String>,
    /// Of a request that changes something over the admin API: method and path. A change of it that no row tells of gets one by itself.
    pub change: Option<String>,
    /// The names of the attributes that the request gave, never their values.
    given: OnceLock<Vec<String>>,
    /// What its rows tell of.
    told: Mutex<Option<Action>>,
}

impl Origin {
    /// A request by `actor`.
    pub fn new(actor: Actor, address: Option<IpAddr>, request_id: Option<String>) -> Self {
        Self { actor, address, request_id, ..Self::default() }
    }

    /// Of a request that changes something over the admin API.
    #[must_use]
    pub fn changing(mut self, method_and_path: String) -> Self {
        self.change = Some(method_and_path);
        self
    }

    /// Notes which attributes the request gives.
    pub fn note_given(&self, names: impl Iterator<Item = String>) {
        // A request has one document.
        let _ = self.given.set(names.collect());
    }

    /// Notes that a row tells of `action`.
    pub fn note_told(&self, action: Action) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of a grant follows from what is told beside it.
        if told.is_none() || action != Action::GrantEnded {
            *told = Some(action);
        }
    }

    /// What the request has done, by the rows that were written of it.
    pub fn told(&self) -> Option<Action> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the attributes that the request gave.
    pub fn given(&self) -> &[String] {
        self.given.get().map_or(&[], Vec::as_slice)
    }
}

/// What it was done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `user`, `peer`, …
    pub kind: &'static str,
    /// Its identity, which stays.
    pub id: String,
    /// What people called it then.
    pub name: String,
    /// Whose it is; none for what belongs to the instance.
    pub tenant: Option<String>,
}

impl Record {
    /// What belongs to a tenant.
    pub fn of_tenant(kind: &'static str, tenant: &str, id: impl fmt::Display, name: &str) -> Self {
        Self { kind, id: id.to_string(), name: name.to_owned(), tenant: Some(tenant.to_owned()) }
    }

    /// What belongs to the instance.
    pub fn of_instance(kind: &'static str, id: impl fmt::Display, name: &str) -> Self {
        Self { kind, id: id.to_string(), name: name.to_owned(), tenant: None }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    #[default]
    Done,
    /// It was refused.
    Refused,
    /// It was tried, and came to nothing.
    Failed,
}

impl Outcome {
    /// As it stands in a row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What a row is to say, but for who and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was done.
    pub action: Action,
    /// To what.
    pub record: Option<Record>,
    /// How it ended.
    pub outcome: Outcome,
    /// What else tells it apart where it is counted with others of its action, actor and record; not a part of the row.
    pub apart: Option<String>,
    details: Map<String, Value>,
}

impl Entry {
    /// An action that was done.
    pub fn of(action: Action) -> Self {
        Self { action, record: None, outcome: Outcome::Done, apart: None, details: Map::new() }
    }

    /// To this record.
    #[must_use]
    pub fn on(mut self, record: Record) -> Self {
        self.record = Some(record);
        self
    }

    /// To this record, where it is known.
    #[must_use]
    pub fn on_known(self, record: Option<Record>) -> Self {
        Self { record, ..self }
    }

    /// With this outcome.
    #[must_use]
    pub fn ended(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Counted apart from others by `what`, which is one of few.
    #[must_use]
    pub fn apart_by(mut self, what: impl Into<String>) -> Self {
        self.apart = Some(what.into());
        self
    }

    /// With a detail. Never a secret: of tokens there is [`Entry::token`].
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if self.details.len() < MOST_DETAILS {
            self.details.insert(name.to_owned(), bounded(value.into()));
        }
        self
    }

    /// With a detail, where there is one.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Without the details that `other` does not give alike.
    pub fn keep_what_is_said_by(&mut self, other: &Self) {
        self.details.retain(|name, value| other.details.get(name) == Some(&*value));
    }

    /// With a time.
    #[must_use]
    pub fn at(self, name: &str, time: Timestamp) -> Self {
        self.with(name, time.to_string())
    }

    /// With the fingerprint of a token of ours, by its digest. Not for what people choose: a short secret can be guessed from it.
    #[must_use]
    pub fn token(self, digest: Digest) -> Self {
        self.with("token", digest.fingerprint().to_string())
    }

    /// As JSON, with the names of what was given.
    pub fn details(&self, given: &[String]) -> String {
        let mut details = self.details.clone();
        if !given.is_empty() {
            details.insert("given".to_owned(), bounded(given.to_vec().into()));
        }
        let text = Value::Object(details).to_string();
        // Texts and their number are bounded, lists of them are not multiplied.
        if text.len() <= LONGEST_DETAILS { text } else { "{\"cut\":true}".to_owned() }
    }
}

/// The longest details, in bytes of JSON.
pub const LONGEST_DETAILS: usize = 8 << 10;

/// `text`, cut where it is too long for a row.
pub fn cut(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

fn bounded(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(&text)),
        Value::Array(values) => Value::Array(values.into_iter().take(MOST_TEXTS).map(bounded).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_dotted_names_and_found_by_name_and_by_group() {
        for action in Action::ALL {
            let (group, verb) = action.as_str().split_once('.').expect("two words");
            let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(is_word(group) && is_word(verb), "{action:?}");
            assert_eq!(Action::named(action.as_str()), Some(*action));
            assert!(action.is_meant_by(group) && action.is_meant_by(action.as_str()) && !action.is_meant_by(verb));
        }
        assert_eq!(Action::named("peer"), None);
    }

    #[test]
    fn what_a_request_has_done_is_not_what_follows_from_it() {
        for rows in [[Action::UserUpdated, Action::GrantEnded], [Action::GrantEnded, Action::UserUpdated]] {
            let origin = Origin::default();
            rows.into_iter().for_each(|action| origin.note_told(action));
            assert_eq!(origin.told(), Some(Action::UserUpdated));
        }
        let origin = Origin::default();
        assert_eq!(origin.told(), None);
        origin.note_told(Action::GrantEnded);
        assert_eq!(origin.told(), Some(Action::GrantEnded));
    }

    #[test]
    fn details_are_bounded() {
        let mut entry = Entry::of(Action::AdminChanged).with("long", "ä".repeat(10_000));
        for number in 0..100 {
            entry = entry.with(&number.to_string(), number);
        }
        let given: Vec<String> = (0..100).map(|number| format!("{number:0>1000}")).collect();
        assert!(entry.details(&given).len() <= LONGEST_DETAILS);
        assert!(Entry::of(Action::AdminChanged).with("reason", "\u{0}\"".repeat(500)).details(&[]).len() <= LONGEST_DETAILS);
        let said: Value = serde_json::from_str(&Entry::of(Action::PeerUpdated).details(&["url".to_owned()])).expect("JSON");
        assert_eq!(said, serde_json::json!({ "given": ["url"] }));
    }
}
