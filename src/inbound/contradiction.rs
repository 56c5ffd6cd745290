//! What an IB app contradicts itself in: the one place that says whether an app can be as it is said to be.

use super::ib_app::{GrantType, IbApp};
use super::security::{Keys, Profile};
use crate::oauth::client_auth::Method;
use crate::oauth::rotation::Rotation;

/// Why an app cannot be as it is said to be. In words, with attributes as the admin API calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// The method needs keys.
    #[error("the methods private_key_jwt and self_signed_tls_client_auth need the app's public keys (`jwks`, or a URL of theirs)")]
    NoKeys,
    /// Nobody could authenticate.
    #[error("the method {} needs a secret, and the app has none", .0.as_str())]
    NoSecret(Method),
    /// What it asks for would open nothing.
    #[error("an app without a scope (`scopes`) is a resource server (`introspects`) with the grant client_credentials alone")]
    NoScope,
    /// Nobody would look at the keys.
    #[error("public keys (`jwks`) are for the methods private_key_jwt and self_signed_tls_client_auth")]
    UnusedKeys,
    /// RFC 8705 §2.2.2.
    #[error("the method self_signed_tls_client_auth needs the app's certificate in its keys (x5c)")]
    NoCertificate,
    /// RFC 8705 §2.1.2.
    #[error(
        "the method tls_client_auth needs the name in the app's certificate (one of `tls_client_auth_subject_dn`, `tls_client_auth_san_dns`, `tls_client_auth_san_uri`, `tls_client_auth_san_ip`, `tls_client_auth_san_email`)"
    )]
    NoSubject,
    /// Nobody would look at it.
    #[error("the name in a certificate (`tls_client_auth_subject_dn` and its like) is for the method tls_client_auth")]
    UnusedSubject,
    /// Whoever cannot authenticate acts for nobody but the person who allowed it (RFC 6749 §4.4).
    #[error("an app that does not authenticate (method none) cannot use the grant client_credentials")]
    PublicCredentials,
    /// RFC 9700 §4.14.2.
    #[error("refresh tokens of an app that does not authenticate (method none) are rotated, or bound (`dpop`, `mtls`)")]
    PublicUnrotated,
    /// A token is bound to one thing.
    #[error("tokens are bound to a DPoP key (`dpop`) or to a certificate (`mtls`), not to both")]
    BoundTwice,
    /// RFC 7662 §2.1.
    #[error("an app that does not authenticate (method none) cannot introspect")]
    PublicResourceServer,
    /// RFC 9700 §2.1.1.
    #[error("PKCE may be left out only by an app that authenticates")]
    PublicWithoutPkce,
    /// Nobody could be sent back to it (RFC 6749 §3.1.2.2).
    #[error("an app with the grant authorization_code needs a redirect URI (`redirect_uris`)")]
    NoRedirectUri,
    /// What would it renew?
    #[error("a new app with the grant refresh_token alone (`grants`) has nothing to renew")]
    NothingToRenew,
    /// FAPI 2.0 §5.3.2.1.
    #[error("the profile fapi2 needs the method private_key_jwt, tls_client_auth or self_signed_tls_client_auth")]
    ProfileMethod,
    /// FAPI 2.0 §5.3.2.1.
    #[error("the profile fapi2 needs PKCE")]
    ProfilePkce,
    /// FAPI 2.0 §5.3.2.1. What the profile does by itself cannot be taken back beside it.
    #[error("the profile fapi2 has requests pushed, tokens bound and refresh tokens not rotated")]
    ProfileTakenBack,
    /// FAPI 2.0 §5.3.2.2.
    #[error("the profile fapi2 takes an http redirect URI (`redirect_uris`) on a loopback address from native apps (`native`) alone")]
    ProfileRedirect,
}

/// What is said of an app that it does not tell by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// It is made now: nothing was granted by it before.
    pub is_new: bool,
    /// It has a secret already, or gets one now.
    pub has_secret: bool,
    /// What was given for its refresh tokens now.
    pub rotation: Option<Rotation>,
    /// Whether its tokens were now said to be bound to a key, or not.
    pub dpop: Option<bool>,
    /// Whether its requests were now said to be pushed, or not.
    pub require_par: Option<bool>,
}

impl Said {
    /// Whether it takes back what the profile fapi2 does by itself.
    fn takes_back(&self, app: &IbApp) -> bool {
        let rotates = self.rotation.is_some_and(|rotation| rotation != Rotation::None);
        let is_unbound = self.dpop == Some(false) && !app.security.mtls;
        rotates || is_unbound || self.require_par == Some(false)
    }
}

/// Whether what is said of `app` fits together, where `rotation` is the instance's.
///
/// # Errors
/// The first contradiction; there may be more.
pub fn check(app: &IbApp, rotation: Rotation, said: &Said) -> Result<(), Contradiction> {
    let (security, grants) = (&app.security, &app.grants);
    let is_public = !security.is_confidential();
    let needs_keys = security.method.has_keys();
    let is_strong = needs_keys || security.method.is_by_certificate();
    let lacks_certificate = matches!(&security.keys, Some(Keys::Inline(set)) if !set.has_certificate(None));
    let needs_subject = security.method == Method::TlsClientAuth;
    let is_unrotated = app.rotation.unwrap_or(rotation) == Rotation::None && grants.contains(&GrantType::RefreshToken);
    let is_fapi2 = security.profile == Some(Profile::Fapi2);
    // A realm may be one that takes passwords alone.
    let leads_nowhere = app.redirect_uris.is_empty() && grants.contains(&GrantType::AuthorizationCode) && !app.is_realm();
    let is_in_clear = !app.native && app.redirect_uris.iter().any(|uri| uri.url().scheme() == "http");
    for (is_wrong, contradiction) in [
        (app.scope.is_empty() && !app.only_introspects(), Contradiction::NoScope),
        (leads_nowhere, Contradiction::NoRedirectUri),
        (said.is_new && grants.iter().eq([&GrantType::RefreshToken]), Contradiction::NothingToRenew),
        (needs_keys && security.keys.is_none(), Contradiction::NoKeys),
        (!needs_keys && security.keys.is_some(), Contradiction::UnusedKeys),
        (security.method == Method::SelfSignedTlsClientAuth && lacks_certificate, Contradiction::NoCertificate),
        (needs_subject && security.subject.is_none(), Contradiction::NoSubject),
        (!needs_subject && security.subject.is_some(), Contradiction::UnusedSubject),
        (is_fapi2 && !is_strong, Contradiction::ProfileMethod),
        (is_fapi2 && security.pkce_optional, Contradiction::ProfilePkce),
        (is_public && grants.contains(&GrantType::ClientCredentials), Contradiction::PublicCredentials),
        (security.dpop && security.mtls, Contradiction::BoundTwice),
        (is_public && is_unrotated && !security.is_bound(), Contradiction::PublicUnrotated),
        (is_public && !security.introspects.is_empty(), Contradiction::PublicResourceServer),
        (is_public && security.pkce_optional, Contradiction::PublicWithoutPkce),
        (is_fapi2 && is_in_clear, Contradiction::ProfileRedirect),
        (is_fapi2 && said.takes_back(app), Contradiction::ProfileTakenBack),
        (security.method.has_secret() && !said.has_secret, Contradiction::NoSecret(security.method)),
    ] {
        if is_wrong {
            return Err(contradiction);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::Id;
    use crate::inbound::security::Security;
    use crate::oauth::client_certificate::Subject;
    use crate::oauth::key::KeySet;
    use crate::oauth::redirect_uri::RedirectUri;
    use crate::oauth::scope::Scope;

    fn keys() -> Keys {
        Keys::Url { url: Url::parse("https://one.example/jwks").expect("a URL"), guarded: true }
    }

    /// It has one.
    const SECRET: Said = Said { is_new: false, has_secret: true, rotation: None, dpop: None, require_par: None };

    fn app() -> IbApp {
        IbApp {
            id: Id::from_bytes([1; 16]),
            tenant: "default".to_owned(),
            name: "one".to_owned(),
            client_id: "5f0c".to_owned(),
            redirect_uris: vec![RedirectUri::register("https://one.example/done").expect("registrable")],
            grants: GrantType::OF_A_LINK.into(),
            scope: "p2pi".parse().expect("a scope"),
            access_ttl: None,
            rotation: None,
            native: false,
            security: Security::default(),
            created_at: Timestamp::default(),
        }
    }

    fn checked(security: &Security, grants: &[GrantType], rotation: Rotation) -> Result<(), Contradiction> {
        let app = IbApp { security: security.clone(), grants: grants.iter().copied().collect(), ..app() };
        check(&app, rotation, &SECRET)
    }

    #[test]
    fn what_is_said_of_an_app_fits_together() {
        use GrantType::{AuthorizationCode, ClientCredentials, RefreshToken};
        let codes = [AuthorizationCode, RefreshToken];
        let nowhere = IbApp { redirect_uris: Vec::new(), ..app() };
        assert_eq!(check(&nowhere, Rotation::RetrySafe, &SECRET), Err(Contradiction::NoRedirectUri));
        let alone = IbApp { grants: [ClientCredentials].into(), ..nowhere };
        assert_eq!(check(&alone, Rotation::RetrySafe, &SECRET), Ok(()));
        let safe = Rotation::RetrySafe;
        for (grants, expected) in [
            (&[RefreshToken][..], Err(Contradiction::NothingToRenew)),
            (&[ClientCredentials, RefreshToken], Ok(())),
            (&[AuthorizationCode], Ok(())),
        ] {
            let made = IbApp { grants: grants.iter().copied().collect(), ..app() };
            assert_eq!(check(&made, safe, &Said { is_new: true, ..SECRET }), expected, "{grants:?}");
            assert_eq!(check(&made, safe, &SECRET), Ok(()), "what was granted before goes on: {grants:?}");
        }
        assert_eq!(checked(&Security::default(), &[ClientCredentials, RefreshToken], Rotation::None), Ok(()));
        let signs = Security { method: Method::PrivateKeyJwt, keys: Some(keys()), ..Security::default() };
        assert_eq!(checked(&signs, &codes, safe), Ok(()));
        assert_eq!(checked(&Security { keys: None, ..signs.clone() }, &codes, safe), Err(Contradiction::NoKeys));
        assert_eq!(checked(&Security { keys: Some(keys()), ..Security::default() }, &codes, safe), Err(Contradiction::UnusedKeys));

        let public = Security { method: Method::None, ..Security::default() };
        assert_eq!(checked(&public, &codes, safe), Ok(()));
        assert_eq!(checked(&public, &codes, Rotation::None), Err(Contradiction::PublicUnrotated));
        assert_eq!(checked(&Security { dpop: true, ..public.clone() }, &codes, Rotation::None), Ok(()));
        assert_eq!(checked(&public, &[AuthorizationCode], Rotation::None), Ok(()));
        assert_eq!(checked(&public, &[ClientCredentials], safe), Err(Contradiction::PublicCredentials));
        let looks = Security { introspects: "a".parse().expect("a scope"), ..public.clone() };
        assert_eq!(checked(&looks, &codes, safe), Err(Contradiction::PublicResourceServer));
        assert_eq!(checked(&Security { pkce_optional: true, ..public }, &codes, safe), Err(Contradiction::PublicWithoutPkce));

        let fapi2 = Security { profile: Some(Profile::Fapi2), ..signs };
        assert_eq!(checked(&fapi2, &codes, safe), Ok(()));
        assert!(fapi2.needs_dpop() && fapi2.needs_par(false) && fapi2.rotation(safe) == Rotation::None);
        let public = Security { method: Method::None, ..Security::default() };
        assert_eq!(public.rotation(Rotation::None), safe, "the instance changed its mind after the app was registered");
        assert_eq!(Security { dpop: true, ..public }.rotation(Rotation::None), Rotation::None);
        assert_eq!(checked(&Security { pkce_optional: true, ..fapi2 }, &codes, safe), Err(Contradiction::ProfilePkce));
        let secret = Security { profile: Some(Profile::Fapi2), ..Security::default() };
        assert_eq!(checked(&secret, &codes, safe), Err(Contradiction::ProfileMethod));

        let subject = Some(Subject::SanDns("shop.example".to_owned()));
        let named = Security { method: Method::TlsClientAuth, subject, ..Security::default() };
        assert_eq!(checked(&named, &codes, safe), Ok(()));
        assert_eq!(checked(&Security { subject: None, ..named.clone() }, &codes, safe), Err(Contradiction::NoSubject));
        assert_eq!(checked(&Security { method: Method::ClientSecret, ..named.clone() }, &codes, safe), Err(Contradiction::UnusedSubject));
        let own = Security { method: Method::SelfSignedTlsClientAuth, keys: Some(keys()), ..Security::default() };
        assert_eq!(checked(&own, &codes, safe), Ok(()));
        assert_eq!(checked(&Security { keys: None, ..own.clone() }, &codes, safe), Err(Contradiction::NoKeys));
        let bare = Keys::Inline(
            KeySet::read(br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#).expect("a set"),
        );
        assert_eq!(checked(&Security { keys: Some(bare), ..own.clone() }, &codes, safe), Err(Contradiction::NoCertificate));
        for security in [named, own] {
            let fapi2 = Security { profile: Some(Profile::Fapi2), ..security };
            assert!(checked(&fapi2, &codes, safe).is_ok() && fapi2.needs_dpop(), "bound to a key, or");
            let fapi2 = Security { mtls: true, ..fapi2 };
            assert!(checked(&fapi2, &codes, safe).is_ok() && !fapi2.needs_dpop(), "to the certificate");
        }
    }

    #[test]
    fn tokens_are_bound_to_one_thing() {
        let certified = Security { method: Method::None, mtls: true, ..Security::default() };
        assert_eq!(checked(&certified, &GrantType::OF_A_LINK, Rotation::None), Ok(()));
        let both = Security { dpop: true, mtls: true, ..Security::default() };
        assert_eq!(checked(&both, &[GrantType::AuthorizationCode], Rotation::RetrySafe), Err(Contradiction::BoundTwice));
    }

    #[test]
    fn what_is_said_beside_an_app_fits_it() {
        let signs = Security { method: Method::PrivateKeyJwt, keys: Some(keys()), ..Security::default() };
        let fapi2 = IbApp { security: Security { profile: Some(Profile::Fapi2), ..signs }, ..app() };
        let check = |app: &IbApp, said: Said| check(app, Rotation::RetrySafe, &said);
        assert_eq!(check(&fapi2, Said { rotation: Some(Rotation::None), dpop: Some(true), ..Said::default() }), Ok(()));
        for said in [
            Said { rotation: Some(Rotation::Strict), ..Said::default() },
            Said { dpop: Some(false), ..Said::default() },
            Said { require_par: Some(false), ..Said::default() },
        ] {
            assert_eq!(check(&fapi2, said), Err(Contradiction::ProfileTakenBack), "{said:?}");
            assert_eq!(check(&app(), Said { has_secret: true, ..said }), Ok(()), "{said:?}");
        }
        let certified = IbApp { security: Security { mtls: true, ..fapi2.security.clone() }, ..fapi2.clone() };
        assert_eq!(check(&certified, Said { dpop: Some(false), ..Said::default() }), Ok(()), "they are bound to the certificate");
        let http = RedirectUri::register("http://127.0.0.1:9000/cb").expect("a redirect URI");
        let in_clear = IbApp { redirect_uris: vec![http], ..fapi2 };
        assert_eq!(check(&in_clear, Said::default()), Err(Contradiction::ProfileRedirect));
        assert_eq!(check(&IbApp { native: true, ..in_clear }, Said::default()), Ok(()));
        assert_eq!(check(&app(), Said::default()), Err(Contradiction::NoSecret(Method::ClientSecret)));
        let bare = IbApp { scope: Scope::default(), ..app() };
        assert_eq!(check(&bare, SECRET), Err(Contradiction::NoScope));
        let security = Security { introspects: "a".parse().expect("a scope"), ..Security::default() };
        let looks = IbApp { security, grants: [GrantType::ClientCredentials].into(), ..bare };
        assert_eq!(check(&looks, SECRET), Ok(()), "it asks about the tokens of others alone");
    }
}
