//! The documents that describe us: authorization server (RFC 8414) and protected resource (RFC 9728). Every URL comes from the
//! configuration, and only what answers is named.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::json;

use crate::config::Config;
use crate::doors::nothing_here;
use crate::inbound::ib_app::GrantType;
use crate::instance::Instance;
use crate::oauth::client_auth::{self, Method};
use crate::oauth::{key, pkce};

/// Where the authorization server's document is.
pub(super) const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

/// Where the protected resource's document is.
pub(super) const PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource";

/// GET /.well-known/oauth-authorization-server
pub(super) async fn authorization_server(State(instance): State<Arc<Instance>>) -> Response {
    let config = instance.config();
    let public_url = &config.instance.public_url;
    let scopes: Vec<&String> = config.scopes.keys().collect();
    let mut members = json!({
        "issuer": public_url.as_str(),
        "authorization_endpoint": public_url.join("/oauth/authorize"),
        "token_endpoint": public_url.join("/oauth/token"),
        "token_endpoint_auth_methods_supported": methods(&client_auth::METHODS, &config),
        "token_endpoint_auth_signing_alg_values_supported": key::ALGORITHMS,
        "revocation_endpoint": public_url.join("/oauth/revoke"),
        "revocation_endpoint_auth_methods_supported": methods(&client_auth::METHODS, &config),
        "revocation_endpoint_auth_signing_alg_values_supported": key::ALGORITHMS,
        "introspection_endpoint": public_url.join("/oauth/introspect"),
        "introspection_endpoint_auth_methods_supported": methods(&client_auth::CONFIDENTIAL_METHODS, &config),
        "introspection_endpoint_auth_signing_alg_values_supported": key::ALGORITHMS,
        "pushed_authorization_request_endpoint": public_url.join("/oauth/par"),
        "require_pushed_authorization_requests": config.tokens.require_par,
        "dpop_signing_alg_values_supported": key::ALGORITHMS,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": GrantType::served(config.compat.password_grant),
        "code_challenge_methods_supported": [pkce::METHOD],
        "authorization_response_iss_parameter_supported": true,
        "scopes_supported": scopes,
        "protected_resources": [public_url.as_str()],
        "p2pi_endpoint": public_url.join(&config.instance.p2pi_path),
    });
    if let Some(url) = &config.mtls.public_url {
        members["tls_client_certificate_bound_access_tokens"] = json!(true);
        // RFC 8705 §5. Where calls go is p2pid's own, as `p2pi_endpoint` is.
        members["mtls_endpoint_aliases"] = json!({
            "token_endpoint": url.join("/oauth/token"),
            "revocation_endpoint": url.join("/oauth/revoke"),
            "introspection_endpoint": url.join("/oauth/introspect"),
            "pushed_authorization_request_endpoint": url.join("/oauth/par"),
            "p2pi_endpoint": url.join(&config.instance.p2pi_path),
        });
    }
    document(&members)
}

/// GET /.well-known/oauth-protected-resource
pub(super) async fn protected_resource(State(instance): State<Arc<Instance>>) -> Response {
    let config = instance.config();
    let public_url = &config.instance.public_url;
    let scopes: Vec<&String> = config.scopes.keys().collect();
    document(&json!({
        "resource": public_url.as_str(),
        "authorization_servers": [public_url.as_str()],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": key::ALGORITHMS,
        "tls_client_certificate_bound_access_tokens": config.mtls.public_url.is_some(),
        "scopes_supported": scopes,
        "resource_name": config.instance.name,
    }))
}

/// How clients may authenticate: `always`, and with certificates where they can show them.
fn methods(always: &[&'static str], config: &Config) -> Vec<&'static str> {
    let mut methods = always.to_vec();
    if config.mtls.public_url.is_some() {
        methods.push(Method::SelfSignedTlsClientAuth.as_str());
        methods.extend((!config.mtls.authorities.is_empty()).then_some(Method::TlsClientAuth.as_str()));
    }
    methods
}

/// The same behind the well-known part, for a public_url with that path.
pub(super) async fn authorization_server_at(state: State<Arc<Instance>>, Path(path): Path<String>, request: Request) -> Response {
    if is_our_path(&state.config(), &path) { authorization_server(state).await } else { nothing_here::not_found(state, request).await }
}

/// The same behind the well-known part, for a public_url with that path.
pub(super) async fn protected_resource_at(state: State<Arc<Instance>>, Path(path): Path<String>, request: Request) -> Response {
    if is_our_path(&state.config(), &path) { protected_resource(state).await } else { nothing_here::not_found(state, request).await }
}

fn is_our_path(config: &Config, path: &str) -> bool {
    let ours = config.instance.public_url.url().path().trim_matches('/');
    !ours.is_empty() && path == ours
}

fn document(document: &serde_json::Value) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=60")], document.to_string()).into_response()
}
