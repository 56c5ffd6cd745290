//! Named points on the way of a token, at which a crash test can kill the process.

/// The environment variable that names the point to die at.
pub const VARIABLE: &str = "P2PID_DIE_AT";

/// A point that matters for durability. In builds with debug assertions the process kills itself (SIGKILL) here when
/// [`VARIABLE`] names this point; in other builds this is nothing.
pub fn passed(name: &'static str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        static DIE_AT: OnceLock<Option<String>> = OnceLock::new();
        if DIE_AT.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(name) {
            tracing::error!(point = name, "dying here, as asked");
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
