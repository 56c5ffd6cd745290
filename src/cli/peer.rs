//! `p2pid peer`: the remotes that we call, and how they are linked.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{self, Confirm};
use super::context::Context;
use super::failure::Failure;
use super::ob;
use super::records::{self, Collection, Given, Next, text};
use super::registration;
use super::report::Report;
use super::request;
use crate::oauth::dpop::TOKEN_TYPE;
use crate::secret::ExposeSecret;

/// Peers, as the admin API has them.
pub(super) const PEERS: Collection = Collection {
    kind: "peer",
    name: "peers",
    of_tenant: true,
    columns: &["name", "state", "url", "auth", "ob_app", "reason"],
    none_yet: Next::Here("p2pid peer create NAME --url URL --client-id ID --scope SCOPE"),
};

/// Remotes that this instance calls
#[derive(Debug, Subcommand)]
pub(super) enum Peer {
    /// Make a peer and look whether it answers
    Create {
        /// Its name here, the first part of the relay's paths
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Change the peer when there is one of this name
        #[arg(long)]
        or_update: bool,
    },
    /// List all peers
    List,
    /// Show one: its state and why, its token, who allowed it
    Show {
        /// Which
        name: String,
    },
    /// Change what is given, and nothing else; another URL ends the link
    Update {
        /// Which
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Give a peer another name
    Rename {
        /// Which
        name: String,
        /// Its new name
        new_name: String,
    },
    /// Hold calls back while the peer is being worked on
    Maintenance {
        /// Which
        name: String,
        /// Until when, as in 2026-12-01T06:00:00Z; or off
        #[arg(long, value_name = "T|off", value_parser = until)]
        until: String,
    },
    /// Make a one-time request URL that links this instance with the peer
    Request {
        /// Which
        name: String,
        #[command(flatten)]
        options: request::Options,
    },
    /// Refresh the token now
    Refresh {
        /// Which
        name: String,
    },
    /// Forget the token at once and revoke it at the peer
    Unlink {
        /// Which
        name: String,
        /// Only forget the token here: it is not revoked at the peer, where it stays good until it ends by itself
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Delete a peer; its token is forgotten here and revoked there
    Delete {
        /// Which
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Where a peer is and how we authenticate there.
#[derive(Debug, Default, Args)]
pub(super) struct Settings {
    /// The remote's public_url
    #[arg(long)]
    url: Option<String>,
    /// Where calls go, when it is not what the remote's metadata says
    #[arg(long, value_name = "U")]
    base_url: Option<String>,
    /// An OB app that exists
    #[arg(long, conflicts_with_all = ["client_id", "username"])]
    ob: Option<String>,
    /// The client id that the remote gave us: makes an OB app of the peer's name
    #[arg(long, value_name = "ID", conflicts_with = "username", allow_hyphen_values = true, value_parser = super::client_id)]
    client_id: Option<String>,
    /// How that OB app authenticates there, as in ob create; with private_key_jwt no secret is shared, and the id may be left out
    #[arg(long, value_name = "M", conflicts_with_all = ["ob", "username", "password_stdin"], value_parser = ob::auth_methods())]
    auth_method: Option<String>,
    /// Whether its tokens are bound to a key of ours, as in ob create
    #[arg(long, value_name = "D", conflicts_with_all = ["ob", "username", "password_stdin"], value_parser = ob::DPOP)]
    dpop: Option<String>,
    /// How that OB app asks for tokens: authorization_code (somebody allows it once, in a browser; what a new one does), or client_credentials (it
    /// acts for itself, as the remote's ib create --grant client_credentials allows)
    #[arg(long, value_name = "G", conflicts_with_all = ["ob", "username", "password_stdin"], value_parser = ["authorization_code", "client_credentials"])]
    grant: Option<String>,
    /// Read the client secret from standard input: one line
    #[arg(long, conflicts_with_all = ["ob", "username", "password_stdin"])]
    client_secret_stdin: bool,
    /// What is asked for
    #[arg(long = "scope", value_name = "S", conflicts_with_all = ["ob", "username"])]
    scopes: Vec<String>,
    /// A user name there, instead of OAuth
    #[arg(long, value_name = "U")]
    username: Option<String>,
    /// Read the password from standard input: one line
    #[arg(long)]
    password_stdin: bool,
    /// Authorities that its certificate may come from, PEM; for this peer only
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    ca: Option<PathBuf>,
    /// The fingerprint that its certificate must have, sha256:…
    #[arg(long, value_name = "sha256:…")]
    pin: Option<String>,
}

impl Settings {
    fn given(&self, secrets: &Secrets) -> Result<Given, Failure> {
        let ca = self.ca.as_deref().map(super::read_text).transpose()?;
        let given = Given::new()
            .maybe("url", self.url.as_deref())
            .maybe("base_url", self.base_url.as_deref())
            .maybe("ob", self.ob.as_deref())
            .maybe("client_id", self.client_id.as_deref())
            .maybe("auth_method", self.auth_method.as_deref())
            .maybe("dpop", self.dpop.as_deref())
            .maybe("grant", self.grant.as_deref())
            .list("scopes", &self.scopes)
            .maybe("username", self.username.as_deref())
            .maybe("ca", ca)
            .maybe("pin", self.pin.as_deref());
        Ok(match secrets {
            Secrets::None => given,
            Secrets::ClientSecret(secret) => given.with("client_secret", secret.expose_secret()),
            Secrets::Password(password) => given.with("password", password.expose_secret()),
        })
    }

    /// Asks for the secret that goes with what is given.
    fn secrets(&self, report: &Report) -> Result<Secrets, Failure> {
        let asks = self.client_id.is_some() && ob::has_secret(self.auth_method.as_deref());
        if asks || self.client_secret_stdin {
            ask::client_secret(report, self.client_secret_stdin).map(Secrets::ClientSecret)
        } else if self.username.is_some() || self.password_stdin {
            ask::secret(self.password_stdin, "--password-stdin", "password").map(Secrets::Password)
        } else {
            Ok(Secrets::None)
        }
    }
}

enum Secrets {
    None,
    ClientSecret(crate::secret::SecretString),
    Password(crate::secret::SecretString),
}

/// Does what the command says.
pub(super) async fn run(command: Peer, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Peer::Create { name, settings, or_update } => create(context, &name, &settings, or_update).await?,
        Peer::List => PEERS.list(context).await?,
        Peer::Show { name } => PEERS.show(context, &name).await?,
        Peer::Update { name, settings } => {
            let peer = PEERS.update(context, &name, settings.given(&settings.secrets(context.report)?)?.into_value()).await?;
            records::warn(context, &peer);
            context.report.data(&peer, || PEERS.sheet(&peer));
            if settings.dpop.as_deref() == Some("off") && peer["token"]["type"] == TOKEN_TYPE {
                let app = ob::fetch(context, &text(&peer["ob_app"])).await?;
                context.report.note(&bound_still(&name, app["grant"] == "client_credentials"));
            }
            if settings.auth_method.as_deref() == Some(ob::SIGNS) {
                let app = ob::fetch(context, &text(&peer["ob_app"])).await?;
                if let Some(command) = registration::of_key(&app, &registration::this_instance(context).await?, Some(&name)) {
                    context.report.note_as_is(&command);
                }
            }
        }
        Peer::Rename { name, new_name } => {
            let peer = PEERS.act(context, &name, "rename", json!({ "name": new_name })).await?;
            context.report.data(&peer, String::new);
            context.report.note(&format!("{name} is now {new_name}; local applications call it at /{new_name}/"));
        }
        Peer::Maintenance { name, until } => {
            let peer = PEERS.act(context, &name, "maintenance", json!({ "until": until })).await?;
            context.report.data(&peer, || sentence(&peer));
        }
        Peer::Request { name, options } => request::run(context, &name, &options).await?,
        Peer::Refresh { name } => {
            let peer = PEERS.act(context, &name, "refresh", json!({})).await?;
            context.report.data(&peer, || sentence(&peer));
        }
        Peer::Unlink { name, force, confirm } => {
            PEERS.confirm(context, &name, confirm, &format!("unlink the peer {name}")).await?;
            let peer = PEERS.act(context, &name, "unlink", json!({ "force": force })).await?;
            context.report.note_as_is(&text(&peer["revocation_detail"]));
            context.report.data(&peer, || sentence(&peer));
        }
        Peer::Delete { name, confirm } => {
            let peer = PEERS.fetch(context, &name).await?;
            PEERS.delete(context, &name, confirm).await?;
            if let Some(app) = peer["ob_app"].as_str() {
                context.report.note(&format!("its OB app {app} stays, with its credentials; to delete that too: p2pid ob delete {app}"));
            }
            if !peer["token"].is_null() {
                context
                    .report
                    .note("its token is forgotten here, and is being revoked at the peer; that is tried again while the peer is down");
            }
        }
    }
    Ok(())
}

/// That a token which is bound stays so, and how another is had: renewed it would be bound to the same key (RFC 9449 §5).
fn bound_still(name: &str, is_self_sufficient: bool) -> String {
    let again = if is_self_sufficient { format!("p2pid peer refresh {name}") } else { format!("p2pid peer request {name}") };
    format!("the token that is held stays bound; this holds from the next link on: p2pid peer unlink {name}, then {again}")
}

async fn create(context: &Context<'_>, name: &str, settings: &Settings, or_update: bool) -> Result<(), Failure> {
    if settings.url.is_none() && !or_update {
        return Err(Failure::usage("a peer needs its URL").expected("--url URL, the remote's public_url"));
    }
    let given = settings.given(&settings.secrets(context.report)?)?.with("name", name).flag("or_update", or_update);
    let peer = PEERS.create(context, given.into_value()).await?;
    records::warn(context, &peer);
    context.report.data(&peer, || sentence(&peer));
    if settings.auth_method.is_some() {
        let app = ob::fetch(context, &text(&peer["ob_app"])).await?;
        if let Some(command) = registration::of_ob_app(&app, &registration::this_instance(context).await?, Some(name), or_update) {
            context.report.note_as_is(&command);
        }
    }
    Ok(())
}

/// What a look at the peer or a change brought, then its state and the reason, which names the next step.
fn sentence(peer: &Value) -> String {
    let (probe, state, reason) = (text(&peer["probe"]), text(&peer["state"]), text(&peer["reason"]));
    let probe = if probe.is_empty() { probe } else { format!("{probe}  ") };
    // "linked 2026-…" says its state itself.
    if reason.starts_with(&format!("{state} ")) {
        return format!("{probe}{reason}");
    }
    let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
    format!("{probe}{state}{reason}")
}

/// A time as the API takes it, or `off`.
fn until(given: &str) -> Result<String, String> {
    if given == "off" {
        return Ok(given.to_owned());
    }
    let time = humantime::parse_rfc3339_weak(given).ok();
    let time = time.or_else(|| SystemTime::now().checked_add(humantime::parse_duration(given).ok()?));
    let time = time.filter(|time| *time > SystemTime::now() - Duration::from_secs(60));
    let time = time.ok_or_else(|| "expected a time to come, as in 2026-12-01T06:00:00Z or 2h, or off".to_owned())?;
    Ok(humantime::format_rfc3339_seconds(time).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_attributes() {
        let settings = Settings {
            url: Some("https://two.example.com".into()),
            client_id: Some("5f0c".into()),
            scopes: vec!["p2pi".into()],
            pin: Some("sha256:00".into()),
            ..Settings::default()
        };
        let given = settings.given(&Secrets::ClientSecret("s3cret".into())).expect("no file to read").into_value();
        let expected = json!({
            "url": "https://two.example.com", "client_id": "5f0c", "scopes": ["p2pi"], "pin": "sha256:00", "client_secret": "s3cret",
        });
        assert_eq!(given, expected);
    }

    #[test]
    fn who_wants_no_bound_tokens_is_told_from_when_on() {
        assert!(bound_still("two", false).ends_with("p2pid peer unlink two, then p2pid peer request two"));
        assert!(bound_still("two", true).ends_with("p2pid peer unlink two, then p2pid peer refresh two"));
    }

    #[test]
    fn maintenance_ends_in_the_future() {
        assert_eq!(until("off"), Ok("off".to_owned()));
        assert_eq!(until("2999-01-01T00:00:00Z"), Ok("2999-01-01T00:00:00Z".to_owned()));
        assert!(until("2h").expect("a duration").ends_with('Z'));
        for wrong in ["", "tomorrow", "2001-01-01T00:00:00Z"] {
            assert!(until(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_state_comes_with_its_reason() {
        let peer = json!({ "name": "two", "state": "ready_to_link", "reason": "declined by ops", "probe": "reached two." });
        assert_eq!(sentence(&peer), "reached two.  ready_to_link: declined by ops");
        assert_eq!(sentence(&json!({ "state": "linked", "reason": "linked 2026-11-21" })), "linked 2026-11-21");
    }
}
