//! Peers: the Platform Instance records, remotes that we call.

use url::{Origin, Url};

use super::metadata::Metadata;
use super::ob_app::{ObApp, Server};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::secret::SecretString;

/// A remote that we call.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its identity.
    pub id: Id,
    /// Whose it is.
    pub tenant: String,
    /// Unique in its tenant; the first segment of the relay's paths.
    pub name: String,
    /// The remote's `public_url`, as written.
    pub url: Url,
    /// Where calls go, when an operator said so.
    pub base_url: Option<Url>,
    /// How we prove who we are.
    pub auth: Auth,
    /// Whose certificates are believed, for this peer only.
    pub trust: PeerTrust,
    /// Somebody gave its URLs who does not rule the instance: they may not lead into a private network.
    pub guarded: bool,
    /// Until when calls are held back.
    pub maintenance: Option<Maintenance>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Raised by everything that changes which tokens are the right ones: a new pair, an unlink, a new link. What settles on another
    /// generation than it began with is not stored.
    pub generation: u64,
}

/// How we prove to a peer who we are.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Bearer tokens of an OB app.
    OAuth {
        /// The OB app.
        ob_app: Id,
        /// Who the password grant asks for; other grants have none.
        user: Option<User>,
    },
    /// HTTP Basic.
    Basic(User),
    /// Nothing yet.
    None,
}

impl Auth {
    /// As the JSON shape writes it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::OAuth { .. } => "oauth",
            Self::Basic(_) => "basic",
            Self::None => "none",
        }
    }
}

/// A user name and password at the peer.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: SecretString,
}

/// What is believed of one peer besides the system's roots and `[trust]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTrust {
    /// Authorities, PEM.
    pub ca: Option<String>,
    /// SHA-256 of the one certificate that is believed, 64 hexadecimal digits.
    pub pin: Option<String>,
}

/// Calls are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// From when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

impl Peer {
    /// The maintenance that holds calls back at `now`.
    pub fn maintenance_at(&self, now: Timestamp) -> Option<Maintenance> {
        self.maintenance.filter(|maintenance| now < maintenance.until)
    }

    /// Where the peer's credentials are sent to with calls. Metadata cannot change it: an endpoint that they announce counts on this origin
    /// only.
    pub fn origin(&self) -> Origin {
        self.base_url.as_ref().unwrap_or(&self.url).origin()
    }

    /// Whom the user's password is for, when the record holds one: where calls go and, for the password grant, the server of `app`.
    pub fn password_is_for(&self, app: Option<&ObApp>) -> Option<(Origin, Option<Origin>)> {
        match &self.auth {
            Auth::Basic(_) => Some((self.origin(), None)),
            Auth::OAuth { user: Some(_), .. } => Some((self.origin(), app.map(|app| app.server.origin()))),
            Auth::OAuth { user: None, .. } | Auth::None => None,
        }
    }

    /// Where calls go: what the operator said, else the peer's `p2pi_endpoint` when it is on the issuer's origin, else its URL.
    pub fn base(&self, metadata: Option<&Metadata>) -> Url {
        let announced = || {
            let endpoint = metadata?.p2pi_endpoint.as_ref()?.on_origin()?;
            // An OB app of another server says nothing of where this peer takes calls.
            (endpoint.origin() == self.url.origin()).then_some(endpoint)
        };
        self.base_url.as_ref().or_else(announced).unwrap_or(&self.url).clone()
    }
}

/// The redirect URI that an OB app uses (RFC 9700 §4.4.2): the common one where the server names itself in its answers (`iss`), and where
/// it does not, or may not, one of the app's own, so that an answer of one server cannot be taken for another's.
pub fn redirect_uri(public_url: &str, app: &ObApp, metadata: Option<&Metadata>) -> String {
    let names_itself = match &app.server {
        Server::Issuer(_) => metadata.is_none_or(|metadata| metadata.iss_promised),
        Server::Endpoints { .. } => false,
    };
    if names_itself { format!("{public_url}/oauth/callback") } else { format!("{public_url}/oauth/callback/{}", app.id) }
}

#[cfg(test)]
pub(crate) mod examples {
    //! Records for the tests of this room.

    use super::*;
    use crate::outbound::ob_app::Grant;

    /// The identity whose last byte is `number`.
    pub(crate) fn id(number: u8) -> Id {
        let mut bytes = [0; 16];
        bytes[15] = number;
        Id::from_bytes(bytes)
    }

    /// An OB app of `https://two.example.com`.
    pub(crate) fn app() -> ObApp {
        ObApp {
            id: id(1),
            tenant: "default".to_owned(),
            name: "instance2".to_owned(),
            client_id: "client".to_owned(),
            auth_method: None,
            client_secret: Some("secret".into()),
            keys: None,
            dpop: crate::outbound::ob_app::Dpop::Auto,
            grant: Grant::AuthorizationCode,
            scope: "p2pi".parse().expect("a scope"),
            server: Server::Issuer("https://two.example.com".to_owned()),
            ca: None,
            guarded: false,
            created_at: Timestamp::from_millis(0),
        }
    }

    /// A peer that uses [`app`].
    pub(crate) fn peer() -> Peer {
        Peer {
            id: id(2),
            tenant: "default".to_owned(),
            name: "instance2".to_owned(),
            url: Url::parse("https://two.example.com").expect("a URL"),
            base_url: None,
            auth: Auth::OAuth { ob_app: id(1), user: None },
            trust: PeerTrust::default(),
            guarded: false,
            maintenance: None,
            created_at: Timestamp::from_millis(0),
            generation: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_iss_gets_a_redirect_uri_of_its_own() {
        let mut app = examples::app();
        let mut metadata = crate::outbound::metadata::tests::metadata();
        let own = format!("https://one.example.com/oauth/callback/{}", app.id);
        assert_eq!(redirect_uri("https://one.example.com", &app, Some(&metadata)), "https://one.example.com/oauth/callback");
        metadata.iss_promised = false;
        assert_eq!(redirect_uri("https://one.example.com", &app, Some(&metadata)), own);
        app.server = Server::Endpoints { authorize_url: None, token_url: Url::parse("https://two.example.com/token").expect("a URL") };
        assert_eq!(redirect_uri("https://one.example.com", &app, None), own);
    }

    #[test]
    fn c9_calls_go_to_the_announced_endpoint_only_on_the_issuers_origin() {
        let mut peer = examples::peer();
        let mut metadata = crate::outbound::metadata::tests::metadata();
        assert_eq!(peer.base(None).as_str(), "https://two.example.com/");
        assert_eq!(peer.base(Some(&metadata)).as_str(), "https://two.example.com/p2pi");
        metadata.p2pi_endpoint =
            Some(crate::outbound::metadata::CallEndpoint::OffOrigin(Url::parse("https://evil.example.com/p2pi").expect("a URL")));
        assert_eq!(peer.base(Some(&metadata)).as_str(), "https://two.example.com/");
        peer.base_url = Some(Url::parse("https://two.example.com:9/x").expect("a URL"));
        assert_eq!(peer.base(Some(&metadata)).as_str(), "https://two.example.com:9/x");
    }
}
