//! `p2pid ob`: outbound client apps, the credentials that we hold at somebody else.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{self, Confirm};
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Given, Next, text};
use super::registration;
use crate::secret::ExposeSecret;

const APPS: Collection = Collection {
    kind: "ob-app",
    name: "ob-apps",
    of_tenant: true,
    columns: &["name", "client_id", "grant", "scopes", "authorize_url", "token_url"],
    none_yet: Next::Here("p2pid peer create NAME --url URL --client-id ID, which makes one itself"),
};

/// The values of `--auth-method`.
pub(super) const AUTH_METHODS: [&str; 4] = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];

/// A parser of them, which takes `client_secret` too, as `ib create` has it: then a secret is sent as is usual.
pub(super) fn auth_methods() -> impl TypedValueParser<Value = String> {
    let named = PossibleValuesParser::new(AUTH_METHODS.map(|method| match method {
        "client_secret_basic" => PossibleValue::new(method).alias("client_secret"),
        _ => PossibleValue::new(method),
    }));
    named.map(|method| if method == "client_secret" { AUTH_METHODS[0].to_owned() } else { method })
}

/// The method that needs no secret.
pub(super) const SIGNS: &str = "private_key_jwt";

/// The values of `--dpop`.
pub(super) const DPOP: [&str; 3] = ["auto", "off", "require"];

/// Whether a secret belongs to such a method.
pub(super) fn has_secret(auth_method: Option<&str>) -> bool {
    !matches!(auth_method, Some("private_key_jwt" | "none"))
}

/// Credentials that this instance holds at others, for several peers or a foreign server
#[derive(Debug, Subcommand)]
pub(super) enum Ob {
    /// Keep credentials that somebody gave us, or make a key to sign with; asks for the secret where there is one
    Create {
        /// Its name here
        name: String,
        /// The client id that the other side gave us; with private_key_jwt it can be ours to choose, and is the app's id when left out
        #[arg(long, value_name = "ID", required_unless_present = "auth_method", allow_hyphen_values = true, value_parser = super::client_id)]
        client_id: Option<String>,
        #[command(flatten)]
        settings: Settings,
        /// Change the app when there is one of this name
        #[arg(long)]
        or_update: bool,
    },
    /// List all apps
    List,
    /// Show one; never its secret
    Show {
        /// By name or id
        name: String,
    },
    /// Print the public keys that an app signs with, as ib create --jwks FILE takes them
    Jwks {
        /// By name or id
        name: String,
    },
    /// Publish a new key to sign with; the one before signs on for a while
    RotateKey {
        /// By name or id
        name: String,
        /// When the new key takes over: until then the other side has to have seen it
        #[arg(long, value_name = "D", default_value = "24h", value_parser = super::duration)]
        overlap: Duration,
    },
    /// Change what is given, and nothing else
    #[command(
        mut_arg("auth_method", |arg| {
            arg.help("How it authenticates there: client_secret_basic, client_secret_post, private_key_jwt (by signatures: no secret is shared), or none")
        }),
        mut_arg("grant", |arg| arg.help("How tokens are asked for"))
    )]
    Update {
        /// By name or id
        name: String,
        /// The client id that the other side gave us; another one ends the links
        #[arg(long, value_name = "ID", allow_hyphen_values = true, value_parser = super::client_id)]
        client_id: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Delete an app that no peer uses
    Delete {
        /// By name or id
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Where and how the credentials are used.
#[derive(Debug, Default, Args)]
pub(super) struct Settings {
    /// How it authenticates there: client_secret_basic, client_secret_post, private_key_jwt (by signatures: no secret is shared), or none;
    /// when left out, by the secret, or by signatures where there is none and the other side takes them
    #[arg(long, value_name = "M", value_parser = auth_methods())]
    auth_method: Option<String>,
    /// Whether its tokens are bound to a key of ours, so that a stolen one is useless: auto (where the other side offers it, and is a p2pid or shares no
    /// secret with us), off, or require
    #[arg(long, value_name = "D", value_parser = DPOP)]
    dpop: Option<String>,
    /// Read the client secret from standard input: one line
    #[arg(long)]
    client_secret_stdin: bool,
    /// The other side's issuer, whose metadata names its endpoints
    #[arg(long, value_name = "URL", conflicts_with_all = ["authorize_url", "token_url"])]
    issuer: Option<String>,
    /// Where its users log in and allow, when it has no metadata
    #[arg(long, value_name = "U")]
    authorize_url: Option<String>,
    /// Its token endpoint, when it has no metadata
    #[arg(long, value_name = "U")]
    token_url: Option<String>,
    /// How tokens are asked for: authorization_code when left out
    #[arg(long, value_name = "G")]
    grant: Option<String>,
    /// What is asked for
    #[arg(long = "scope", value_name = "S")]
    scopes: Vec<String>,
    /// Authorities that its certificate may come from, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Settings {
    fn given(&self) -> Result<Given, Failure> {
        let ca = self.ca.as_deref().map(super::read_text).transpose()?;
        Ok(Given::new()
            .maybe("auth_method", self.auth_method.as_deref())
            .maybe("dpop", self.dpop.as_deref())
            .maybe("issuer", self.issuer.as_deref())
            .maybe("authorize_url", self.authorize_url.as_deref())
            .maybe("token_url", self.token_url.as_deref())
            .maybe("grant", self.grant.as_deref())
            .list("scopes", &self.scopes)
            .maybe("ca", ca))
    }
}

/// Does what the command says.
pub(super) async fn run(command: Ob, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Ob::Create { name, client_id, settings, or_update } => {
            let mut given = settings.given()?.with("name", name.as_str()).maybe("client_id", client_id).flag("or_update", or_update);
            if settings.client_secret_stdin || has_secret(settings.auth_method.as_deref()) {
                let secret = ask::client_secret(context.report, settings.client_secret_stdin)?;
                given = given.with("client_secret", secret.expose_secret());
            }
            let app = APPS.create(context, given.into_value()).await?;
            context.report.data(&app, || sheet(&app));
            if let Some(command) = registration::of_ob_app(&app, &registration::this_instance(context).await?, None, or_update) {
                context.report.note_as_is(&command);
            }
            context.report.note(&format!("Next: p2pid peer create NAME --url URL --ob {name}"));
        }
        Ob::List => APPS.list(context).await?,
        Ob::Show { name } => {
            let app = APPS.fetch(context, &name).await?;
            context.report.data(&app, || sheet(&app));
        }
        Ob::Jwks { name } => {
            let app = APPS.fetch(context, &name).await?;
            if app["jwks"].is_null() {
                let failure = Failure::new("no_key", format!("the OB app {name} has no key: it does not sign"));
                return Err(failure.next(format!("p2pid ob update {name} --auth-method private_key_jwt")));
            }
            context.report.data(&app["jwks"], || app["jwks"].to_string());
        }
        Ob::RotateKey { name, overlap } => {
            let app = APPS.act(context, &name, "rotate-key", json!({ "overlap": overlap.as_secs() })).await?;
            context.report.data(&app, || sheet(&app));
            let (url, overlap) = (text(&app["jwks_uri"]), humantime::format_duration(overlap));
            context.report.note(&format!(
                "the new key signs in {overlap}. Who looks at {url} finds it there; who was given a file needs the new one until then: p2pid ob \
                 jwks {name}"
            ));
        }
        Ob::Update { name, client_id, settings } => {
            let mut given = settings.given()?.maybe("client_id", client_id);
            if settings.client_secret_stdin {
                let secret = ask::client_secret(context.report, true)?;
                given = given.with("client_secret", secret.expose_secret());
            }
            let app = APPS.update(context, &name, given.into_value()).await?;
            context.report.data(&app, || sheet(&app));
            if settings.auth_method.as_deref() == Some(SIGNS)
                && let Some(command) = registration::of_key(&app, &registration::this_instance(context).await?, None)
            {
                context.report.note_as_is(&command);
            }
        }
        Ob::Delete { name, confirm } => APPS.delete(context, &name, confirm).await?,
    }
    Ok(())
}

/// An app for people; its keys are one line of JSON.
fn sheet(app: &Value) -> String {
    let mut shown = app.clone();
    if !app["jwks"].is_null() {
        shown["jwks"] = app["jwks"].to_string().into();
    }
    APPS.sheet(&shown)
}

/// The OB app of that name.
pub(super) async fn fetch(context: &Context<'_>, name: &str) -> Result<Value, Failure> {
    APPS.fetch(context, name).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_asked_for_where_there_is_one() {
        assert!(has_secret(None) && has_secret(Some("client_secret_post")));
        assert!(!has_secret(Some("private_key_jwt")) && !has_secret(Some("none")));
    }
}
