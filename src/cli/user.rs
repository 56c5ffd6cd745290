//! `p2pid user`: the people of an instance.

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::ask::{self, Confirm};
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Given, text};
use crate::secret::ExposeSecret;

const USERS: Collection = Collection {
    kind: "user",
    name: "users",
    of_tenant: false,
    columns: &["login", "admin", "permissions", "created_at"],
    none_yet: "p2pid user add LOGIN --admin",
};

/// People who log in, allow links and use the admin API
#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a person; asks for the password
    Add {
        /// An e-mail address or user id, unique in the instance
        login: String,
        /// Read the password from standard input: one line
        #[arg(long)]
        password_stdin: bool,
        /// May do everything, in the instance or (with --tenant) in that tenant
        #[arg(long)]
        admin: bool,
        /// May do this in the tenant, as in links.approve
        #[arg(long = "permission", value_name = "P")]
        permissions: Vec<String>,
        /// Change the person when there is one of this login
        #[arg(long)]
        or_update: bool,
    },
    /// Make a new key for the admin API, shown once; the old one ends
    Key {
        /// Whose
        login: String,
    },
    /// Set a new password
    Passwd {
        /// Whose
        login: String,
        /// Read the password from standard input: one line
        #[arg(long)]
        password_stdin: bool,
    },
    /// Change what a person may do in the tenant
    Update {
        /// Who
        login: String,
        /// May do everything, in the instance or (with --tenant) in that tenant
        #[arg(long, conflicts_with = "no_admin")]
        admin: bool,
        /// May no longer do everything
        #[arg(long)]
        no_admin: bool,
        /// May do this in the tenant; replaces what the person could do there
        #[arg(long = "permission", value_name = "P")]
        permissions: Vec<String>,
    },
    /// List all people
    List,
    /// Remove a person: sessions and keys end at once, grants stay
    Delete {
        /// Who
        login: String,
        /// End what the person allowed, too
        #[arg(long)]
        revoke_grants: bool,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Does what the command says.
pub(super) async fn run(command: User, context: &Context<'_>) -> Result<(), Failure> {
    let tenant = context.given_tenant();
    match command {
        User::Add { login, password_stdin, admin, permissions, or_update } => {
            let password = ask::new_secret(password_stdin, "--password-stdin", "password")?;
            let given = Given::new().with("login", login.as_str()).with("password", password.expose_secret());
            let given = given.flag("admin", admin).list("permissions", &permissions).maybe("tenant", tenant).flag("or_update", or_update);
            let user = USERS.create(context, given.into_value()).await?;
            context.report.data(&user, String::new);
            context.report.note(&format!("{login} can log in now. Next: p2pid ib create NAME --peer-url URL --scope SCOPE"));
        }
        User::Key { login } => {
            let answer = USERS.act(context, &login, "key", json!({})).await?;
            context.report.data(&json!({ "api_key": answer["api_key"] }), || text(&answer["api_key"]));
            context.report.note("shown once; it replaces the key that was there before");
        }
        User::Passwd { login, password_stdin } => {
            let password = ask::new_secret(password_stdin, "--password-stdin", "new password")?;
            let user = USERS.update(context, &login, json!({ "password": password.expose_secret() })).await?;
            context.report.data(&user, String::new);
            context.report.note(&format!("the password of {login} is changed, and all sessions have ended"));
        }
        User::Update { login, admin, no_admin, permissions } => {
            let admin = if admin || no_admin { Some(admin) } else { None };
            let changes = Given::new().maybe("admin", admin).list("permissions", &permissions).into_value();
            if changes.as_object().is_some_and(serde_json::Map::is_empty) {
                return Err(Failure::usage("nothing to change is given").expected("--admin, --no-admin or --permission P"));
            }
            let mut changes = changes;
            if let Some(tenant) = tenant {
                changes["tenant"] = tenant.into();
            }
            let user = USERS.update(context, &login, changes).await?;
            context.report.data(&user, || USERS.sheet(&user));
        }
        User::List => USERS.list(context).await?,
        User::Delete { login, revoke_grants: false, confirm } => USERS.delete(context, &login, confirm).await?,
        User::Delete { login, revoke_grants: true, confirm } => {
            confirm.or_ask(&format!("delete the user {login} and end all links that were allowed by it"))?;
            context.client()?.send(Method::DELETE, &USERS.path(context, &[&login]), "user", json!({ "revoke_grants": true })).await?;
            context.report.data(&json!({ "deleted": login }), String::new);
            context.report.note(&format!("deleted the user {login}; what it allowed has ended"));
        }
    }
    Ok(())
}
