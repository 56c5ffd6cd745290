//! `p2pid ib`: inbound client apps, by which peers may call us.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{self, Confirm};
use super::context::Context;
use super::failure::Failure;
use super::records::{self, Collection, Given, Next, text};
use super::registration;
use super::report::Report;
use crate::oauth::client_auth::Method;
use crate::secret::ExposeSecret;

const APPS: Collection = Collection {
    kind: "ib-app",
    name: "ib-apps",
    of_tenant: true,
    columns: &["name", "client_id", "scopes", "grants", "redirect_uris"],
    none_yet: Next::Here("p2pid ib create NAME --peer-url URL --scope SCOPE"),
};

/// Apps by which peers may call this instance
#[derive(Debug, Subcommand)]
pub(super) enum Ib {
    /// Register a peer; its secret is shown once
    Create {
        /// The peer's name here
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// The client id; made when left out
        #[arg(long, value_name = "ID", allow_hyphen_values = true, value_parser = super::client_id)]
        client_id: Option<String>,
        /// Change the app when there is one of this name
        #[arg(long)]
        or_update: bool,
    },
    /// List all apps
    List,
    /// Show one
    Show {
        /// By name or id
        name: String,
    },
    /// Change what is given, and nothing else
    #[command(
        mut_arg("client_secret_stdin", |arg| arg.help("Read a new client secret from standard input: one line; it takes the place of all before, at once")),
        mut_arg("grants", |arg| arg.help("What it may use, in place of what it may use now")),
        mut_arg("scopes", |arg| arg.help("What the app may ask for, one of [scopes], in place of what it may ask for now")),
        mut_arg("redirect_uris", |arg| arg.help("Where browsers may be sent back to, in place of where they may now")),
        mut_arg("peer_url", |arg| arg.help("The peer's public URL; registers URL/oauth/callback, in place of what is registered now")),
        mut_arg("rotation", |arg| arg.help("What becomes of a refresh token that was used"))
    )]
    Update {
        /// By name or id
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Make another secret, shown once; those before stay valid for as long as was said
    RotateSecret {
        /// By name or id
        name: String,
        /// How long the secret before stays valid; 0s ends all that there are
        #[arg(long, value_name = "D", default_value = "24h", value_parser = super::duration)]
        overlap: Duration,
    },
    /// Delete an app by which no peer holds anything
    Delete {
        /// By name or id
        name: String,
        /// Also while peers are linked by it: ends their grants at once
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// What an app may do.
#[derive(Debug, Default, Args)]
pub(super) struct Settings {
    /// The peer's public URL; registers URL/oauth/callback
    #[arg(long, value_name = "URL")]
    peer_url: Option<String>,
    /// Where browsers may be sent back to
    #[arg(long = "redirect-uri", value_name = "U")]
    redirect_uris: Vec<String>,
    /// Read the client secret from standard input: one line; made when left out
    #[arg(long)]
    client_secret_stdin: bool,
    /// authorization_code and refresh_token when left out
    #[arg(long = "grant", value_name = "G")]
    grants: Vec<String>,
    /// What the app may ask for, one of [scopes]; may be left out where there is only one, and by a resource server (--introspects) that calls nobody
    #[arg(long = "scope", value_name = "S")]
    scopes: Vec<String>,
    /// How long its access tokens live
    #[arg(long, value_name = "D", value_parser = super::duration)]
    access_ttl: Option<Duration>,
    /// What becomes of a refresh token that was used; as [tokens] says when left out
    #[arg(long, value_name = "R", value_parser = ["retry_safe", "strict", "none"])]
    rotation: Option<String>,
    /// It runs on a person's machine: the port of its loopback redirect URIs may vary; --native=false takes it back
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    native: Option<bool>,
    #[command(flatten)]
    security: Box<Security>,
}

/// How an app shows who it is, and what its requests and tokens are tied to.
#[derive(Debug, Default, Args)]
struct Security {
    /// How it authenticates: client_secret (in either way), client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth,
    /// self_signed_tls_client_auth, or none
    #[arg(long, value_name = "M", value_parser = Method::ALL.map(Method::as_str))]
    auth_method: Option<String>,
    /// Its public keys, a JSON Web Key Set in a file or at a URL; means --auth-method private_key_jwt
    /// where no other is given that needs them
    #[arg(long, value_name = "FILE|URL")]
    jwks: Option<String>,
    /// Its tokens are bound to a key of its own (DPoP): a stolen one is useless; --dpop=false takes it back
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dpop: Option<bool>,
    /// Its tokens are bound to its TLS certificate (mutual TLS, [mtls] in the configuration); --mtls=false takes it back
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    mtls: Option<bool>,
    /// The subject of its certificate, as RFC 4514 writes it: CN=shop,O=Example; means --auth-method tls_client_auth
    #[arg(long, value_name = "DN", group = "certificate_name")]
    tls_client_auth_subject_dn: Option<String>,
    /// A DNS name in its certificate
    #[arg(long, value_name = "NAME", group = "certificate_name")]
    tls_client_auth_san_dns: Option<String>,
    /// A URI in its certificate
    #[arg(long, value_name = "URI", group = "certificate_name")]
    tls_client_auth_san_uri: Option<String>,
    /// An IP address in its certificate
    #[arg(long, value_name = "IP", group = "certificate_name")]
    tls_client_auth_san_ip: Option<String>,
    /// An e-mail address in its certificate
    #[arg(long, value_name = "EMAIL", group = "certificate_name")]
    tls_client_auth_san_email: Option<String>,
    /// Its authorization requests must be pushed first (PAR); --require-par=false takes it back
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    require_par: Option<bool>,
    /// optional: for a client that cannot do PKCE
    #[arg(long, value_name = "P", value_parser = ["required", "optional"])]
    pkce: Option<String>,
    /// fapi2: all that the FAPI 2.0 Security Profile demands of a client; none takes it back
    #[arg(long, value_name = "P", value_parser = ["fapi2", "none"])]
    profile: Option<String>,
    /// It is a resource server: it may introspect tokens that carry this scope; "" takes all back
    #[arg(long = "introspects", value_name = "S")]
    introspects: Vec<String>,
}

impl Security {
    /// Where tokens are bound from now on that may not have been before: the flag that takes that back.
    fn unbinds_again(&self) -> Option<&'static str> {
        match self {
            Self { profile: Some(profile), .. } if profile == "fapi2" => Some("--profile none"),
            Self { dpop: Some(true), .. } => Some("--dpop=false"),
            Self { mtls: Some(true), .. } => Some("--mtls=false"),
            _ => None,
        }
    }

    fn add_to(&self, given: Given) -> Result<Given, Failure> {
        let (mut jwks, mut jwks_uri) = (None, None);
        match &self.jwks {
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => jwks_uri = Some(url.as_str()),
            Some(file) => jwks = Some(key_set(file)?),
            None => {}
        }
        Ok(given
            .maybe("auth_method", self.auth_method.as_deref())
            .maybe("jwks", jwks)
            .maybe("jwks_uri", jwks_uri)
            .maybe("dpop", self.dpop)
            .maybe("mtls", self.mtls)
            .maybe("tls_client_auth_subject_dn", self.tls_client_auth_subject_dn.as_deref())
            .maybe("tls_client_auth_san_dns", self.tls_client_auth_san_dns.as_deref())
            .maybe("tls_client_auth_san_uri", self.tls_client_auth_san_uri.as_deref())
            .maybe("tls_client_auth_san_ip", self.tls_client_auth_san_ip.as_deref())
            .maybe("tls_client_auth_san_email", self.tls_client_auth_san_email.as_deref())
            .maybe("require_par", self.require_par)
            .maybe("pkce", self.pkce.as_deref())
            .maybe("profile", self.profile.as_deref())
            .list("introspects", &self.introspects))
    }
}

/// The JSON of a file of public keys. Whether they are good ones the daemon says.
fn key_set(file: &str) -> Result<Value, Failure> {
    let wrong =
        |why: String| Failure::new("bad_file", format!("--jwks {file}: {why}")).expected("a JSON Web Key Set of public keys, or a URL");
    let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| wrong(format!("not JSON, at line {}, column {}", error.line(), error.column())))
}

impl Settings {
    fn given(&self, report: &Report) -> Result<Given, Failure> {
        let secret = if self.client_secret_stdin { Some(ask::client_secret(report, true)?) } else { None };
        let given = Given::new()
            .maybe("peer_url", self.peer_url.as_deref())
            .list("redirect_uris", &self.redirect_uris)
            .maybe("client_secret", secret.as_ref().map(ExposeSecret::expose_secret))
            .list("grants", &self.grants)
            .list("scopes", &self.scopes)
            .maybe("access_ttl", self.access_ttl.map(|life| life.as_secs()))
            .maybe("rotation", self.rotation.as_deref())
            .maybe("native", self.native);
        self.security.add_to(given)
    }
}

/// Does what the command says.
pub(super) async fn run(command: Ib, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Ib::Create { name, settings, client_id, or_update } => {
            let given = settings.given(context.report)?.with("name", name).maybe("client_id", client_id).flag("or_update", or_update);
            let app = APPS.create(context, given.into_value()).await?;
            records::warn(context, &app);
            context.report.data(&app, || created(&app));
            let another_secret = context.report.spelled(&format!("p2pid ib rotate-secret {}", text(&app["name"])));
            let instance = registration::this_instance(context).await?;
            context.report.note_as_is(&registration::of_ib_app(&app, &instance, or_update, &another_secret));
        }
        Ib::List => APPS.list(context).await?,
        Ib::Show { name } => APPS.show(context, &name).await?,
        Ib::Update { name, settings } => {
            let app = APPS.update(context, &name, settings.given(context.report)?.into_value()).await?;
            records::warn(context, &app);
            context.report.data(&app, || APPS.sheet(&app));
            if let Some(take_back) = settings.security.unbinds_again() {
                context.report.note(&unbound_tokens_end(&app, take_back));
            }
        }
        Ib::RotateSecret { name, overlap } => {
            let app = APPS.act(context, &name, "rotate-secret", json!({ "overlap": overlap.as_secs() })).await?;
            context.report.data(&app, || created(&app));
            let before = still_valid(app["secrets"].as_array().map_or(&[][..], Vec::as_slice), overlap);
            context.report.note_as_is(&format!("shown once; {before}. On the other host: p2pid ob update NAME --client-secret-stdin"));
        }
        Ib::Delete { name, force: false, confirm } => APPS.delete(context, &name, confirm).await?,
        Ib::Delete { name, force: true, confirm } => {
            APPS.confirm(context, &name, confirm, &format!("delete the ib app {name} and end all grants of it")).await?;
            context.client()?.send(http::Method::DELETE, &APPS.path(context, &[&name]), APPS.kind, json!({ "force": true })).await?;
            context.report.data(&json!({ "deleted": name }), String::new);
            context.report.note(&format!("deleted the ib app {name}; what peers held by it has ended"));
        }
    }
    Ok(())
}

/// What is said of the secrets that were there before a new one, which is the first of `secrets`.
fn still_valid(secrets: &[Value], overlap: Duration) -> String {
    let [_, before, older @ ..] = secrets else { return "no other one is valid".to_owned() };
    let mut said = format!("the secret before it stays valid for {}", humantime::format_duration(overlap));
    if let Some(last) = before["last_used_at"].as_str() {
        said += &format!(" (last used {last})");
    }
    for secret in older {
        let used = secret["last_used_at"].as_str().map_or_else(|| "never used".to_owned(), |last| format!("last used {last}"));
        said += &format!("; the one of {} goes on until {} ({used})", text(&secret["created_at"]), text(&secret["expires_at"]));
    }
    said
}

fn created(app: &Value) -> String {
    let secret = text(&app["client_secret"]);
    let secret = if secret.is_empty() { String::new() } else { format!("   client_secret {secret} (shown once)") };
    format!("client_id {}{secret}", text(&app["client_id"]))
}

/// What binding tokens ends, and how it is taken back.
fn unbound_tokens_end(app: &Value, take_back: &str) -> String {
    let name = text(&app["name"]);
    format!(
        "tokens of {name} that are bound to nothing are refused from now on, and streams that were opened with them have ended. It gets a bound \
         one when it shows its key or certificate as it asks for the next, by refresh too, which another p2pid does by itself; a client that \
         cannot gets none: p2pid ib update {name} {take_back} takes it back"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_attributes() {
        let settings = Settings {
            peer_url: Some("https://one.example.com".into()),
            scopes: vec!["p2pi".into()],
            access_ttl: Some(Duration::from_secs(3600)),
            rotation: Some("strict".into()),
            native: Some(false),
            ..Settings::default()
        };
        let expected =
            json!({ "peer_url": "https://one.example.com", "scopes": ["p2pi"], "access_ttl": 3600, "rotation": "strict", "native": false });
        assert_eq!(settings.given(&Report::new(true)).expect("no secret asked").into_value(), expected);
    }

    #[test]
    fn who_binds_tokens_is_told_what_that_ends_and_how_it_is_taken_back() {
        let bound = || Security { dpop: Some(true), ..Security::default() };
        for (given, take_back) in [
            (bound(), Some("--dpop=false")),
            (Security { mtls: Some(true), ..Security::default() }, Some("--mtls=false")),
            (Security { profile: Some("fapi2".into()), ..bound() }, Some("--profile none")),
            (Security { dpop: Some(false), profile: Some("none".into()), ..Security::default() }, None),
        ] {
            assert_eq!(given.unbinds_again(), take_back, "{given:?}");
        }
        let told = unbound_tokens_end(&json!({ "name": "shop" }), "--dpop=false");
        assert!(told.contains("refused from now on") && told.contains("p2pid ib update shop --dpop=false takes"), "{told}");
    }
}
