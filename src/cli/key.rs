//! `p2pid key`: the state keys that secrets at rest are sealed with.

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::context::Context;
use super::failure::Failure;
use super::records::{Collection, Next, text};

const KEYS: Collection = Collection {
    kind: "key",
    name: "keys",
    of_tenant: false,
    columns: &["id", "seals", "sealed", "hashed", "passing"],
    none_yet: Next::Here("p2pid key add"),
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
            context.report.note(ADDED);
        }
        Key::Rotate => {
            let path = KEYS.path(context, &["rotate"]);
            let mut record = context.client()?.send(Method::POST, &path, KEYS.kind, json!({})).await?;
            let rotation = record["attributes"].take();
            context.report.data(&rotation, || context.report.spelled(&summary(&rotation)));
            context.report.note(&rotated(&rotation));
        }
    }
    Ok(())
}

/// What is to be done with a key that was added.
const ADDED: &str = "the key is the last line of the key list now, which is the file `key` in the state folder: copy that again. It seals nothing until \
    its line is the first and the daemon was started again; p2pid key rotate makes a key of its own";

/// What is to be done with the key list after a rotation.
fn rotated(rotation: &Value) -> String {
    // Where the service manager hands the list over, the operator has put the key there, from a copy.
    let copy = match rotation["added"].is_null() {
        false => {
            "copy the key list again now, the file `key` in the state folder: without its new first line nobody opens the database, nor a backup \
                  made from here on. "
        }
        true => "",
    };
    format!(
        "{copy}Backups made before open only with the older lines: keep a copy of those for as long as you keep the backups, also when they are taken \
         out of the key list"
    )
}

fn summary(rotation: &Value) -> String {
    let keys = rotation["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let old: Vec<_> = keys.iter().filter(|key| key["seals"] == false).collect();
    let hanging = |key: &&&Value| ["sealed", "hashed", "passing"].iter().any(|kind| key[*kind].as_i64() != Some(0));
    let waiting: Vec<_> = old.iter().filter(hanging).map(|key| text(&key["id"])).collect();
    let next = if waiting.is_empty() {
        "nothing in the database hangs on the old keys any more".to_owned()
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
        assert!(text.contains("nothing in the database hangs on the old keys"), "{text}");
        for (added, copies) in [(json!("new"), true), (Value::Null, false)] {
            let told = rotated(&json!({ "added": added }));
            assert_eq!(told.starts_with("copy the key list again now"), copies, "{told}");
            assert!(told.contains("open only with the older lines: keep a copy"), "{told}");
        }
    }
}
