//! What a client shows of who it is, made ready to be judged: keys are fetched and signatures checked here, before any transaction.

use super::client::ClientError;
use crate::inbound::security::{Evidence, Keys, Security};
use crate::instance::Instance;
use crate::net::client_certificate::ClientCertificate;
use crate::oauth::client_auth::{Method, Presented};
use crate::oauth::key::KeySet;
use crate::store::ib_app::{self, NotAnApp};

/// The evidence in what a client presents and in the certificate of its connection, which is valid now.
///
/// # Errors
///
/// What it presents is no evidence: of no client with keys, or not believed; or its keys cannot be had.
pub(super) async fn of(
    instance: &Instance,
    presented: Presented<'_>,
    certificate: Option<&ClientCertificate>,
) -> Result<Evidence, ClientError> {
    let assertion = match presented {
        Presented::Secret { readings, way } => return Ok(Evidence::Secret { readings, way }),
        Presented::Name(client_id) => {
            return match certificate {
                Some(certificate) => by_certificate(instance, client_id, certificate).await,
                None => Ok(Evidence::Name(client_id)),
            };
        }
        Presented::Assertion(assertion) => assertion,
    };
    let client_id = assertion.client_id().to_owned();
    let wanted = client_id.clone();
    let app = instance.store.read(move |connection| ib_app::by_client_id(connection, &wanted)).await?;
    let unknown = || ClientError::NotAnApp(NotAnApp::Unknown);
    let app = app.ok_or_else(unknown)?;
    let keys: Keys = app.security.keys.clone().ok_or_else(unknown)?;
    // Not every client names its keys: only the signature says whether a new one was used.
    let signed = instance.key_sets.find(instance, &app, &keys, |set: &KeySet| assertion.signed_by(set)).await??;
    let config = instance.config();
    let issuer = config.instance.public_url.as_str();
    let asserted = signed.judge(issuer, instance.clock.now().wall)?;
    Ok(Evidence::Assertion { client_id, keys, asserted })
}

/// What a `client_id` and a certificate show: the client, where it is registered by that certificate (RFC 8705 §2); else a name.
async fn by_certificate(instance: &Instance, client_id: String, certificate: &ClientCertificate) -> Result<Evidence, ClientError> {
    let wanted = client_id.clone();
    let app = instance.store.read(move |connection| ib_app::by_client_id(connection, &wanted)).await?;
    let Some(app) = app else { return Ok(Evidence::Name(client_id)) };
    let Security { method, keys, subject, .. } = app.security.clone();
    let refused = |why: &str| ClientError::Certificate(why.to_owned());
    match (method, &keys, &subject) {
        (Method::TlsClientAuth, _, Some(subject)) => {
            let config = instance.config();
            certificate.check_authority(&config.mtls.authorities, instance.clock.now().wall).map_err(ClientError::Certificate)?;
            if !subject.is_of(certificate.der()) {
                return Err(refused("it has not the name that the client is registered by"));
            }
        }
        (Method::SelfSignedTlsClientAuth, Some(keys), _) => {
            let thumbprint = certificate.thumbprint();
            let not_among_them = || refused("it is not among those that the client has registered");
            let has_it = |set: &KeySet| set.has_certificate(Some(thumbprint)).then_some(()).ok_or_else(not_among_them);
            instance.key_sets.find(instance, &app, keys, has_it).await??;
        }
        _ => return Ok(Evidence::Name(client_id)),
    }
    Ok(Evidence::Certificate { client_id, method, keys, subject })
}
