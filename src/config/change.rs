//! What a new configuration changes: nearly everything applies to the running daemon; who the instance is and where it listens
//! needs a restart.

use super::{Config, Tls};

impl Config {
    /// The keys whose change takes hold only after a restart, in the order of the file.
    pub fn needs_restart(old: &Self, new: &Self) -> Vec<&'static str> {
        let switched = |old: &Tls, new: &Tls| (*old == Tls::Off) != (*new == Tls::Off);
        let changes = [
            ("instance.name", old.instance.name != new.instance.name),
            ("instance.public_url", old.instance.public_url != new.instance.public_url),
            ("instance.p2pi_path", old.instance.p2pi_path != new.instance.p2pi_path),
            ("instance.state_dir", old.instance.state_dir != new.instance.state_dir),
            ("public.listen", old.public.listen != new.public.listen),
            ("public.tls", switched(&old.public.tls, &new.public.tls)),
            ("mtls.listen", old.mtls.listen != new.mtls.listen),
            ("mtls.public_url", old.mtls.listen != new.mtls.listen && old.mtls.public_url != new.mtls.public_url),
            ("mtls.tls", !old.mtls.listen.is_empty() && switched(&old.mtls.tls, &new.mtls.tls)),
            ("local.listen", old.local.listen != new.local.listen),
            ("console.listen", old.console.listen != new.console.listen),
            ("console.tls", switched(&old.console.tls, &new.console.tls)),
            ("admin.group", old.admin.group != new.admin.group),
            ("admin.socket", old.admin.socket != new.admin.socket),
        ];
        changes.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
    }

    /// The tables that differ, in the order of the file.
    pub fn changed_tables(old: &Self, new: &Self) -> Vec<&'static str> {
        let changes = [
            ("instance", old.instance != new.instance),
            ("public", old.public != new.public),
            ("mtls", old.mtls != new.mtls),
            ("local", old.local != new.local),
            ("console", old.console != new.console),
            ("admin", old.admin != new.admin),
            ("route", old.routes != new.routes),
            ("scopes", old.scopes != new.scopes),
            ("tokens", old.tokens != new.tokens),
            ("trust", old.trust != new.trust),
            ("limits", old.limits != new.limits),
            ("audit", old.audit != new.audit),
            ("compat", old.compat != new.compat),
        ];
        changes.into_iter().filter_map(|(table, changed)| changed.then_some(table)).collect()
    }

    /// This configuration as the running daemon can take it: what needs a restart stays as in `running`.
    pub fn applied_to(self, running: &Self) -> Self {
        let mut applied = self;
        applied.instance = running.instance.clone();
        applied.public.listen.clone_from(&running.public.listen);
        if applied.mtls.listen != running.mtls.listen {
            // Nobody is told of an address before something listens there.
            applied.mtls.public_url.clone_from(&running.mtls.public_url);
            applied.mtls.listen.clone_from(&running.mtls.listen);
        }
        applied.local.listen.clone_from(&running.local.listen);
        applied.console.listen.clone_from(&running.console.listen);
        for (applied, running) in [
            (&mut applied.public.tls, &running.public.tls),
            (&mut applied.mtls.tls, &running.mtls.tls),
            (&mut applied.console.tls, &running.console.tls),
        ] {
            if (*applied == Tls::Off) != (*running == Tls::Off) {
                applied.clone_from(running);
            }
        }
        applied.admin.clone_from(&running.admin);
        applied
    }
}
