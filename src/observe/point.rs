//! Named points on the way of a token, at which a crash test can kill the process.

/// The environment variable that names the point to die at.
pub const VARIABLE: &str = "P2PID_DIE_AT";

/// How long a request has to leave, where a process is to die once it has.
#[cfg(debug_assertions)]
const LEFT: std::time::Duration = std::time::Duration::from_secs(1);

/// A point that is passed while `answer` is waited for, once what it answers has left; nobody but the kernel knows when. A process that is
/// to die here does so when the answer is there, or after a second without one; every other only waits for it.
pub async fn passed_while<F: Future>(name: &'static str, answer: F) -> F::Output {
    #[cfg(debug_assertions)]
    if is_to_die_at(name) {
        let _ = tokio::time::timeout(LEFT, answer).await;
        passed(name);
        return std::future::pending().await;
    }
    let answer = answer.await;
    passed(name);
    answer
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
