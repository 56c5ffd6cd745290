//! Token calls: the `oauth2` crate builds the requests and reads the answers, over whatever sends HTTP for us. Nothing here prints a body.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use oauth2::basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse};
use oauth2::{
    AsyncHttpClient, AuthType, AuthorizationCode, ClientId, ClientSecret, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError,
    ResourceOwnerPassword, ResourceOwnerUsername, Scope as OAuthScope, StandardRevocableToken, TokenUrl,
};

use super::answer::{self, Answer, Doubt, LenientTokenResponse};
use super::client::{self, Authentication, CallFailure, Client, Proof, Transport};
use super::peer::User;
use crate::clock::Timestamp;
use crate::oauth::scope::Scope;
use crate::secret::{ExposeSecret, SecretString};

/// What is asked for.
#[derive(Debug)]
pub enum Ask<'a> {
    /// Tokens for a code (RFC 6749 §4.1.3).
    Code {
        /// The code.
        code: &'a SecretString,
        /// PKCE (RFC 7636 §4.5).
        verifier: &'a SecretString,
        /// As in the authorization request.
        redirect_uri: &'a str,
    },
    /// New tokens for a refresh token (RFC 6749 §6).
    Refresh(&'a SecretString),
    /// Tokens for the app itself (RFC 6749 §4.4).
    ClientCredentials(&'a Scope),
    /// Tokens for a user whose password we hold (RFC 6749 §4.3).
    Password(&'a User, &'a Scope),
}

/// An answer, and when the peer says it gave it.
#[derive(Debug)]
pub struct Reply {
    /// What it means.
    pub answer: Answer,
    /// The peer's clock, from the `Date` header.
    pub date: Option<Timestamp>,
}

impl Client {
    /// Asks the token endpoint.
    pub async fn ask(&self, ask: Ask<'_>, transport: &dyn Transport) -> Reply {
        let http = Watched { client: self, transport, seen: Mutex::default() };
        let mut client = oauth2::Client::<
            BasicErrorResponse,
            LenientTokenResponse,
            BasicTokenIntrospectionResponse,
            StandardRevocableToken,
            BasicRevocationErrorResponse,
        >::new(ClientId::new(self.client_id.clone()))
        .set_token_uri(TokenUrl::from_url(self.token_endpoint.clone()));
        match &self.authentication {
            Authentication::Basic(secret) => client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned())),
            Authentication::Form(secret) => {
                let secret = ClientSecret::new(secret.expose_secret().to_owned());
                client = client.set_auth_type(AuthType::RequestBody).set_client_secret(secret);
            }
            // The crate names us in the form; an assertion comes with the sending.
            Authentication::Nothing | Authentication::Assertion { .. } => {}
        }
        let result = match ask {
            Ask::Code { code, verifier, redirect_uri } => match RedirectUrl::new(redirect_uri.to_owned()) {
                Ok(redirect_uri) => {
                    client
                        .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
                        .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()))
                        .set_redirect_uri(std::borrow::Cow::Owned(redirect_uri))
                        .request_async(&http)
                        .await
                }
                Err(_) => return Reply { answer: Answer::NotSent(format!("{redirect_uri} is not a URL")), date: None },
            },
            Ask::Refresh(token) => {
                client.exchange_refresh_token(&RefreshToken::new(token.expose_secret().to_owned())).request_async(&http).await
            }
            Ask::ClientCredentials(scope) => client.exchange_client_credentials().add_scopes(words(scope)).request_async(&http).await,
            Ask::Password(user, scope) => {
                let name = ResourceOwnerUsername::new(user.name.clone());
                let password = ResourceOwnerPassword::new(user.password.expose_secret().to_owned());
                client.exchange_password(&name, &password).add_scopes(words(scope)).request_async(&http).await
            }
        };
        let seen = http.seen.into_inner().expect("nothing panics while it is held");
        Reply { answer: judged(result, self.proof.as_ref(), &seen), date: seen.date }
    }
}

fn words(scope: &Scope) -> Vec<OAuthScope> {
    scope.words().map(|word| OAuthScope::new(word.to_owned())).collect()
}

/// What the crate does not hand on of an answer.
#[derive(Debug, Default)]
struct Seen {
    status: Option<StatusCode>,
    date: Option<Timestamp>,
    retry_after: Option<Duration>,
    location: Option<String>,
}

/// Sends, notes what the crate does not hand on, and repairs what the crate is stricter about than the field: a 2xx is a success whatever
/// its number and media type, and an OAuth error with status 200 is an error.
struct Watched<'a> {
    client: &'a Client,
    transport: &'a dyn Transport,
    seen: Mutex<Seen>,
}

impl<'c> AsyncHttpClient<'c> for Watched<'_> {
    type Error = CallFailure;
    type Future = BoxFuture<'c, Result<http::Response<Vec<u8>>, CallFailure>>;

    fn call(&'c self, request: http::Request<Vec<u8>>) -> Self::Future {
        Box::pin(async move {
            let mut response = self.client.send(request, self.transport).await?;
            *self.seen.lock().expect("nothing panics while it is held") = Seen {
                status: Some(response.status()),
                date: client::date(response.headers()),
                retry_after: retry_after(response.headers()),
                location: response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(answer::printable),
            };
            response.headers_mut().remove(CONTENT_TYPE);
            if response.status().is_success() {
                *response.status_mut() = if is_error_document(response.body()) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
            }
            Ok(response)
        })
    }
}

fn is_error_document(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body)
        .is_ok_and(|document| document.get("error").is_some_and(serde_json::Value::is_string) && !document.contains_key("access_token"))
}

/// What an answer means. A server's failure is inconclusive whatever it says; so is a success that cannot be read, since the old token
/// may be spent.
fn judged(
    result: Result<LenientTokenResponse, RequestTokenError<CallFailure, BasicErrorResponse>>,
    proof: Option<&Proof>,
    seen: &Seen,
) -> Answer {
    let inconclusive = |doubt, what: String| Answer::Inconclusive { doubt, what, retry_after: seen.retry_after };
    let status = seen.status.unwrap_or_default();
    match result {
        Ok(response) => response.into_answer(proof),
        Err(RequestTokenError::Request(CallFailure::NotSent(what))) => Answer::NotSent(what),
        Err(RequestTokenError::Request(CallFailure::Inconclusive(what))) => inconclusive(Doubt::NoAnswer, what),
        Err(_) if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) => {
            inconclusive(Doubt::ServerError, format!("the peer answered {}", in_words(status)))
        }
        Err(RequestTokenError::ServerResponse(error)) => match answer::refused(&error) {
            Answer::Refused { code, description } if matches!(code.as_str(), "server_error" | "temporarily_unavailable" | "slow_down") => {
                inconclusive(Doubt::ServerError, format!("the peer answered {}", answer::refusal_in_words(&code, &description)))
            }
            refused => refused,
        },
        Err(RequestTokenError::Parse(..) | RequestTokenError::Other(_)) if status.is_success() => {
            inconclusive(Doubt::Unreadable, format!("the peer answered {} without tokens", status.as_u16()))
        }
        Err(RequestTokenError::Parse(..) | RequestTokenError::Other(_)) => Answer::Unexpected(match &seen.location {
            Some(location) if status.is_redirection() => format!("{} to {location}, which is not followed", in_words(status)),
            _ => format!("{} that is no OAuth answer", in_words(status)),
        }),
    }
}

fn in_words(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// `Retry-After` in seconds; a date is not worth its clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::client::tests::{Scripted, response};

    fn client() -> Client {
        Client::new(&crate::outbound::peer::examples::app(), &"http://127.0.0.1:1/token".parse().expect("a URL"), None)
    }

    async fn refresh_against(answer: Result<http::Response<Vec<u8>>, CallFailure>) -> Answer {
        let transport = Scripted::new(vec![answer]);
        client().ask(Ask::Refresh(&"old".into()), &transport).await.answer
    }

    #[tokio::test]
    async fn c8_successes_of_the_field_are_read() {
        for (status, headers, body) in [
            (
                200,
                &[("content-type", "application/json;charset=UTF-8")][..],
                r#"{"access_token":"a","token_type":"Bearer","expires_in":3}"#,
            ),
            (200, &[("content-type", "text/plain")], r#"{"access_token":"a"}"#),
            (200, &[], r#"{"access_token":"a","expires_in":"3600","unknown":{"x":1}}"#),
            (201, &[("content-type", "application/json")], r#"{"access_token":"a"}"#),
        ] {
            assert!(matches!(refresh_against(response(status, headers, body)).await, Answer::Granted(_)), "{status} {body}");
        }
    }

    #[tokio::test]
    async fn c7_what_the_peer_may_have_done_is_inconclusive() {
        let cases = [
            response(200, &[], ""),
            response(204, &[], ""),
            response(200, &[("content-type", "text/html")], "<html>Welcome</html>"),
            response(200, &[], r#"{"token":"a"}"#),
            response(200, &[], r#"{"access_token":7}"#),
            response(200, &[], "[]"),
            response(500, &[], r#"{"error":"invalid_grant"}"#),
            response(503, &[], ""),
            response(502, &[("content-type", "text/html")], "<html>"),
            response(429, &[("retry-after", "7")], ""),
            response(408, &[], ""),
            response(400, &[], r#"{"error":"temporarily_unavailable"}"#),
            Err(CallFailure::Inconclusive("no answer within 10 s".to_owned())),
        ];
        for case in cases {
            let told = format!("{case:?}");
            assert!(matches!(refresh_against(case).await, Answer::Inconclusive { .. }), "{told}");
        }
        let asked_to_wait = refresh_against(response(429, &[("retry-after", "7")], "")).await;
        assert!(matches!(asked_to_wait, Answer::Inconclusive { retry_after: Some(wait), .. } if wait == Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn refusals_are_told_by_their_code_whatever_their_status() {
        for status in [200, 400, 401] {
            let answer = refresh_against(response(
                status,
                &[("content-type", "text/html")],
                r#"{"error":"invalid_grant","error_description":"gone\r\n"}"#,
            ))
            .await;
            assert!(
                matches!(answer, Answer::Refused { code, description } if code == "invalid_grant" && description == "gone"),
                "{status}"
            );
        }
    }

    #[tokio::test]
    async fn c5_a_redirect_is_not_followed_and_a_firewalls_page_is_no_answer() {
        for case in [
            response(302, &[("location", "https://evil.example.com/")], ""),
            response(403, &[], "<html>blocked</html>"),
            response(404, &[], ""),
        ] {
            let told = format!("{case:?}");
            assert!(matches!(refresh_against(case).await, Answer::Unexpected(_)), "{told}");
        }
    }

    #[tokio::test]
    async fn what_did_not_leave_is_known() {
        let answer = refresh_against(Err(CallFailure::NotSent("connection refused".to_owned()))).await;
        assert!(matches!(answer, Answer::NotSent(what) if what == "connection refused"));
    }

    #[tokio::test]
    async fn requests_carry_what_the_rfc_asks() {
        let transport = Scripted::new(vec![response(200, &[], r#"{"access_token":"a"}"#)]);
        let ask = Ask::Code { code: &"c".into(), verifier: &"v".repeat(43).into(), redirect_uri: "https://one.example.com/oauth/callback" };
        client().ask(ask, &transport).await;
        let request = transport.asked.lock().expect("unpoisoned").pop().expect("was asked");
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.headers()[http::header::AUTHORIZATION], client::basic("client", "secret"));
        let form: std::collections::BTreeMap<_, _> = form_urlencoded::parse(request.body()).into_owned().collect();
        assert_eq!(form["grant_type"], "authorization_code");
        assert_eq!(form["redirect_uri"], "https://one.example.com/oauth/callback");
        assert_eq!(form["code_verifier"], "v".repeat(43));
        assert!(!form.contains_key("client_secret"));
    }
}
