//! The sockets of a daemon, all bound before anything is served.

use super::StartError;
use crate::config::{Config, Listen, Tls};
use crate::doors::admin::status::Listening;
use crate::net::listener::Listener;

/// Every socket of one daemon.
pub(super) struct Sockets {
    pub(super) public: Vec<Listener>,
    pub(super) mtls: Vec<Listener>,
    pub(super) local: Vec<Listener>,
    pub(super) console: Vec<Listener>,
    pub(super) admin: Listener,
}

impl Sockets {
    /// Binds all that `config` names; the admin socket for the group with number `admin_group`.
    pub(super) fn bind(config: &Config, admin_group: Option<u32>) -> Result<Self, StartError> {
        let bind = |listener: &'static str, listen: &Listen, group| {
            Listener::bind(listen, group).map_err(|source| StartError::Bind { listener, source })
        };
        let bind_all =
            |listener, listens: &[Listen]| listens.iter().map(|listen| bind(listener, listen, None)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            public: bind_all("[public]", &config.public.listen)?,
            mtls: bind_all("[mtls]", &config.mtls.listen)?,
            local: bind_all("[local]", &config.local.listen)?,
            console: bind_all("[console]", &config.console.listen)?,
            admin: bind("[admin]", &Listen::Unix(config.admin.socket.clone()), admin_group)?,
        })
    }

    /// For `status`.
    pub(super) fn listening(&self, config: &Config) -> Vec<Listening> {
        let all = |name, listeners: &[Listener], tls: &Tls| -> Vec<Listening> {
            let has_tls = |listen: &Listen| *tls != Tls::Off && matches!(listen, Listen::Tcp(_));
            let addresses = listeners.iter().map(Listener::address);
            addresses.map(|listen| Listening { name, address: listen.to_string(), tls: has_tls(&listen) }).collect()
        };
        [
            all("public", &self.public, &config.public.tls),
            all("mtls", &self.mtls, &config.mtls.tls),
            all("local", &self.local, &Tls::Off),
            all("console", &self.console, &config.console.tls),
            all("admin", std::slice::from_ref(&self.admin), &Tls::Off),
        ]
        .concat()
    }
}

/// The port of a TCP listener.
pub(super) fn port(listener: &Listener) -> Option<u16> {
    match listener.address() {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    }
}
