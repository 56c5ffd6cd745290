//! `p2pid role`: names for sets of permissions.

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::ask::Confirm;
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Given, Next};

const OF_TENANT: Collection = Collection {
    kind: "role",
    name: "roles",
    of_tenant: true,
    columns: &["name", "tenant", "permissions", "held_by"],
    none_yet: Next::Here("p2pid role create NAME --permission P"),
};

const OF_INSTANCE: Collection =
    Collection { of_tenant: false, none_yet: Next::Here("p2pid role create NAME --permission P --global"), ..OF_TENANT };

/// Names for sets of permissions, which people hold in a tenant
#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// Make a role
    Create {
        /// Its name
        name: String,
        /// Whoever holds it may do this in the tenant, as in peers.get
        #[arg(long = "permission", value_name = "P")]
        permissions: Vec<String>,
        /// Make it for the whole instance, to be held in any tenant
        #[arg(long)]
        global: bool,
        /// Change the role when there is one of this name
        #[arg(long)]
        or_update: bool,
    },
    /// Change a role; it counts from the next request of whoever holds it
    Update {
        /// Which
        name: String,
        /// Another name
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        /// What it allows, in place of what it allowed before
        #[arg(long = "permission", value_name = "P")]
        permissions: Vec<String>,
        /// What it allows besides
        #[arg(long = "add-permission", value_name = "P")]
        add_permissions: Vec<String>,
        /// What it allows no more
        #[arg(long = "no-permission", value_name = "P")]
        remove_permissions: Vec<String>,
        /// One of the instance's roles
        #[arg(long)]
        global: bool,
    },
    /// List the roles that can be held in the tenant: its own and the instance's
    List {
        /// The instance's roles alone
        #[arg(long)]
        global: bool,
    },
    /// Show one, and who holds it in the tenant
    Show {
        /// Which
        name: String,
        /// One of the instance's roles, and who holds it anywhere
        #[arg(long)]
        global: bool,
    },
    /// Delete a role that nobody holds
    Delete {
        /// Which
        name: String,
        /// Take it from those who hold it
        #[arg(long)]
        force: bool,
        /// One of the instance's roles
        #[arg(long)]
        global: bool,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Does what the command says.
pub(super) async fn run(command: Role, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Role::Create { name, permissions, global, or_update } => {
            let roles = collection(context, global)?;
            let given = Given::new().with("name", name.as_str()).list("permissions", &permissions).flag("or_update", or_update);
            let role = roles.create(context, given.into_value()).await?;
            context.report.data(&role, || roles.sheet(&role));
            context.report.note(&format!("Next: p2pid user update LOGIN --role {name}"));
        }
        Role::Update { name, rename, permissions, add_permissions, remove_permissions, global } => {
            let roles = collection(context, global)?;
            let given = Given::new().maybe("name", rename).list("permissions", &permissions);
            let given = given.list("add_permissions", &add_permissions).list("remove_permissions", &remove_permissions);
            let role = roles.update(context, &name, given.into_value()).await?;
            context.report.data(&role, || roles.sheet(&role));
        }
        Role::List { global } => collection(context, global)?.list(context).await?,
        Role::Show { name, global } => collection(context, global)?.show(context, &name).await?,
        Role::Delete { name, force: false, global, confirm } => collection(context, global)?.delete(context, &name, confirm).await?,
        Role::Delete { name, force: true, global, confirm } => {
            let roles = collection(context, global)?;
            roles.confirm(context, &name, confirm, &format!("delete the role {name} and take it from all who hold it")).await?;
            context.client()?.send(Method::DELETE, &roles.path(context, &[&name]), roles.kind, json!({ "force": true })).await?;
            context.report.data(&json!({ "deleted": name }), String::new);
            context.report.note(&format!("deleted the role {name}; nobody holds it any more"));
        }
    }
    Ok(())
}

fn collection(context: &Context<'_>, global: bool) -> Result<Collection, Failure> {
    match (global, context.given_tenant()) {
        (false, _) => Ok(OF_TENANT),
        (true, None) => Ok(OF_INSTANCE),
        (true, Some(tenant)) => Err(Failure::usage("a role is a tenant's or the instance's")
            .found(format!("--global and --tenant {tenant}"))
            .expected("one of them")),
    }
}
