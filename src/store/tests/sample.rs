//! Records for tests: a person, an IB app, a grant with its first pair; a peer that is linked; and a clock to move.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Fault, Seals, Store, Transaction, access_token, grant, held_token, ib_app, ob_app, peer, refresh_token, user};
use crate::clock::{BootId, Clock, Moment, Timestamp};
use crate::id::Id;
use crate::inbound::grant::{Fresh, Grant, NewAccess};
use crate::inbound::ib_app::{GrantType, IbApp};
use crate::inbound::user::User;
use crate::oauth::redirect_uri::RedirectUri;
use crate::oauth::token::{Kind, mint};
use crate::outbound::attempt::Intent;
use crate::outbound::link::Held;
use crate::outbound::ob_app::{Grant as ObGrant, ObApp, Server};
use crate::outbound::peer::{Auth, Peer, PeerTrust};
use crate::outbound::plan::Validity;
use crate::secret::{Digest, ExposeSecret};
use crate::system::SystemRandom;

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(crate) struct StandingClock(Mutex<Moment>);

impl StandingClock {
    pub(crate) fn new() -> Arc<Self> {
        let wall = Timestamp::from_millis(1_700_000_000_000);
        Arc::new(Self(Mutex::new(Moment { wall, boot: Duration::from_secs(1_000), boot_id: BootId(7) })))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Moment)) {
        change(&mut self.0.lock().expect("no test panics while it moves the clock"));
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.change(|now| {
            now.wall = now.wall.plus(time);
            now.boot += time;
        });
    }
}

impl Clock for StandingClock {
    fn now(&self) -> Moment {
        *self.0.lock().expect("no test panics while it moves the clock")
    }

    fn sleep(&self, _: Duration) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

pub(crate) fn person() -> User {
    let (id, created_at) = (Id::from_bytes([1; 16]), Timestamp::from_millis(0));
    let login = "ops@two.example".to_owned();
    User { id, login, password: None, is_admin: true, permissions: Default::default(), roles: Vec::new(), api_keys: 0, created_at }
}

pub(crate) fn app() -> IbApp {
    IbApp {
        id: Id::from_bytes([2; 16]),
        tenant: "default".to_owned(),
        name: "one".to_owned(),
        client_id: "client-one".to_owned(),
        redirect_uris: vec![RedirectUri::register("https://one.example/oauth/callback").expect("registrable")],
        grants: GrantType::OF_A_LINK.into(),
        scope: "a b".parse().expect("a scope"),
        access_ttl: None,
        rotation: None,
        native: false,
        security: crate::inbound::security::Security::default(),
        created_at: Timestamp::from_millis(0),
    }
}

pub(crate) fn granted(now: Timestamp) -> Grant {
    Grant {
        id: Id::from_bytes([3; 16]),
        app: app().id,
        user: Some(person().id),
        scope: app().scope,
        created_at: now,
        expires_at: None,
        ended: None,
        binding: None,
        made_by: crate::inbound::grant::MadeBy::Consent,
    }
}

pub(crate) fn fresh() -> Fresh {
    Fresh { access: mint(Kind::Access, &SystemRandom), refresh: mint(Kind::Refresh, &SystemRandom) }
}

/// The person, the app and the grant with its first pair, which is returned.
pub(crate) async fn linked(store: &Store) -> Fresh {
    let pair = fresh();
    let first = pair.clone();
    let judge = move |transaction: &Transaction<'_>| -> Result<(), Fault> {
        let now = transaction.now().wall;
        user::insert(transaction, &person())?;
        ib_app::insert(transaction, &app())?;
        let grant = granted(now);
        grant::insert(transaction, &grant, HOUR)?;
        refresh_token::insert(transaction, grant.id, Digest::of(first.refresh.expose_secret()), 1, true)?;
        access_token::insert(transaction, grant.id, &NewAccess::of(&first, None, 1, app().scope, HOUR, now))
    };
    store.write(judge).await.expect("written");
    pair
}

/// The peer `two` at `place`, linked by an OB app of the same name whose token endpoint is there. Its tokens are `access` and `r1`.
pub(crate) fn linked_peer(transaction: &Transaction<'_>, seals: &Seals, epoch: i64, place: &str, access: &str) -> Result<Peer, Fault> {
    let now = transaction.now();
    let url = |path: &str| format!("{place}{path}").parse().expect("a URL");
    let app = ObApp {
        id: Id::from_bytes([1; 16]),
        tenant: "default".to_owned(),
        name: "two".to_owned(),
        client_id: "one".to_owned(),
        auth_method: None,
        client_secret: Some("secret".into()),
        keys: None,
        dpop: crate::outbound::ob_app::Dpop::Auto,
        grant: ObGrant::AuthorizationCode,
        scope: "a".parse().expect("a scope"),
        server: Server::Endpoints { authorize_url: None, token_url: url("/oauth/token") },
        ca: None,
        guarded: false,
        created_at: now.wall,
    };
    let record = Peer {
        id: Id::from_bytes([2; 16]),
        tenant: "default".to_owned(),
        name: "two".to_owned(),
        url: url(""),
        base_url: Some(url("/p2pi")),
        auth: Auth::OAuth { ob_app: app.id, user: None },
        trust: PeerTrust::default(),
        guarded: false,
        maintenance: None,
        created_at: now.wall,
        generation: 1,
    };
    let held = Held {
        access: access.into(),
        validity: Validity { requested: now, life: HOUR },
        issued_at: now.wall,
        refresh: Some("r1".into()),
        refresh_expires_at: None,
        scope: "a".parse().expect("a scope"),
        linked_as: None,
        linked_at: now.wall,
        intent: Intent::default(),
        trouble: None,
        well_since: now.wall,
        restored: false,
        key: None,
        is_bound: false,
    };
    ob_app::insert(transaction, seals, &app)?;
    peer::insert(transaction, seals, &record)?;
    held_token::put(transaction, seals, epoch, record.id, &held)?;
    Ok(record)
}
