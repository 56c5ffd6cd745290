//! `?access_token=…` (RFC 6750 §2.3), where `[compat] query_token` allows it: queries end up in logs, so nobody else may.

use http::uri::PathAndQuery;

/// The token in a query, and the target without it: a token of ours never reaches an application.
pub fn taken(target: &PathAndQuery) -> Option<(String, PathAndQuery)> {
    let mut token = None;
    let mut rest = String::new();
    for pair in target.query()?.split('&') {
        match form_urlencoded::parse(pair.as_bytes()).next() {
            // Given twice it is none: nobody can tell which of the two was meant.
            Some((name, _)) if name == "access_token" && token.is_some() => return None,
            Some((name, value)) if name == "access_token" => token = Some(value.into_owned()),
            _ => {
                rest.push(if rest.is_empty() { '?' } else { '&' });
                rest.push_str(pair);
            }
        }
    }
    let target = format!("{}{rest}", target.path()).parse().ok()?;
    Some((token?, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str) -> Option<(String, String)> {
        taken(&target.parse().expect("a target")).map(|(token, target)| (token, target.to_string()))
    }

    #[test]
    fn the_token_is_taken_out_of_the_query_wherever_it_stands() {
        let token = |target: &str| Some(("t".to_owned(), target.to_owned()));
        assert_eq!(of("/a?access_token=t"), token("/a"));
        assert_eq!(of("/a?x=1&access_token=t&y=%26"), token("/a?x=1&y=%26"));
        assert_eq!(of("/a?access%5Ftoken=t&x"), token("/a?x"));
        for none in ["/a", "/a?x=access_token", "/a?access_token=t&access_token=t"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
