//! `p2pid tenant`: administrative partitions of an instance.

use clap::Subcommand;
use serde_json::json;

use super::ask::Confirm;
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Next};

const TENANTS: Collection = Collection {
    kind: "tenant",
    name: "tenants",
    of_tenant: false,
    columns: &["name", "created_at"],
    none_yet: Next::Here("p2pid tenant create NAME"),
};

/// Owners of apps and peers inside the instance
#[derive(Debug, Subcommand)]
pub(super) enum Tenant {
    /// Make a tenant
    Create {
        /// Its name, which is also its id
        name: String,
    },
    /// List all tenants
    List,
    /// Show one
    Show {
        /// Which
        name: String,
    },
    /// Delete one that owns nothing any more
    Delete {
        /// Which
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Does what the command says.
pub(super) async fn run(command: Tenant, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Tenant::Create { name } => {
            let tenant = TENANTS.create(context, json!({ "name": name })).await?;
            context.report.data(&tenant, String::new);
            context.report.note(&format!("made the tenant {name}. Next: p2pid --tenant {name} user add LOGIN --admin"));
        }
        Tenant::List => TENANTS.list(context).await?,
        Tenant::Show { name } => TENANTS.show(context, &name).await?,
        Tenant::Delete { name, confirm } => TENANTS.delete(context, &name, confirm).await?,
    }
    Ok(())
}
