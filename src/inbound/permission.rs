//! Permissions: what there is to be allowed, and what somebody may do all in all.

use std::collections::{BTreeMap, BTreeSet};

/// Holds every permission in its tenant.
pub const ADMIN: &str = "admin";

/// May allow links to the tenant's IB apps.
pub const APPROVE_LINKS: &str = "links.approve";

/// May send calls through a link of the tenant.
pub const CALL_PEERS: &str = "peers.call";

/// Permissions without a record.
const SINGLE: [&str; 3] = [ADMIN, APPROVE_LINKS, CALL_PEERS];

/// What may be done with most records. `read_secret` is needed, besides `edit`, to give a record that was there before another secret or key to
/// log in with here, or have one made, since whoever does so can log in with it; and to see a secret that can be shown again. What an OB app
/// shows at another server is given with `edit` alone: it is known already to who gives it, and opens nothing here.
const ALL: &[&str] = &["get", "create", "edit", "delete", "read_secret"];

/// Of records that hold no secret, or none that opens anything here.
const WITHOUT_SECRET: &[&str] = &["get", "create", "edit", "delete"];

/// Records that permissions are about, and what may be done with them; OB apps have two names.
const RECORDS: [(&str, &[&str]); 9] = [
    ("tenants.oauth_clients", ALL),
    ("ib_apps", ALL),
    ("ob_apps", ALL),
    // Nothing here serves them: it is taken so that rights can be kept the same as on a platform that has components.
    ("components", ALL),
    // A peer's secret is its OB app's; the right is taken as platforms name it, like those to components.
    ("peers", ALL),
    ("realms", ALL),
    ("callers", ALL),
    ("roles", WITHOUT_SECRET),
    // They are made on the consent page.
    ("grants", &["get", "delete"]),
];

/// There is no such permission.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found the permission {0:?}, expected {list}", list = in_words())]
pub struct NoSuchPermission(pub String);

/// Checks the name of a permission that is given to somebody: what nothing asks for would grant nothing, and hide a slip of the pen.
///
/// # Errors
/// There is none of that name.
pub fn check(permission: &str) -> Result<(), NoSuchPermission> {
    if all().any(|known| known == permission) { Ok(()) } else { Err(NoSuchPermission(permission.to_owned())) }
}

/// Every permission that there is.
pub fn all() -> impl Iterator<Item = String> {
    let of_records = RECORDS.iter().flat_map(|(record, verbs)| verbs.iter().map(move |verb| format!("{record}.{verb}")));
    SINGLE.iter().map(|single| (*single).to_owned()).chain(of_records)
}

/// All permissions in one line, for people.
pub fn in_words() -> String {
    let with_all: Vec<_> = RECORDS.iter().filter(|(_, verbs)| *verbs == ALL).map(|(record, _)| *record).collect();
    let others = RECORDS.iter().filter(|(_, verbs)| *verbs != ALL);
    let others: Vec<_> = others.map(|(record, verbs)| format!("{record} with .{}", verbs.join(", ."))).collect();
    format!("{}; one of {} with .{}; {}", SINGLE.join(", "), with_all.join(", "), ALL.join(", ."), others.join("; "))
}

/// What somebody may do, all in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Everything, in the whole instance.
    pub is_admin: bool,
    /// By tenant, from roles and given directly. A tenant that is not here does not exist for them.
    pub by_tenant: BTreeMap<String, BTreeSet<String>>,
    /// No more than these of it, as the key says that was used; [`ADMIN`] among them takes nothing away.
    pub only: Option<BTreeSet<String>>,
}

impl Rights {
    /// Whether they have anything to do with `tenant`.
    pub fn know(&self, tenant: &str) -> bool {
        self.is_admin || self.by_tenant.contains_key(tenant)
    }

    /// Whether they hold `permission` in `tenant`.
    pub fn hold(&self, tenant: &str, permission: &str) -> bool {
        let is_within = |held: &BTreeSet<String>| are_enough(held, permission);
        (self.is_admin || self.by_tenant.get(tenant).is_some_and(is_within)) && self.only.as_ref().is_none_or(is_within)
    }

    /// Whether a key with this permission alone can do anything for them, in whatever tenant. One with [`ADMIN`] takes nothing away.
    pub fn have_use_for(&self, permission: &str) -> bool {
        permission == ADMIN || self.is_admin || self.by_tenant.values().any(|held| are_enough(held, permission))
    }

    /// What they hold in one tenant or another, for people.
    pub fn in_words(&self) -> String {
        let held: BTreeSet<&str> = self.by_tenant.values().flatten().map(String::as_str).chain(self.is_admin.then_some(ADMIN)).collect();
        if held.is_empty() { "nothing".to_owned() } else { held.into_iter().collect::<Vec<_>>().join(", ") }
    }

    /// Whether they rule the whole instance.
    pub fn rule_instance(&self) -> bool {
        self.is_admin && self.only.as_ref().is_none_or(|only| only.contains(ADMIN))
    }
}

/// Whether who holds these holds `permission`.
fn are_enough(held: &BTreeSet<String>, permission: &str) -> bool {
    held.contains(ADMIN) || held.contains(permission)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(permissions: &[&str]) -> BTreeSet<String> {
        permissions.iter().map(|permission| (*permission).to_owned()).collect()
    }

    fn in_sales(permissions: &[&str]) -> Rights {
        Rights { by_tenant: [("sales".to_owned(), set(permissions))].into(), ..Rights::default() }
    }

    #[test]
    fn what_is_no_permission_is_refused() {
        for permission in [
            "admin",
            "links.approve",
            "peers.call",
            "tenants.oauth_clients.get",
            "ib_apps.read_secret",
            "peers.read_secret",
            "grants.delete",
        ] {
            assert_eq!(check(permission), Ok(()));
        }
        for permission in [
            "",
            ".",
            "links.",
            "Links",
            "links approve",
            "nonsense",
            "peers.nonsense",
            "nonsense.get",
            "tenants.get",
            "grants.edit",
            "roles.read_secret",
        ] {
            assert!(check(permission).is_err(), "{permission:?}");
        }
        assert!(in_words().contains("roles with .get, .create, .edit, .delete"), "{}", in_words());
    }

    #[test]
    fn rights_hold_in_their_tenant() {
        let rights = in_sales(&["peers.get"]);
        assert!(rights.know("sales") && rights.hold("sales", "peers.get"));
        assert!(!rights.hold("sales", "peers.edit") && !rights.know("default") && !rights.hold("default", "peers.get"));
        assert!(in_sales(&[ADMIN]).hold("sales", "peers.edit") && !in_sales(&[ADMIN]).rule_instance());
        let everything = Rights { is_admin: true, ..Rights::default() };
        assert!(everything.know("anywhere") && everything.hold("anywhere", "peers.edit") && everything.rule_instance());
        assert!(in_sales(&[]).know("sales"), "a role without permissions lets somebody in");
        assert!(rights.have_use_for("peers.get") && rights.have_use_for(ADMIN) && !rights.have_use_for("peers.edit"));
        assert!(in_sales(&[ADMIN]).have_use_for("peers.edit") && everything.have_use_for("peers.edit"));
        assert_eq!(
            (rights.in_words(), everything.in_words(), in_sales(&[]).in_words()),
            ("peers.get".into(), ADMIN.into(), "nothing".into())
        );
    }

    #[test]
    fn a_limited_key_takes_away_and_never_adds() {
        let limited = |rights: Rights, only: &[&str]| Rights { only: Some(set(only)), ..rights };
        let admin = limited(Rights { is_admin: true, ..Rights::default() }, &["peers.get"]);
        assert!(admin.hold("sales", "peers.get") && !admin.hold("sales", "peers.edit") && !admin.rule_instance());
        assert!(!limited(in_sales(&["peers.get"]), &["peers.edit"]).hold("sales", "peers.edit"), "what its person may not");
        assert!(limited(in_sales(&["peers.get"]), &[ADMIN]).hold("sales", "peers.get"));
        assert!(!limited(in_sales(&["peers.get"]), &[ADMIN]).hold("sales", "peers.edit"));
    }
}
