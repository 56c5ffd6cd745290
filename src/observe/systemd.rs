//! What systemd is told (sd_notify(3)): ready, reloading, stopping, alive. Nothing where nobody listens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything is up; also ends a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The start goes on, and takes up to `limit` from now where a start was to take less.
pub fn starts_within(limit: Duration) {
    tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(limit.as_micros()).unwrap_or(u32::MAX))]);
}

/// The configuration is being read again. systemd takes the time to tell this reload from an earlier one.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd cannot be told of the reload"),
    }
}

/// No more connections are taken, and those under way end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Still alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear that we are alive, when it does.
pub fn watchdog() -> Option<Duration> {
    // Half of the limit: one late sign is not the end.
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
