//! Pushed authorization requests (RFC 9126): the app hands the request in itself, authenticated, and the browser carries only a reference
//! that nobody can guess or change.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::parameters::Parameters;
use crate::oauth::thumbprint::KeyThumbprint;
use crate::secret::SecretString;

/// `expires_in`: time enough to find the password and log in, and less than the 600 seconds that FAPI 2.0 §5.3.2.2 allows.
pub const LIFE: Duration = Duration::from_secs(9 * 60);

/// How many requests an app that does not authenticate may push from one address within [`LIFE`]: anybody can claim to be it, and of
/// the network with most requests the oldest go when there are too many.
pub const MOST_OF_AN_ADDRESS: u32 = 100;

/// What a reference begins with (RFC 9126 §2.2).
pub const PREFIX: &str = "urn:ietf:params:oauth:request_uri:";

/// Parameters that authenticate the client, and are none of the request's.
const OF_THE_CLIENT: [&str; 3] = ["client_secret", "client_assertion", "client_assertion_type"];

/// A request that was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// By this app.
    pub app: Id,
    /// Its parameters, as a query.
    pub parameters: SecretString,
    /// The key of the DPoP proof that came with it, which the code will be bound to (RFC 9449 §10.1).
    pub dpop_key: Option<KeyThumbprint>,
    /// Somebody has answered it.
    pub is_decided: bool,
    /// From when on it is refused.
    pub expires_at: Timestamp,
}

/// Why a reference leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such request of this app.
    #[error("request_uri is not one that this application was given")]
    Unknown,
    /// It was answered.
    #[error("the request behind request_uri was answered before")]
    Decided,
    /// Its time is over.
    #[error("the request behind request_uri has expired")]
    Expired,
}

impl Pushed {
    /// Whether `app` may ask this now.
    pub fn check(&self, app: Id, now: Timestamp) -> Result<(), Refusal> {
        if self.app != app {
            return Err(Refusal::Unknown);
        }
        if self.is_decided {
            return Err(Refusal::Decided);
        }
        if now >= self.expires_at {
            return Err(Refusal::Expired);
        }
        Ok(())
    }
}

/// What stands behind the prefix in `request_uri`; nothing where a request has none of ours. Somebody else's is a request object by reference,
/// which the checks of the request refuse.
pub fn reference(parameters: &Parameters) -> Result<Option<&str>, Refusal> {
    let named = parameters.the("request_uri").map_err(|_| Refusal::Unknown)?;
    Ok(named.and_then(|uri| uri.strip_prefix(PREFIX)))
}

/// The request in a pushed form: all but what authenticates the client, with the `client_id` that did.
pub fn request_of(form: &Parameters, client_id: &str) -> SecretString {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("client_id", client_id);
    let is_of_the_request = |name: &str| name != "client_id" && !OF_THE_CLIENT.contains(&name);
    query.extend_pairs(form.pairs().filter(|(name, _)| is_of_the_request(name)));
    SecretString::from(query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    #[test]
    fn d5_a_reference_is_its_apps_until_it_is_answered_or_over() {
        let app = Id::from_bytes([1; 16]);
        let at = Timestamp::from_millis;
        let pushed = Pushed { app, parameters: "".into(), dpop_key: None, is_decided: false, expires_at: at(10) };
        assert_eq!(pushed.check(app, at(9)), Ok(()));
        assert_eq!(pushed.check(app, at(10)), Err(Refusal::Expired));
        assert_eq!(pushed.check(Id::from_bytes([2; 16]), at(9)), Err(Refusal::Unknown));
        assert_eq!(Pushed { is_decided: true, ..pushed }.check(app, at(9)), Err(Refusal::Decided));
        assert!(LIFE < Duration::from_secs(600));
    }

    #[test]
    fn d5_what_authenticates_the_client_is_not_kept() {
        let form = b"client_id=a&client_secret=s&client_assertion=x&client_assertion_type=y&state=%26+&scope=a&scope=b";
        let request = request_of(&Parameters::read(form).expect("a form"), "a");
        assert_eq!(request.expose_secret(), "client_id=a&state=%26+&scope=a&scope=b");
    }
}
