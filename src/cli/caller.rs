//! `p2pid caller`: local applications that may use the relay.

use std::net::SocketAddr;

use clap::Subcommand;
use serde_json::{Value, json};

use super::ask::Confirm;
use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Given, Next, text};

const CALLERS: Collection = Collection {
    kind: "caller",
    name: "callers",
    of_tenant: true,
    columns: &["name", "peers"],
    none_yet: Next::Here("p2pid caller add NAME --peer PEER"),
};

/// Local applications that may call peers through the relay
#[derive(Debug, Subcommand)]
pub(super) enum Caller {
    /// Add an application; its key is shown once
    Add {
        /// Its name
        name: String,
        /// A peer that it may call; every peer of the tenant when left out
        #[arg(long = "peer", value_name = "P")]
        peers: Vec<String>,
        /// Change the caller when there is one of this name
        #[arg(long)]
        or_update: bool,
    },
    /// List all applications
    List,
    /// Make a new key, shown once; the old one ends at once
    Rotate {
        /// Whose
        name: String,
    },
    /// Remove an application; its key ends at once
    Delete {
        /// Which
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// Does what the command says.
pub(super) async fn run(command: Caller, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Caller::Add { name, peers, or_update } => {
            let given = Given::new().with("name", name).list("peers", &peers).flag("or_update", or_update);
            shown(context, &CALLERS.create(context, given.into_value()).await?).await?;
        }
        Caller::List => {
            let everybody = |mut caller: Value| {
                if caller["peers"].is_null() {
                    caller["peers"] = "all".into();
                }
                caller
            };
            CALLERS.list_as(context, &CALLERS.path(context, &[]), everybody).await?;
        }
        Caller::Rotate { name } => shown(context, &CALLERS.act(context, &name, "rotate", json!({})).await?).await?,
        Caller::Delete { name, confirm } => CALLERS.delete(context, &name, confirm).await?,
    }
    Ok(())
}

async fn shown(context: &Context<'_>, caller: &Value) -> Result<(), Failure> {
    context.report.data(caller, || text(&caller["key"]));
    if !caller["key"].is_null() && !context.report.is_json() {
        let status = context.client()?.fetch("/v2/status").await?;
        let relay = relay(&status["attributes"]);
        context.report.note(&format!("shown once. The application sends it as \"Authorization: Bearer KEY\" to the relay: {relay}"));
    }
    Ok(())
}

/// Where the relay really listens; a Unix socket when there is nothing else.
fn relay(status: &Value) -> String {
    let local = status["listeners"].as_array().into_iter().flatten().filter(|listener| listener["name"] == "local");
    let addresses: Vec<String> = local.map(|listener| text(&listener["address"])).collect();
    match addresses.iter().find(|address| address.parse::<SocketAddr>().is_ok()).or_else(|| addresses.first()) {
        Some(address) if address.parse::<SocketAddr>().is_ok() => format!("http://{address}/PEER/PATH"),
        Some(socket) => format!("/PEER/PATH at {socket}"),
        None => "no [local] listener is configured".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_is_where_it_listens() {
        let status = |addresses: &[&str]| {
            let listeners = addresses.iter().map(|address| json!({ "name": "local", "address": address }));
            json!({ "listeners": std::iter::once(json!({ "name": "public", "address": "[::]:7443" })).chain(listeners).collect::<Vec<_>>() })
        };
        for (addresses, expected) in [
            (&["unix:/run/local.sock", "127.0.0.1:7580"][..], "http://127.0.0.1:7580/PEER/PATH"),
            (&["unix:/run/local.sock"], "/PEER/PATH at unix:/run/local.sock"),
            (&[], "no [local] listener is configured"),
        ] {
            assert_eq!(relay(&status(addresses)), expected);
        }
    }
}
