//! Names for requests: what our answers, our log and the next hop call one by.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue};

use super::problem::REQUEST_ID;
use crate::random::{self, Random};

/// What a caller may choose as a request's name, at most, in bytes.
const MOST: usize = 64;

/// A source of names that are unique across restarts: a random beginning and a count.
#[derive(Debug)]
pub struct RequestIds {
    beginning: [u8; 8],
    count: AtomicU64,
}

impl RequestIds {
    /// Begins a series.
    pub fn new(random: &dyn Random) -> Self {
        Self { beginning: random::bytes(random), count: AtomicU64::new(0) }
    }

    /// A new one: 32 hexadecimal digits.
    pub fn next(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.beginning.iter().chain(&count)) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        HeaderValue::from_bytes(&text).expect("hexadecimal digits are visible ASCII")
    }
}

/// The request id that a caller chose, when it is one that can stand in a log line: up to 64 letters, digits, `-`, `.` and `_`.
pub fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let is_sane =
        |text: &[u8]| (1..=MOST).contains(&text.len()) && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
    is_sane(value.as_bytes()).then(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemRandom;

    #[test]
    fn request_ids_do_not_repeat() {
        let ids = RequestIds::new(&SystemRandom);
        let (one, two) = (ids.next(), ids.next());
        assert_ne!(one, two);
        assert_eq!(one.len(), 32);
        assert_eq!(one.as_bytes()[..16], two.as_bytes()[..16]);
        assert_ne!(RequestIds::new(&SystemRandom).next(), one);
    }

    #[test]
    fn a_callers_request_id_is_taken_when_it_is_sane() {
        let taken = |value: &str| given(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(value).expect("visible text"))]));
        assert_eq!(taken("order-7.a_B"), Some(HeaderValue::from_static("order-7.a_B")));
        for refused in ["a b", "a\"b", "", &"a".repeat(65)] {
            assert_eq!(taken(refused), None, "{refused}");
        }
        assert_eq!(given(&HeaderMap::new()), None);
    }
}
