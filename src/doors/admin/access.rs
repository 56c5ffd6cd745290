//! Who is let in: processes by the socket's peer credentials, people by their API key.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use rusqlite::Connection;

use super::gate::RequestId;
use super::{AdminError, Caller};
use crate::audit::{Action, Actor, Entry, Origin, Outcome, Record};
use crate::inbound::api_key::ApiKey;
use crate::inbound::permission::Rights;
use crate::inbound::user::User;
use crate::instance::Instance;
use crate::instance::throttle::Attempt;
use crate::net::connection::Neighbour;
use crate::oauth::token::{self, Kind};
use crate::secret::Digest;
use crate::store::{Fault, api_key, user};

/// The processes that may use the admin socket.
#[derive(Clone, Debug)]
pub struct Allowed {
    own_uid: u32,
    group: Option<Group>,
    socket: PathBuf,
}

/// A Unix group, as it was when the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub gid: u32,
}

/// There is no such group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[admin] group: found {0:?}, expected a group of this machine")]
pub struct NoSuchGroup(pub String);

impl Group {
    /// The group of that name in `/etc/group`, or with that number.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, NoSuchGroup> {
        if let Ok(gid) = name.parse() {
            return Ok(Self { gid });
        }
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        find_group(&groups, name).map(|gid| Self { gid }).ok_or_else(|| NoSuchGroup(name.to_owned()))
    }
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

impl Allowed {
    /// Root, the daemon's own user, and members of `group`, on the socket at `socket`.
    pub fn new(group: Option<Group>, socket: PathBuf) -> Self {
        Self { own_uid: rustix::process::geteuid().as_raw(), group, socket }
    }

    /// The group whose members are allowed.
    pub fn gid(&self) -> Option<u32> {
        self.group.as_ref().map(|group| group.gid)
    }

    /// The process at the other end of the admin socket.
    ///
    /// # Errors
    /// 403 for others, whom the socket's mode should have kept out already.
    pub fn admit(&self, neighbour: Neighbour) -> Result<Caller, AdminError> {
        let Neighbour::Unix { uid, gid, .. } = neighbour else { return Err(AdminError::forbidden("a process at the admin socket")) };
        let is_member = || self.group.as_ref().is_some_and(|group| group.gid == gid || self.kernel_admits_only(group));
        if uid == 0 || uid == self.own_uid || is_member() {
            return Ok(Caller::Process { uid });
        }
        let error = AdminError::new(StatusCode::FORBIDDEN, "forbidden", "this user may not use the admin socket");
        Err(error.found(format!("uid {uid}")).expected("root, the daemon's user, or a member of [admin] group"))
    }

    /// Whether the socket is still as we made it, for `group` and nobody else. Then whoever got through to us is a member: the kernel
    /// knows supplementary groups and those of a directory service, which its credentials here do not name.
    fn kernel_admits_only(&self, group: &Group) -> bool {
        std::fs::metadata(&self.socket).is_ok_and(|socket| socket.gid() == group.gid && socket.mode() & 0o007 == 0)
    }
}

/// The person of an `Authorization: Basic EMAIL:APIKEY`, from an address as far as it is known; the audit names the request.
///
/// # Errors
/// 401 without one that is ours, with the same words whatever is wrong with it; 429 for a wrong one when too many were.
pub(super) async fn sign_in(
    instance: &Instance,
    headers: &HeaderMap,
    from: Option<IpAddr>,
    request_id: &RequestId,
) -> Result<Caller, AdminError> {
    let Some((login, key)) = basic(headers) else {
        let (message, found) = match headers.contains_key(header::AUTHORIZATION) {
            true => ("this log-in cannot be read", "another Authorization header"),
            false => ("this needs a log-in", "none"),
        };
        let error = AdminError::new(StatusCode::UNAUTHORIZED, "unauthorized", message).found(found);
        return Err(error.expected("HTTP Basic with LOGIN:APIKEY").next("make a key: p2pid user key LOGIN"));
    };
    // One answer to all that is wrong: whoever guesses learns neither who there is, nor that a key was good once.
    let refused = || {
        let message = "this login and key are not good: unknown, mistyped, expired or revoked";
        let error =
            AdminError::new(StatusCode::UNAUTHORIZED, "unauthorized", message).expected("LOGIN:APIKEY, the key one of that person's");
        error.next("p2pid user keys LOGIN lists the keys that there are, p2pid user key LOGIN makes another; a password is no key")
    };
    let found = match token::digest_if(Kind::ApiKey, &key) {
        Some(digest) => instance.store.read(move |connection| holder(connection, digest)).await?,
        None => None,
    };
    let now = instance.clock.now().wall;
    let Some((user, key)) = found.filter(|(user, key)| user.login == login && key.is_active(now)) else {
        let named = login.clone();
        let known = instance.store.read(move |connection| user::by_login(connection, &named)).await?;
        let known = known.map(|user| Record::of_instance("user", user.id, &user.login));
        let failed = Entry::of(Action::ApiKeyFailed).ended(Outcome::Refused).on_known(known);
        instance.tally.note(instance.clock.now(), Origin::new(Actor::Unknown, from, Some(request_id.to_string())), failed);
        let attempt = Attempt::new("api key", &login, from);
        let counted = instance.failures.count(attempt, instance.config().limits.auth_failures, instance.clock.as_ref());
        return Err(counted.err().map_or_else(refused, AdminError::rate_limited));
    };
    if key.is_to_be_noted(now) {
        let digest = key.digest;
        // A store that takes no writes must not keep anybody from looking.
        if let Err(error) = instance.store.write(move |transaction| api_key::note_use(transaction, digest, now)).await {
            tracing::warn!(%error, login, key = key.name, "the use of an API key is not written down");
        }
    }
    Ok(Caller::Person { login: user.login.clone(), rights: Rights { only: key.permissions, ..user.rights() } })
}

/// The person who holds the key with that digest, and the key.
fn holder(connection: &Connection, digest: Digest) -> Result<Option<(User, ApiKey)>, Fault> {
    let Some(key) = api_key::by_digest(connection, digest)? else { return Ok(None) };
    Ok(user::by_id(connection, key.user)?.map(|user| (user, key)))
}

/// The two halves of `Authorization: Basic` (RFC 7617 §2); `None` when it is not there once, or is something else.
pub fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (login, key) = decoded.split_once(':')?;
    Some((login.to_owned(), key.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn neighbour(uid: u32, gid: u32) -> Neighbour {
        Neighbour::Unix { uid, gid, pid: None }
    }

    #[test]
    fn root_ourselves_and_the_group_are_admitted() {
        let allowed = Allowed { own_uid: 990, group: Some(Group { gid: 500 }), socket: "/nonexistent".into() };
        for known in [neighbour(0, 0), neighbour(990, 990), neighbour(1000, 500)] {
            assert!(allowed.admit(known).is_ok());
        }
        assert_eq!(allowed.admit(neighbour(1000, 1000)).map_err(|error| error.status), Err(StatusCode::FORBIDDEN));
        let alone = Allowed { group: None, ..allowed };
        assert_eq!(alone.admit(neighbour(1000, 990)).map_err(|error| error.status), Err(StatusCode::FORBIDDEN));
        assert!(alone.admit(Neighbour::Tcp(([127, 0, 0, 1], 1).into())).is_err());
    }

    #[test]
    fn supplementary_groups_count_while_the_socket_is_closed_to_others() {
        let file = tempfile::NamedTempFile::new().expect("a file in place of the socket");
        let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("our own file");
        let gid = file.path().metadata().expect("it exists").gid();
        let allowed = Allowed { own_uid: 990, group: Some(Group { gid }), socket: file.path().to_owned() };
        mode(0o660);
        assert!(allowed.admit(neighbour(1000, gid + 1)).is_ok());
        mode(0o666);
        assert!(allowed.admit(neighbour(1000, gid + 1)).is_err());
        assert!(allowed.admit(neighbour(1000, gid)).is_ok());
    }

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\np2pid-admin:x:985:alice,bob\nbroken\n";
        assert_eq!(find_group(groups, "p2pid-admin"), Some(985));
        assert_eq!(find_group(groups, "p2pid"), None);
        assert_eq!(find_group(groups, "broken"), None);
    }

    #[test]
    fn basic_credentials_are_read_strictly() {
        let read = |values: &[&str]| {
            let headers = values.iter().map(|value| (header::AUTHORIZATION, value.parse().expect("a value"))).collect();
            basic(&headers)
        };
        let encoded = format!("Basic {}", STANDARD.encode("ops@example.com:p2pk_x:y"));
        assert_eq!(read(&[encoded.as_str()]), Some(("ops@example.com".to_owned(), "p2pk_x:y".to_owned())));
        for wrong in [&[][..], &[encoded.as_str(), encoded.as_str()], &["Bearer x"], &["Basic"], &["Basic !"], &["Basic YQ=="]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
