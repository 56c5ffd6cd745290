//! Request parameters: a strict reader of `application/x-www-form-urlencoded` (RFC 6749 §3.1, §3.2, appendix B).

use percent_encoding::percent_decode_str;

/// The most parameters that a request of any RFC we speak needs, several times over.
const MOST: usize = 64;
/// Longer than any `state`, token or redirect URI that is not an attack.
const LONGEST: usize = 8 * 1024;

/// The parameters of one query or form. An empty value is the same as none; unknown ones are kept and looked at by nobody.
#[derive(Debug, Default)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
}

/// The text is no list of parameters at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A `%` without two hexadecimal digits behind it.
    #[error("a parameter has a broken percent escape")]
    Escape,
    /// Bytes that are not UTF-8.
    #[error("a parameter is not UTF-8")]
    Encoding,
    /// More than 64.
    #[error("there are too many parameters")]
    TooMany,
    /// A name or value beyond 8 KiB.
    #[error("a parameter is too long")]
    TooLong,
}

/// A parameter that is there more than once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the parameter {0} is given more than once")]
pub struct Doubled(pub String);

impl Parameters {
    /// Reads a raw query or the body of a form.
    pub fn read(raw: &[u8]) -> Result<Self, Malformed> {
        let raw = std::str::from_utf8(raw).map_err(|_| Malformed::Encoding)?;
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MOST {
                return Err(Malformed::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decoded(name)?, decoded(value)?));
        }
        Ok(Self { pairs })
    }

    /// The value of `name`, when it is there once and not empty.
    pub fn the(&self, name: &str) -> Result<Option<&str>, Doubled> {
        let mut values = self.pairs.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Doubled(name.to_owned())),
            (value, None) => Ok(value.filter(|value| !value.is_empty())),
        }
    }

    /// Fails when one of `names` is there more than once. What is not among them is unknown here, and ignored however often it comes.
    pub fn each_once(&self, names: &[&str]) -> Result<(), Doubled> {
        names.iter().try_for_each(|name| self.the(name).map(drop))
    }

    /// All of them, in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether `name` is there, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(found, _)| found == name)
    }
}

/// One name or value: `+` is a space, `%xx` a byte, all bytes together UTF-8.
fn decoded(raw: &str) -> Result<String, Malformed> {
    if raw.len() > LONGEST {
        return Err(Malformed::TooLong);
    }
    let mut rest = raw.as_bytes();
    while let Some(escape) = rest.iter().position(|byte| *byte == b'%') {
        match rest[escape..] {
            [_, high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest = &rest[escape + 3..],
            _ => return Err(Malformed::Escape),
        }
    }
    let spaced = raw.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned()).map_err(|_| Malformed::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a6_a_parameter_is_there_once_and_empty_is_absent() {
        let parameters = Parameters::read(b"a=1&b=&c&d=x+y%2B%C3%A4&&twice=1&twice=1").expect("well formed");
        assert_eq!(parameters.the("a"), Ok(Some("1")));
        for absent in ["b", "c", "nothing"] {
            assert_eq!(parameters.the(absent), Ok(None), "{absent}");
        }
        assert_eq!(parameters.the("d"), Ok(Some("x y+ä")));
        assert_eq!(parameters.the("twice"), Err(Doubled("twice".into())));
        assert_eq!(parameters.each_once(&["a", "twice"]), Err(Doubled("twice".into())));
        assert_eq!(parameters.each_once(&["a", "nothing"]), Ok(()));
    }

    #[test]
    fn a6_an_empty_value_does_not_hide_a_second_one() {
        let parameters = Parameters::read(b"a=&a=1").expect("well formed");
        assert_eq!(parameters.the("a"), Err(Doubled("a".into())));
    }

    #[test]
    fn what_is_wrongly_encoded_or_too_much_is_refused() {
        let many = "a=1&".repeat(MOST + 1);
        let long = format!("a={}", "x".repeat(LONGEST + 1));
        let refused: [(&[u8], Malformed); 8] = [
            (b"a=%", Malformed::Escape),
            (b"a=%4", Malformed::Escape),
            (b"a=%zz", Malformed::Escape),
            (b"%=a", Malformed::Escape),
            (b"a=%ff", Malformed::Encoding),
            (b"a=\xff", Malformed::Encoding),
            (many.as_bytes(), Malformed::TooMany),
            (long.as_bytes(), Malformed::TooLong),
        ];
        for (raw, expected) in refused {
            assert_eq!(Parameters::read(raw).map(|_| ()), Err(expected), "{:?}", String::from_utf8_lossy(&raw[..raw.len().min(20)]));
        }
    }
}
