//! `p2pid user`: the people of an instance.

use std::time::Duration;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::ask::{self, Confirm};
use super::client::path;
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Given, Next, text};
use crate::secret::ExposeSecret;

const USERS: Collection = Collection {
    kind: "user",
    name: "users",
    of_tenant: false,
    columns: &["login", "admin", "permissions", "roles", "api_keys", "created_at"],
    none_yet: Next::Here("p2pid user add LOGIN --admin"),
};

const KEY_COLUMNS: &[&str] = &["name", "permissions", "created_at", "expires_at", "last_used_at"];

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
        /// Holds this role in the tenant
        #[arg(long = "role", value_name = "R")]
        roles: Vec<String>,
        /// Change the person when there is one of this login
        #[arg(long)]
        or_update: bool,
    },
    /// Make a key for the admin API, shown once; the others stay
    Key {
        /// Whose
        login: String,
        /// The key's name, by which it is listed and revoked
        #[arg(long)]
        name: Option<String>,
        /// How long it works, as in 90d; without it until it is revoked
        #[arg(long, value_name = "D", value_parser = super::duration)]
        expires: Option<Duration>,
        /// No more than this of what the person may do
        #[arg(long = "permission", value_name = "P")]
        permissions: Vec<String>,
    },
    /// List a person's keys for the admin API
    Keys {
        /// Whose
        login: String,
    },
    /// Revoke a key: it is refused from the next request on
    KeyRevoke {
        /// Whose
        login: String,
        /// The key's name
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Set a new password: all sessions and realm tokens end
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
        /// May do this in the tenant; replaces the permissions that were given there, and leaves roles
        #[arg(long = "permission", value_name = "P")]
        permissions: Vec<String>,
        /// Loses this permission in the tenant
        #[arg(long = "no-permission", value_name = "P")]
        remove_permissions: Vec<String>,
        /// Holds this role in the tenant, besides others
        #[arg(long = "role", value_name = "R")]
        add_roles: Vec<String>,
        /// No longer holds this role in the tenant
        #[arg(long = "no-role", value_name = "R")]
        remove_roles: Vec<String>,
    },
    /// List all people
    List,
    /// Show one
    Show {
        /// Who
        login: String,
    },
    /// Remove a person: sessions, keys and realm tokens end at once, grants stay
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

/// What a person may do, as far as the next step is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    /// Nothing but signing in to realms.
    None,
    /// Something, but allowing links.
    Some,
    /// Allowing links, at least in one tenant.
    Links,
}

fn rights(user: &Value) -> Rights {
    let held = [&user["permissions"], &user["roles"]].map(text).concat();
    let mut words = held.split(|character: char| !(character.is_alphanumeric() || character == '.'));
    match user["admin"] == true || words.any(|word| matches!(word, "admin" | "links.approve")) {
        true => Rights::Links,
        false if held.is_empty() => Rights::None,
        false => Rights::Some,
    }
}

/// What a person can do now, and the next step.
fn welcome(user: &Value) -> String {
    let login = text(&user["login"]);
    match rights(user) {
        Rights::Links => format!("{login} can log in now, and allow links. Next: p2pid ib create NAME --peer-url URL --scope SCOPE"),
        Rights::None => format!(
            "{login} can log in now, and has no rights: nothing but signing in to realms. Next: p2pid realm assign REALM {login} ROLE, or p2pid user update \
             {login} --permission P"
        ),
        Rights::Some => format!("{login} can log in now. For the admin API: p2pid user key {login}"),
    }
}

/// Does what the command says.
pub(super) async fn run(command: User, context: &Context<'_>) -> Result<(), Failure> {
    let tenant = context.given_tenant();
    match command {
        User::Add { login, password_stdin, admin, permissions, roles, or_update } => {
            let password = ask::new_secret(password_stdin, "--password-stdin", "password")?;
            let given = Given::new().with("login", login.as_str()).with("password", password.expose_secret());
            let given = given.flag("admin", admin).list("permissions", &permissions).list("roles", &roles);
            let given = given.maybe("tenant", tenant).flag("or_update", or_update);
            let user = USERS.create(context, given.into_value()).await?;
            context.report.data(&user, String::new);
            context.report.note(&welcome(&user));
        }
        User::Key { login, name, expires, permissions } => {
            // A fraction of a second is none that anybody means.
            let seconds = expires.map(|life| life.as_secs());
            let given = Given::new().maybe("name", name).maybe("expires_in", seconds).list("permissions", &permissions);
            let key = USERS.act(context, &login, "key", given.into_value()).await?;
            context.report.data(&json!({ "api_key": key["api_key"] }), || text(&key["api_key"]));
            let name = text(&key["name"]);
            context.report.note(&format!("shown once; it is called {name}. To revoke it: p2pid user key-revoke {login} {name}"));
            if rights(&USERS.fetch(context, &login).await?) == Rights::None {
                context.report.warn(&format!(
                    "{login} has no rights, so this key opens nothing yet. To give some: p2pid user update {login} --permission P, or --role R"
                ));
            }
        }
        User::Keys { login } => {
            let keys = Collection { name: "keys", columns: KEY_COLUMNS, none_yet: Next::Here("p2pid user key LOGIN"), ..USERS };
            keys.list_at(context, &USERS.path(context, &[&login, "keys"])).await?;
        }
        User::KeyRevoke { login, name, confirm } => {
            if !confirm.yes {
                let (keys, _) = context.client()?.page(&USERS.path(context, &[&login, "keys"])).await?;
                if !keys.iter().any(|key| key["attributes"]["name"] == name.as_str()) {
                    let failure = Failure::new("not_found", format!("{login} has no key {name:?}"));
                    return Err(failure.next(format!("p2pid user keys {login}")));
                }
            }
            confirm.or_ask(&format!("revoke the key {name} of {login}"))?;
            context.client()?.delete(&USERS.path(context, &[&login, "keys", &name])).await?;
            context.report.data(&json!({ "deleted": name }), String::new);
            context.report.note(&format!("the key {name} of {login} is revoked"));
        }
        User::Passwd { login, password_stdin } => {
            let password = ask::new_secret(password_stdin, "--password-stdin", "new password")?;
            let user = USERS.update(context, &login, json!({ "password": password.expose_secret() })).await?;
            context.report.data(&user, String::new);
            context.report.note(&format!("the password of {login} is changed, and all sessions and realm tokens have ended"));
        }
        User::Update { login, admin, no_admin, permissions, remove_permissions, add_roles, remove_roles } => {
            let admin = if admin || no_admin { Some(admin) } else { None };
            let changes = Given::new().maybe("admin", admin).list("permissions", &permissions);
            let changes = changes.list("remove_permissions", &remove_permissions);
            let changes = changes.list("add_roles", &add_roles).list("remove_roles", &remove_roles).into_value();
            if changes.as_object().is_some_and(serde_json::Map::is_empty) {
                return Err(Failure::usage("nothing to change is given")
                    .expected("--admin, --permission P, --role R, or one of --no-admin, --no-permission P, --no-role R"));
            }
            let mut changes = changes;
            if let Some(tenant) = tenant {
                changes["tenant"] = tenant.into();
            }
            let user = USERS.update(context, &login, changes).await?;
            context.report.data(&user, || USERS.sheet(&user));
        }
        User::List => USERS.list(context).await?,
        User::Show { login } => USERS.show(context, &login).await?,
        User::Delete { login, revoke_grants: false, confirm } => {
            let allowed = allowed_by(context, &login).await;
            USERS.delete(context, &login, confirm).await?;
            if goes_on(context, &allowed).await {
                context
                    .report
                    .note("What it had allowed goes on, as of \"(deleted)\": p2pid grant list; each is ended by p2pid grant revoke ID.");
            }
        }
        User::Delete { login, revoke_grants: true, confirm } => {
            let what = format!("delete the user {login} and end all links that were allowed by it");
            USERS.confirm(context, &login, confirm, &what).await?;
            context.client()?.send(Method::DELETE, &USERS.path(context, &[&login]), "user", json!({ "revoke_grants": true })).await?;
            context.report.data(&json!({ "deleted": login }), String::new);
            context.report.note(&format!("deleted the user {login}; what it allowed has ended"));
        }
    }
    Ok(())
}

/// The paths of what the person has allowed, in any tenant. What cannot be read is left out: nothing but a hint rests on it.
async fn allowed_by(context: &Context<'_>, login: &str) -> Vec<String> {
    let Ok(client) = context.client() else { return Vec::new() };
    let Ok((tenants, _)) = client.page(&path(&["tenants"])).await else { return Vec::new() };
    let mut found = Vec::new();
    for tenant in tenants.iter().map(|tenant| text(&tenant["id"])) {
        let grants = path(&["tenants", &tenant, "grants"]);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("allowed_by", login);
        if let Ok((grants_there, _)) = client.page(&format!("{grants}?{}", query.finish())).await {
            found.extend(grants_there.iter().map(|grant| path(&["tenants", &tenant, "grants", &text(&grant["id"])])));
        }
    }
    found
}

/// Whether any of these grants has not ended, as those of realms end with the person.
async fn goes_on(context: &Context<'_>, grants: &[String]) -> bool {
    let Ok(client) = context.client() else { return false };
    for grant in grants {
        if client.fetch(grant).await.is_ok_and(|grant| grant["attributes"]["ended_at"].is_null()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_rights_is_told_so() {
        let user = |admin: bool, permissions: Value, roles: Value| json!({ "admin": admin, "permissions": permissions, "roles": roles });
        for (user, expected) in [
            (user(false, json!({}), json!({})), Rights::None),
            (user(false, json!({ "default": ["peers.get"] }), json!({})), Rights::Some),
            (user(false, json!({}), json!({ "default": ["operator"] })), Rights::Some),
            (user(false, json!({ "default": ["links.approve"] }), json!({})), Rights::Links),
            (user(true, json!({}), json!({})), Rights::Links),
        ] {
            assert_eq!(rights(&user), expected, "{user}");
        }
    }
}
