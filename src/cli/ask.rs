//! What a command asks: secrets, from standard input only, and whether it is really meant.

use std::io::{self, BufRead, IsTerminal, Read};

use clap::Args;

use crate::secret::{ExposeSecret, SecretString};

use super::failure::Failure;
use super::report::{self, Report};

/// Longer than any secret or password that is taken.
const LONGEST: u64 = 4096;

/// A client secret that is shorter is warned of.
const GOOD_LENGTH: usize = 20;

/// For commands that take something away.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Confirm {
    /// Do it without asking
    #[arg(short = 'y', long)]
    pub(super) yes: bool,
}

impl Confirm {
    /// Asks on a terminal whether `what` is meant, as in "delete the peer two".
    ///
    /// # Errors
    /// Exit 1 when it is not; exit 2 where nobody can be asked and there is no `--yes`.
    pub(super) fn or_ask(self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(format!("to {what} needs a yes, and nobody can be asked here")).next("add --yes"));
        }
        report::prompt(&format!("{what}? [y/N] "));
        let mut answer = String::new();
        match (io::stdin().read_line(&mut answer), answer.trim()) {
            (Ok(_), "y" | "Y" | "yes") => Ok(()),
            _ => Err(Failure::new("not_confirmed", "nothing was changed")),
        }
    }
}

/// One secret: a line of standard input without its line end, or what is typed on a terminal, without echo. `flag` names the option that
/// asks for it, `what` the secret itself; without the flag only a terminal is asked.
///
/// # Errors
/// Exit 2 when there is none, or more than one line or 4 KiB of it.
pub(super) fn secret(flag_given: bool, flag: &str, what: &str) -> Result<SecretString, Failure> {
    if io::stdin().is_terminal() {
        let typed =
            rpassword::prompt_password(format!("{what}: ")).map_err(|error| Failure::usage(format!("cannot read the {what}: {error}")))?;
        return not_empty(SecretString::from(typed), what);
    }
    if !flag_given {
        return Err(Failure::usage(format!("the {what} is missing, and nobody can be asked here"))
            .expected(flag)
            .next(format!("add {flag} and write it to standard input")));
    }
    one_line(io::stdin().lock(), what)
}

/// A client secret, as [`secret`] reads it; a short one is warned of. It is taken all the same: somebody else may have chosen it.
///
/// # Errors
/// As [`secret`].
pub(super) fn client_secret(report: &Report, flag_given: bool) -> Result<SecretString, Failure> {
    let secret = secret(flag_given, "--client-secret-stdin", "client secret")?;
    if let Some(warning) = shortness("client secret", secret.expose_secret()) {
        report.warn(&warning);
    }
    Ok(secret)
}

/// A realm's key, as [`secret`] reads it; a short one is warned of.
///
/// # Errors
/// As [`secret`].
pub(super) fn realm_key(report: &Report) -> Result<SecretString, Failure> {
    let key = secret(true, "--key-stdin", "key")?;
    if let Some(warning) = shortness("key", key.expose_secret()) {
        report.warn(&warning);
    }
    Ok(key)
}

fn shortness(what: &str, secret: &str) -> Option<String> {
    let length = secret.chars().count();
    (length < GOOD_LENGTH).then(|| format!("the {what} has {length} characters, expected {GOOD_LENGTH} or more: short ones are guessed"))
}

/// A secret that must be typed the same way twice on a terminal, such as a new password.
///
/// # Errors
/// As [`secret`], and when the two differ.
pub(super) fn new_secret(flag_given: bool, flag: &str, what: &str) -> Result<SecretString, Failure> {
    let first = secret(flag_given, flag, what)?;
    if io::stdin().is_terminal() && secret(flag_given, flag, &format!("{what} again"))?.expose_secret() != first.expose_secret() {
        let failure = Failure::usage(format!("the {what} was not typed the same way twice")).found("two that differ");
        return Err(failure.expected(format!("the same {what} twice")).next("run the command again"));
    }
    Ok(first)
}

fn one_line(input: impl BufRead, what: &str) -> Result<SecretString, Failure> {
    let mut bytes = Vec::new();
    input.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| Failure::usage(format!("cannot read the {what}: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage(format!("the {what} is not UTF-8 text")))?;
    let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if line.len() as u64 > LONGEST - 2 || line.contains('\n') {
        return Err(Failure::usage(format!("the {what} is too long, or more than one line")));
    }
    not_empty(SecretString::from(line), what)
}

fn not_empty(secret: SecretString, what: &str) -> Result<SecretString, Failure> {
    if secret.expose_secret().is_empty() { Err(Failure::usage(format!("the {what} is empty"))) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line_without_its_end() {
        for (input, secret) in [("a b\n", "a b"), ("a\r\n", "a"), ("a", "a"), (" a \n", " a ")] {
            assert_eq!(one_line(input.as_bytes(), "secret").expect("one line").expose_secret(), secret);
        }
        assert!(shortness("key", "0123456789abcdefghi").is_some_and(|warning| warning.contains("19") && !warning.contains("0123")));
        assert_eq!(shortness("key", "0123456789abcdefghij"), None);
        for input in ["", "\n", "a\nb\n", "a\n\n", &"x".repeat(5000)] {
            assert_eq!(one_line(input.as_bytes(), "secret").expect_err("not one line").exit, 2, "{input:?}");
        }
    }
}
