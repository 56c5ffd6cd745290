//! For whom an access token is (RFC 8707): all of ours are for this instance, and whoever asks for one for somebody else is told so.

use super::error::{Code, WireError};
use super::parameters::Parameters;

/// The names under which this instance is a resource: its issuer, and the URL that peers call.
#[derive(Clone, Debug)]
pub struct Audience {
    name: String,
    endpoint: String,
}

impl Audience {
    /// The audience `name`, which is called at `endpoint`.
    pub fn new(name: &str, endpoint: String) -> Self {
        Self { name: name.to_owned(), endpoint }
    }

    /// `aud`
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Checks every `resource` of a request; there may be several.
    ///
    /// # Errors
    /// `invalid_target` when one is not us.
    pub fn check(&self, parameters: &Parameters) -> Result<(), WireError> {
        let asked = parameters.pairs().filter(|(name, value)| *name == "resource" && !value.is_empty());
        for (_, resource) in asked {
            // An empty path and the root are one and the same (RFC 3986 §6.2.3).
            let bare = |url: &str| url.strip_suffix('/').unwrap_or(url).to_owned();
            if ![&self.name, &self.endpoint].iter().any(|ours| bare(ours) == bare(resource)) {
                return Err(WireError::new(Code::InvalidTarget, format!("the only resource here is {}", self.name)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t10_a_token_is_for_this_instance_or_for_nobody() {
        let audience = Audience::new("https://two.example:7443", "https://two.example:7443/p2pi".to_owned());
        let check = |form: &str| audience.check(&Parameters::read(form.as_bytes()).expect("a form")).map_err(|error| error.code);
        for good in [
            "",
            "resource=",
            "resource=https%3A%2F%2Ftwo.example%3A7443",
            "resource=https://two.example:7443/&resource=https://two.example:7443/p2pi",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "resource=https://two.example",
            "resource=https://two.example:7443/other",
            "resource=https://two.example:7443%23x",
            "resource=two",
            "resource=https://two.example:7443&resource=https://other.example",
        ] {
            assert_eq!(check(bad), Err(Code::InvalidTarget), "{bad}");
        }
    }
}
