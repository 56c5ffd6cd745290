//! `p2pid grant`: what peers hold at us.

use clap::Subcommand;
use serde_json::{Value, json};

use super::ask::Confirm;
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Next, text};

const GRANTS: Collection = Collection {
    kind: "grant",
    name: "grants",
    of_tenant: true,
    columns: &["id", "app", "scope", "allowed_by", "made_by", "last_used_at"],
    none_yet: Next::Elsewhere(
        "p2pid peer request NAME --wait. Apps that act for themselves (client_credentials) hold no grant: p2pid ib list",
    ),
};

/// With what has ended, which needs to say so.
const ALL: Collection =
    Collection { columns: &["id", "app", "scope", "allowed_by", "made_by", "last_used_at", "ended_at", "ended_why", "ended_by"], ..GRANTS };

/// What peers and realms hold at this instance
#[derive(Debug, Subcommand)]
pub(super) enum Grant {
    /// List what peers hold now: app, scope, who allowed it, last used
    List {
        /// Also what has ended in the last 30 days: when, why, and by whom
        #[arg(long)]
        all: bool,
        /// Only of the IB app with this name or client id
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
        /// Only what this person allowed
        #[arg(long, value_name = "LOGIN")]
        allowed_by: Option<String>,
    },
    /// Show one
    Show {
        /// Its id
        id: String,
    },
    /// End one: its tokens fail at the next call
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Does what the command says.
pub(super) async fn run(command: Grant, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Grant::List { all, app, allowed_by } => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(all.then_some(("all", "true")));
            query.extend_pairs(app.map(|app| ("app", app)));
            query.extend_pairs(allowed_by.map(|login| ("allowed_by", login)));
            let collection = if all { ALL } else { GRANTS };
            collection.list_where(context, &query.finish()).await?;
        }
        Grant::Show { id } => GRANTS.show(context, &id).await?,
        Grant::Revoke { id, confirm } => {
            let before = GRANTS.fetch(context, &id).await?;
            if let Some(ended) = ended_before(&before) {
                context.report.data(&json!({ "revoked": id, "ended_before": before["ended_at"] }), String::new);
                context.report.note(&ended);
                return Ok(());
            }
            confirm.or_ask(&format!("revoke the grant {id}, by which {} calls us", text(&before["app"])))?;
            context.client()?.delete(&GRANTS.path(context, &[&id])).await?;
            context.report.data(&json!({ "revoked": id, "ended_before": null }), String::new);
            context.report.note(&format!("revoked {id}: its tokens are refused from now on"));
        }
    }
    Ok(())
}

/// When, why and by whom the grant was ended, where there is nothing to revoke any more.
fn ended_before(grant: &Value) -> Option<String> {
    let at = grant["ended_at"].as_str()?;
    let (id, why) = (text(&grant["id"]), text(&grant["ended_why"]).replace('_', " "));
    let by = grant["ended_by"].as_str().map(|who| format!(", by {who}")).unwrap_or_default();
    Some(format!("{id} had ended before, {at}: {why}{by}. Nothing was changed; its tokens have been refused since"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_that_has_ended_says_when_and_why() {
        assert_eq!(ended_before(&json!({ "id": "7a", "ended_at": null, "ended_why": null, "ended_by": null })), None);
        let said = ended_before(&json!({
            "id": "7a", "ended_at": "2026-11-21T12:00:00Z", "ended_why": "revoked_by_admin", "ended_by": "uid 0",
        }));
        let expected = "7a had ended before, 2026-11-21T12:00:00Z: revoked by admin, by uid 0. Nothing was changed; its tokens have been refused since";
        assert_eq!(said.as_deref(), Some(expected));
    }
}
