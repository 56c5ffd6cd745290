//! `p2pid ob`: outbound client apps, the credentials that we hold at somebody else.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ask::{self, Confirm};
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Given};
use crate::secret::ExposeSecret;

const APPS: Collection = Collection {
    kind: "ob-app",
    name: "ob-apps",
    of_tenant: true,
    columns: &["name", "client_id", "grant", "scopes", "authorize_url", "token_url"],
    none_yet: "p2pid peer create NAME --url URL --client-id ID, which makes one itself",
};

/// Credentials that this instance holds at others, for several peers or a foreign server
#[derive(Debug, Subcommand)]
pub(super) enum Ob {
    /// Keep credentials that somebody gave us; asks for the secret
    Create {
        /// Its name here
        name: String,
        /// The client id that the other side gave us
        #[arg(long, value_name = "ID", required = true, allow_hyphen_values = true, value_parser = super::client_id)]
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
    /// Change what is given, and nothing else
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
            let given = settings.given()?.with("name", name.as_str()).maybe("client_id", client_id).flag("or_update", or_update);
            let secret = ask::client_secret(context.report, settings.client_secret_stdin)?;
            let app = APPS.create(context, given.with("client_secret", secret.expose_secret()).into_value()).await?;
            context.report.data(&app, || APPS.sheet(&app));
            context.report.note(&format!("Next: p2pid peer create NAME --url URL --ob {name}"));
        }
        Ob::List => APPS.list(context).await?,
        Ob::Show { name } => APPS.show(context, &name).await?,
        Ob::Update { name, client_id, settings } => {
            let mut given = settings.given()?.maybe("client_id", client_id);
            if settings.client_secret_stdin {
                let secret = ask::client_secret(context.report, true)?;
                given = given.with("client_secret", secret.expose_secret());
            }
            let app = APPS.update(context, &name, given.into_value()).await?;
            context.report.data(&app, || APPS.sheet(&app));
        }
        Ob::Delete { name, confirm } => APPS.delete(context, &name, confirm).await?,
    }
    Ok(())
}
