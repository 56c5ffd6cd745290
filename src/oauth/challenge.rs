//! Challenges of a resource server, as far as they say what was wrong (RFC 9110 §11.6.1, RFC 6750 §3, RFC 9449 §7.1).

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Whether a challenge has the parameter `error` with that value. What stands inside of a quoted text is part of that text.
pub fn names_error(headers: &HeaderMap, error: &str) -> bool {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(Parameters).any(|(name, value)| name.eq_ignore_ascii_case("error") && value == error)
}

/// The parameters of all challenges in one header: what follows a name and `=`. Schemes, which have none, are passed over; so is what is
/// no challenge.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let name = self.token();
            let after = self.0.trim_start_matches([' ', '\t']);
            match (name.is_empty(), after.strip_prefix('=')) {
                (false, Some(value)) => {
                    self.0 = value.trim_start_matches([' ', '\t']);
                    let value = if self.0.starts_with('"') { self.quoted()? } else { self.token().to_owned() };
                    return Some((name, value));
                }
                (false, None) => {}
                // A separator, or the end of a credential in base64, or nobody's.
                (true, _) if self.0.starts_with('"') => drop(self.quoted()?),
                (true, _) => {
                    let mut rest = self.0.chars();
                    rest.next()?;
                    self.0 = rest.as_str();
                }
            }
        }
    }
}

impl<'a> Parameters<'a> {
    /// What stands here of a token (RFC 9110 §5.6.2); nothing where none does.
    fn token(&mut self) -> &'a str {
        let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let end = self.0.bytes().position(|byte| !is_of_token(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token
    }

    /// The quoted text that begins here, without its quotes (RFC 9110 §5.6.4); `None` where it does not end.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.0.strip_prefix('"')?.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => text.push(characters.next()?),
                character => text.push(character),
            }
        }
        self.0 = characters.as_str();
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn names(challenges: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for challenge in challenges {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        names_error(&headers, "use_dpop_nonce")
    }

    #[test]
    fn an_error_is_found_wherever_a_challenge_may_have_it() {
        for challenges in [
            &[r#"DPoP error="use_dpop_nonce""#][..],
            &[r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof""#],
            &[r#"DPoP realm="a \" b", algs="ES256" , Error = use_dpop_nonce"#],
            &[r#"Bearer realm="x", error="invalid_token", DPoP error="use_dpop_nonce""#],
            &["Negotiate YWJj==", "Basic", r#"DPoP error="use_dpop_nonce""#],
            &[r#"Negotiate YWJj==, DPoP error="use_dpop_nonce""#],
        ] {
            assert!(names(challenges), "{challenges:?}");
        }
    }

    #[test]
    fn what_only_looks_like_an_error_is_none() {
        for challenges in [
            &[][..],
            &["DPoP"],
            &["DPoP use_dpop_nonce"],
            &[r#"DPoP error="use_dpop_nonce_""#],
            &[r#"DPoP error="use_dpop_nonce"#],
            &[r#"DPoP my_error="use_dpop_nonce""#],
            &[r#"DPoP error_description="use_dpop_nonce""#],
            &[r#"DPoP realm="error=\"use_dpop_nonce\"""#],
            &[r#"DPoP "error=use_dpop_nonce""#],
        ] {
            assert!(!names(challenges), "{challenges:?}");
        }
    }
}
