//! `p2pid realm`: IB apps that sign people in, their roles, and who holds which.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{self, Confirm};
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Given, Next, text};
use super::report;
use crate::secret::ExposeSecret;

const REALMS: Collection = Collection {
    kind: "realm",
    name: "realms",
    of_tenant: true,
    columns: &["name", "description", "token_validity", "roles"],
    none_yet: Next::Here("p2pid realm create NAME"),
};

/// Realms: applications that sign people in, by the roles which these hold there
#[derive(Debug, Subcommand)]
pub(super) enum Realm {
    /// Make a realm; its key is shown once
    Create {
        /// Its identification, which is its client id: 1 to 50 letters, digits, '_' and '-'
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Change the realm when there is one of this name
        #[arg(long)]
        or_update: bool,
    },
    /// Change what is given, and nothing else; tokens that exist stay as they are
    #[command(
        mut_arg("key_stdin", |arg| arg.help("Read a new key from standard input: one line; it takes the place of the one before, at once")),
        mut_arg("token_validity", |arg| arg.help("How long its access tokens live"))
    )]
    Update {
        /// Which
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Add a role to a realm, or delete one
    Role {
        /// Which realm
        name: String,
        /// The role
        role: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Change the role when there is one of this name
        #[arg(long)]
        or_update: bool,
        /// Delete it: whoever holds no other role there is signed out
        #[arg(long, conflicts_with_all = ["description", "or_update"])]
        delete: bool,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Give a role to a person
    Assign {
        /// Which realm
        name: String,
        /// The person's login
        user: String,
        /// The role
        role: String,
    },
    /// Take a role from a person, who is signed out when it was the last one there
    Unassign {
        /// Which realm
        name: String,
        /// The person's login
        user: String,
        /// The role
        role: String,
    },
    /// List all realms
    List,
    /// Show one
    Show {
        /// Which
        name: String,
    },
    /// Delete a realm with its roles; whoever is signed in by it is signed out
    Delete {
        /// Which
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// What may be said of a realm.
#[derive(Debug, Default, Args)]
pub(super) struct Settings {
    /// Read the key from standard input: one line; made when left out
    #[arg(long)]
    key_stdin: bool,
    /// How long its access tokens live; 43200 when left out
    #[arg(long, value_name = "SECONDS")]
    token_validity: Option<u64>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Where browsers may be sent back to, for signing in by code
    #[arg(long = "redirect-uri", value_name = "U")]
    redirect_uris: Vec<String>,
}

impl Settings {
    fn given(&self, report: &report::Report) -> Result<Given, Failure> {
        let key = if self.key_stdin { Some(ask::realm_key(report)?) } else { None };
        Ok(Given::new()
            .maybe("key", key.as_ref().map(ExposeSecret::expose_secret))
            .maybe("token_validity", self.token_validity)
            .maybe("description", self.description.as_deref())
            .list("redirect_uris", &self.redirect_uris))
    }
}

/// Does what the command says.
pub(super) async fn run(command: Realm, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Realm::Create { name, settings, or_update } => {
            let given = settings.given(context.report)?.with("name", name.as_str()).flag("or_update", or_update);
            let realm = REALMS.create(context, given.into_value()).await?;
            context.report.data(&realm, || created(&realm));
            context.report.note(&format!("Next: p2pid realm role {name} ROLE, then p2pid realm assign {name} USER ROLE"));
        }
        Realm::Update { name, settings } => {
            let realm = REALMS.update(context, &name, settings.given(context.report)?.into_value()).await?;
            context.report.data(&realm, || sheet(&realm));
        }
        Realm::Role { name, role, delete: true, confirm, .. } => {
            if !confirm.yes && !has_role(&REALMS.fetch(context, &name).await?, &role) {
                let failure = Failure::new("not_found", format!("the realm {name} has no role {role:?}"));
                return Err(failure.next(format!("p2pid realm show {name}")));
            }
            confirm.or_ask(&format!("delete the role {role} of the realm {name} and sign out who holds no other"))?;
            let realm = REALMS.act(context, &name, "delete-role", json!({ "role": role })).await?;
            context.report.data(&realm, || sheet(&realm));
            context.report.note(&format!("deleted the role {role} of {name}"));
        }
        Realm::Role { name, role, description, or_update, .. } => {
            let given = Given::new().with("role", role.as_str()).maybe("description", description).flag("or_update", or_update);
            let realm = REALMS.act(context, &name, "role", given.into_value()).await?;
            context.report.data(&realm, || sheet(&realm));
        }
        Realm::Assign { name, user, role } => {
            let realm = REALMS.act(context, &name, "assign", json!({ "user": user, "role": role })).await?;
            context.report.data(&realm, || sheet(&realm));
        }
        Realm::Unassign { name, user, role } => {
            let realm = REALMS.act(context, &name, "unassign", json!({ "user": user, "role": role })).await?;
            context.report.data(&realm, || sheet(&realm));
        }
        Realm::List => REALMS.list_as(context, &REALMS.path(context, &[]), in_a_row).await?,
        Realm::Show { name } => {
            let realm = REALMS.fetch(context, &name).await?;
            context.report.data(&realm, || sheet(&realm));
        }
        Realm::Delete { name, confirm } => REALMS.delete(context, &name, confirm).await?,
    }
    Ok(())
}

/// A realm whose roles are their names, with how many hold each: who they are, `realm show` tells.
fn in_a_row(mut realm: Value) -> Value {
    let roles = realm["roles"].as_array().into_iter().flatten();
    let roles = roles.map(|role| format!("{} ({})", text(&role["name"]), role["users"].as_array().map_or(0, Vec::len)));
    realm["roles"] = roles.collect::<Vec<_>>().join(", ").into();
    realm
}

fn has_role(realm: &Value, role: &str) -> bool {
    realm["roles"].as_array().is_some_and(|roles| roles.iter().any(|held| held["name"] == role))
}

fn created(realm: &Value) -> String {
    let key = text(&realm["key"]);
    let key = if key.is_empty() { String::new() } else { format!("   key {key} (shown once)") };
    format!("realm {}{key}", text(&realm["name"]))
}

/// A realm for people, with a line for each role.
fn sheet(realm: &Value) -> String {
    let mut entries: Vec<(&str, String)> =
        ["name", "description", "token_validity", "redirect_uris", "scopes", "tenant", "id", "created_at"]
            .map(|name| (name, text(&realm[name])))
            .into();
    for role in realm["roles"].as_array().into_iter().flatten() {
        let users = role["users"].as_array().map(Vec::as_slice).unwrap_or_default();
        let users = if users.is_empty() { "nobody".to_owned() } else { users.iter().map(text).collect::<Vec<_>>().join(", ") };
        entries.push(("role", format!("{}: {users}", text(&role["name"]))));
    }
    report::sheet(&entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_is_shown_with_who_holds_which_role() {
        let roles = json!([{ "name": "ROLE_TEST", "description": "", "users": ["alice", "bob"] }, { "name": "ROLE_NEW", "users": [] }]);
        let realm = json!({ "name": "TestRealm", "token_validity": 43200, "roles": roles });
        let text = sheet(&realm);
        assert!(text.contains("TestRealm") && text.contains("43200"), "{text}");
        assert!(text.contains("ROLE_TEST: alice, bob\n") && text.contains("ROLE_NEW: nobody\n"), "{text}");
        assert_eq!(in_a_row(realm.clone())["roles"], "ROLE_TEST (2), ROLE_NEW (0)");
        assert!(has_role(&realm, "ROLE_NEW") && !has_role(&realm, "ROLE"));
        assert_eq!(created(&json!({ "name": "TestRealm", "key": "k3y" })), "realm TestRealm   key k3y (shown once)");
        assert_eq!(created(&realm), "realm TestRealm");
    }
}
