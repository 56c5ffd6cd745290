//! Errors of the network in one line: hyper's own words say little without what lies below.

use std::error::Error;
use std::fmt::Write;

/// An error with its causes, each said once.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            write!(text, ": {more}").expect("writing to a string does not fail");
        }
        cause = error.source();
    }
    text
}
