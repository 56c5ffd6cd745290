//! `p2pid key`: the state keys that secrets at rest are sealed with.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, text};

const KEYS: Collection = Collection {
    kind: "key",
    name: "keys",
    of_tenant: false,
    columns: &["id", "seals", "sealed", "hashed", "passing"],
    none_yet: "p2pid key add",
};

/// State keys, by which secrets at rest are sealed
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// List the keys and what hangs on each
    List,
    /// Add a key; it opens, but seals nothing yet
    Add,
    /// Make a new key the one that seals, and seal everything again with it
    Rotate,
}

/// Does what the command says.
pub(super) async fn run(command: Key, context: &Context<'_>) -> Result<(), Failure> {
    match command {
        Key::List => KEYS.list(context).await?,
        Key::Add => {
            let key = KEYS.create(context, json!({})).await?;
            context.report.data(&key, || text(&key["id"]));
            context.report.note("the key is in the list now. Back up the key list before you rotate: p2pid key rotate");
        }
        Key::Rotate => {
            let path = KEYS.path(context, &["rotate"]);
            let mut record = context.client()?.send(Method::POST, &path, KEYS.kind, json!({})).await?;
            let rotation = record["attributes"].take();
            context.report.data(&rotation, || summary(&rotation));
        }
    }
    Ok(())
}

fn summary(rotation: &Value) -> String {
    let keys = rotation["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let old: Vec<_> = keys.iter().filter(|key| key["seals"] == false).collect();
    let hanging = |key: &&&Value| ["sealed", "hashed", "passing"].iter().any(|kind| key[*kind].as_i64() != Some(0));
    let waiting: Vec<_> = old.iter().filter(hanging).map(|key| text(&key["id"])).collect();
    let next = if waiting.is_empty() {
        "nothing hangs on the old keys: they can be taken out of the key list".to_owned()
    } else {
        format!("keep {} in the key list: some secrets are redone at their next use; see p2pid key list", waiting.join(" and "))
    };
    format!("sealed again: {} secrets; {next}", text(&rotation["resealed"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_says_which_keys_must_stay() {
        let key = |id: &str, seals: bool, hashed: i64| json!({ "id": id, "seals": seals, "sealed": 0, "hashed": hashed, "passing": 0 });
        let text = summary(&json!({ "resealed": 3, "keys": [key("new", true, 0), key("old", false, 1), key("older", false, 0)] }));
        assert!(text.starts_with("sealed again: 3 secrets; keep old in the key list"), "{text}");
        let text = summary(&json!({ "resealed": 0, "keys": [key("new", true, 5)] }));
        assert!(text.contains("nothing hangs"), "{text}");
    }
}
