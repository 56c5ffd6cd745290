//! Why the daemon did not start.

use crate::doors::admin::access::NoSuchGroup;
use crate::net::listener::BindError;
use crate::net::tls::TlsError;
use crate::net::trust::TrustError;
use crate::store::{Explanation, OpenError, StoreError};
use crate::tasks::keeper;

/// Why the daemon did not start. Nothing was served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate or key that the configuration names is not usable.
    #[error("{section} tls: {source}")]
    Tls {
        /// `[public]`, `[mtls]` or `[console]`.
        section: &'static str,
        /// Why.
        source: TlsError,
    },
    /// An authority that the configuration names is not usable.
    #[error("[trust] ca: {0}")]
    Trust(#[from] TrustError),
    /// The admin group does not exist.
    #[error(transparent)]
    Group(#[from] NoSuchGroup),
    /// The database is not as it should be.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The database was opened, but what is in it could not be read.
    #[error("the database cannot be read: {0}")]
    Records(#[from] StoreError),
    /// The system gives no threads.
    #[error("this system gives no threads: {0}")]
    Threads(std::io::Error),
    /// An address cannot be listened on.
    #[error("{listener}: {source}")]
    Bind {
        /// `[public]`, `[mtls]`, `[local]`, `[console]` or `[admin]`.
        listener: &'static str,
        /// Why.
        source: BindError,
    },
}

impl From<keeper::StartError> for StartError {
    fn from(error: keeper::StartError) -> Self {
        match error {
            keeper::StartError::Store(error) => Self::Records(error),
            keeper::StartError::Trust(error) => Self::Trust(error),
        }
    }
}

impl StartError {
    /// Whether the configuration is wrong, rather than the machine.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tls { .. } | Self::Trust(_) | Self::Group(_) => true,
            Self::Store(_) | Self::Records(_) | Self::Threads(_) | Self::Bind { .. } => false,
        }
    }

    /// What to tell, where there is more than one sentence.
    pub fn explanation(&self) -> Option<Explanation> {
        match self {
            Self::Store(error) => Some(error.explain()),
            _ => None,
        }
    }
}
