//! What may need attention in an IB app that was made or changed, though nothing is wrong with it yet.

use crate::inbound::ib_app::{GrantType, IbApp};
use crate::inbound::security::Keys;
use crate::instance::Instance;
use crate::instance::key_sets::NotFetched;
use crate::oauth::client_auth::Method;

use super::settings::Settings;

/// What is to be said of what was `given` for `app`.
pub(super) async fn of(instance: &Instance, given: &Settings, app: &IbApp) -> Vec<String> {
    let stars = given.redirect_uris().iter().map(|uri| uri.as_str()).filter(|uri| uri.contains('*'));
    let stars = stars.map(|uri| format!("the redirect URI {uri} is compared as it stands: \"*\" stands for nothing but itself"));
    let mut warnings: Vec<String> = stars.collect();
    if given.says_grants() && app.may_use(GrantType::RefreshToken) && !app.may_use(GrantType::AuthorizationCode) {
        // RFC 6749 §4.4.3.
        let only = "the grant refresh_token renews what was allowed by authorization_code, which the app may not use";
        warnings.push(format!("{only}: it gets no refresh token any more, and client_credentials gives none"));
    }
    if let Some(Keys::Url { url, guarded }) = given.keys_at() {
        let fix = "it is looked at again when the app signs; where it cannot be, take the keys as a file: --jwks FILE";
        match instance.key_sets.try_url(instance, app, url, *guarded).await {
            Ok(set) if app.security.method == Method::SelfSignedTlsClientAuth && !set.has_certificate(None) => {
                warnings.push(format!("the keys at {url} come without a certificate (x5c), by which the app is to authenticate"));
            }
            Ok(_) => {}
            Err(NotFetched::Untrusted(untrusted)) => {
                warnings.push(format!("the app's keys cannot be read at {url}: {untrusted}. Name its authority in [trust] ca; {fix}"));
            }
            Err(NotFetched::Full(why) | NotFetched::Other(why)) => {
                warnings.push(format!("the app's keys cannot be read at {url}: {why}; {fix}"))
            }
        }
    }
    warnings
}
