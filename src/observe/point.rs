//! Named points on the way of a token, at which a crash test can kill the process.

/// The environment variable that names the point to die at.
pub const VARIABLE: &str = "P2PID_DIE_AT";

/// How long a connection has for writing what it has taken, where a process is to die right after that.
#[cfg(debug_assertions)]
const WRITTEN: std::time::Duration = std::time::Duration::from_millis(50);

/// A point that is passed with a write of somebody else's: a connection took the bytes, and nobody is told when it has written them. Whoever
/// is to die here gives it a moment; nobody else waits.
pub async fn passed_with_a_write(name: &'static str) {
    #[cfg(debug_assertions)]
    if is_to_die_at(name) {
        tokio::time::sleep(WRITTEN).await;
    }
    passed(name);
}

/// A point that matters for durability. In builds with debug assertions the process kills itself (SIGKILL) here when
/// [`VARIABLE`] names this point; in other builds this is nothing.
pub fn passed(name: &'static str) {
    #[cfg(debug_assertions)]
    if is_to_die_at(name) {
        tracing::error!(point = name, "dying here, as asked");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
fn is_to_die_at(name: &'static str) -> bool {
    use std::sync::OnceLock;
    static DIE_AT: OnceLock<Option<String>> = OnceLock::new();
    DIE_AT.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(name)
}
