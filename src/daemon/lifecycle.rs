//! From ready to stopped: what systemd is told, the signals that end us, the drain.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Running;
use crate::audit::Action;
use crate::observe::systemd;

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends the drain.
///
/// # Errors
/// The reason why the database can no longer be trusted; whatever was acknowledged is on disk, and a new start reads it.
pub async fn run(running: Running) -> Result<(), String> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (mut terminate, mut interrupt, mut hangup) = match signals {
        (Ok(terminate), Ok(interrupt), Ok(hangup)) => (terminate, interrupt, hangup),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return Err(format!("this system gives no signals: {error}")),
    };
    systemd::ready();
    let lost = tokio::select! {
        () = asked_to_stop(&mut terminate, &mut interrupt) => None,
        reason = running.instance.store.lost() => Some(reason),
        () = keep_alive(&running) => None,
        () = reload_when_told(&running, &mut hangup) => None,
    };
    systemd::stopping();
    if let Some(reason) = lost {
        tracing::error!(reason, "the database can no longer be trusted; ending");
        return Err(reason);
    }
    tracing::info!("stopping: no new connections, those under way may finish");
    tokio::select! {
        () = running.stop() => tracing::info!(event = Action::DaemonStopped.as_str(), "stopped"),
        () = asked_to_stop(&mut terminate, &mut interrupt) => tracing::warn!("stopped at once, as asked a second time"),
    }
    Ok(())
}

async fn asked_to_stop(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}

/// Reads the configuration again at each SIGHUP; its outcome is logged and kept for `status`. Never completes.
async fn reload_when_told(running: &Running, hangup: &mut Signal) {
    while hangup.recv().await.is_some() {
        systemd::reloading();
        let _ = running.reloader.reload().await;
        systemd::ready();
    }
    std::future::pending().await
}

/// Tells systemd that we are alive, as long as the store answers: a daemon whose store hangs is better started again. Never completes.
async fn keep_alive(running: &Running) {
    let Some(every) = systemd::watchdog() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        if running.instance.store.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?)).await.is_ok() {
            systemd::alive();
        }
    }
}
