//! Open files: every connection is one, and the kernel gives a process only so many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Files that no connection takes: the store and its readers, listeners, the configuration while it is read, the admin socket's connections (128);
/// and connections to each kind of listener that are beyond its places and still told so (64).
const RESERVE: u64 = 128 + 3 * 64;
/// Connections to what is public, to the relay and to the console have one part each, and those that go out the fourth.
const PARTS: u64 = 4;

/// Raises the limit of open files to what this process may have (`ulimit -Hn`). Where that fails it stays as it was, which [`connections`] heeds.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, limit = limit.current, "the limit of open files cannot be raised");
        }
    }
}

/// How many files this process may have open; `None` without limit.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many a daemon may have that is started by this process: it raises its limit first.
pub fn hard_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// How many connections each kind of listener may have beside the others, and how many may go out, of `files` that may be open.
pub fn connections(files: Option<u64>) -> usize {
    files.map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(RESERVE) / PARTS).unwrap_or(usize::MAX).max(1))
}

/// What is to be said where `limits` allows more connections than fit into `files`.
pub fn too_few(limits: &Limits, files: Option<u64>) -> Option<String> {
    let (fit, files) = (connections(files), files?);
    let (key, wanted) = match limits.outgoing_connections > limits.connections {
        true => ("limits.outgoing_connections", limits.outgoing_connections),
        false => ("limits.connections", limits.connections),
    };
    (wanted > fit).then(|| {
        let needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_mul(PARTS).saturating_add(RESERVE);
        format!(
            "{key} is {wanted}, and the {files} files that this process may have open are enough for {fit} of each kind: no more are taken. Give it \
             {needed} (LimitNOFILE={needed} in the systemd unit, `ulimit -n` elsewhere), or lower {key}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_reserve_and_what_does_not_fit_is_told_with_what_would() {
        assert_eq!([Some(1024), Some(65_536), Some(100), None].map(connections), [176, 16_304, 1, usize::MAX]);
        let limits = |connections, outgoing_connections| Limits { connections, outgoing_connections, ..crate::net::tests::limits() };
        for (limits, key) in [(limits(10_000, 10_000), "limits.connections is"), (limits(100, 10_000), "limits.outgoing_connections is")] {
            let told = too_few(&limits, Some(1024)).expect("it does not fit");
            for part in [key, "10000", "1024", "176", "LimitNOFILE=40320"] {
                assert!(told.contains(part), "{told}");
            }
        }
        assert_eq!(connections(Some(40_320)), 10_000);
        for files in [Some(40_320), Some(65_536), None] {
            assert_eq!(too_few(&limits(10_000, 10_000), files), None);
        }
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        raise();
        assert_eq!(limit(), hard_limit());
    }
}
