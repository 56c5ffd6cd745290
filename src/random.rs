//! Randomness as a value: the operating system's in the daemon, a seeded one in tests.

use std::fmt;

/// Where randomness comes from.
pub trait Random: Send + Sync + fmt::Debug + 'static {
    /// Fills `bytes` with random bytes fit for secrets.
    fn fill(&self, bytes: &mut [u8]);
}

/// `N` random bytes.
pub fn bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}
