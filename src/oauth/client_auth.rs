//! How a client says who it is at our endpoints: `client_secret_basic` or `client_secret_post` (RFC 6749 §2.3.1), one of them, once.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode;

use super::error::{Code, WireError};
use super::parameters::Parameters;
use crate::secret::{ExposeSecret, SecretString};

/// Clients pad base64 or leave it; both are taken.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// What a client presents to authenticate.
#[derive(Debug)]
pub struct Presented {
    /// What it may have meant, most likely first. Basic's halves are form-encoded by the RFC, yet many clients send them raw.
    pub readings: Vec<Credentials>,
    /// How it came.
    pub method: Method,
}

/// One reading of what a client presents.
#[derive(Debug)]
pub struct Credentials {
    /// Who it says it is.
    pub client_id: String,
    /// Its secret.
    pub secret: SecretString,
}

/// How a client authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `Authorization: Basic`
    Basic,
    /// In the form.
    Post,
}

/// The methods that the metadata names.
pub const METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

/// Reads a request's client authentication.
///
/// # Errors
/// `invalid_request` for two methods in one request, `invalid_client` for none.
pub fn presented(headers: &HeaderMap, form: &Parameters) -> Result<Presented, WireError> {
    let invalid_request = |what: &str| WireError::new(Code::InvalidRequest, what);
    let invalid_client = |what: &str| WireError::new(Code::InvalidClient, what);
    let the = |name| form.the(name).map_err(|doubled| invalid_request(&doubled.to_string()));
    let (client_id, client_secret) = (the("client_id")?, the("client_secret")?);

    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(invalid_request("the Authorization header is there more than once")),
        (Some(_), None) if client_secret.is_some() || form.has("client_assertion") => {
            Err(invalid_request("a client authenticates in one way, not in two"))
        }
        (Some(value), None) => {
            let readings = basic(value.as_bytes()).ok_or_else(|| invalid_client("the Authorization header is not Basic id:secret"))?;
            if client_id.is_some_and(|named| readings.iter().all(|reading| reading.client_id != named)) {
                return Err(invalid_request("client_id is not the one in the Authorization header"));
            }
            Ok(Presented { readings, method: Method::Basic })
        }
        (None, None) if client_secret.is_some() && form.has("client_assertion") => {
            Err(invalid_request("a client authenticates in one way, not in two"))
        }
        (None, None) => match (client_id, client_secret) {
            (Some(client_id), Some(secret)) => {
                let credentials = Credentials { client_id: client_id.to_owned(), secret: SecretString::from(secret) };
                Ok(Presented { readings: vec![credentials], method: Method::Post })
            }
            _ => Err(invalid_client("a client authenticates with its client_id and client_secret")),
        },
    }
}

/// The readings of a `Basic` header: form-decoded, then raw where that differs.
fn basic(value: &[u8]) -> Option<Vec<Credentials>> {
    let (scheme, rest) = value.split_at_checked(b"basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(rest.trim_ascii()).ok()?).ok()?;
    let pair = SecretString::from(pair);
    let (client_id, secret) = pair.expose_secret().split_once(':')?;
    let raw = || Credentials { client_id: client_id.to_owned(), secret: SecretString::from(secret) };
    let readings = match (form_decoded(client_id), form_decoded(secret)) {
        (Some(decoded_id), Some(decoded_secret)) if decoded_id != client_id || decoded_secret != secret => {
            vec![Credentials { client_id: decoded_id, secret: SecretString::from(decoded_secret) }, raw()]
        }
        _ => vec![raw()],
    };
    (!client_id.is_empty() && !secret.is_empty()).then_some(readings)
}

fn form_decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderValue;

    use super::*;

    fn read(authorization: &[&str], form: &str) -> Result<(Vec<(String, String)>, Method), Code> {
        let headers = authorization.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).expect("a header value"))).collect();
        let form = Parameters::read(form.as_bytes()).expect("a form");
        let presented = presented(&headers, &form).map_err(|error| error.code)?;
        let pairs = presented.readings.into_iter().map(|reading| (reading.client_id, reading.secret.expose_secret().to_owned()));
        Ok((pairs.collect(), presented.method))
    }

    fn basic_header(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn pair(client_id: &str, secret: &str) -> (String, String) {
        (client_id.to_owned(), secret.to_owned())
    }

    #[test]
    fn t2_one_method_is_read() {
        assert_eq!(read(&[], "client_id=a&client_secret=b"), Ok((vec![pair("a", "b")], Method::Post)));
        assert_eq!(read(&[&basic_header("a:b")], ""), Ok((vec![pair("a", "b")], Method::Basic)));
        assert_eq!(read(&[basic_header("a:b").trim_end_matches('=')], "client_id=a"), Ok((vec![pair("a", "b")], Method::Basic)));
        assert_eq!(read(&["bAsIc YTpiOmM="], ""), Ok((vec![pair("a", "b:c")], Method::Basic)));
    }

    #[test]
    fn t2_basic_is_form_decoded_first_and_raw_second() {
        let expected = vec![pair("a c", "b:+"), pair("a+c", "b%3A%2B")];
        assert_eq!(read(&[&basic_header("a+c:b%3A%2B")], ""), Ok((expected, Method::Basic)));
        assert_eq!(read(&[&basic_header("a:50%")], ""), Ok((vec![pair("a", "50%")], Method::Basic)));
    }

    #[test]
    fn t2_two_methods_in_one_request_are_refused() {
        let header = basic_header("a:b");
        for (authorization, form) in [
            (vec![header.as_str()], "client_id=a&client_secret=b"),
            (vec![header.as_str()], "client_secret=b"),
            (vec![header.as_str()], "client_assertion=x"),
            (vec![header.as_str(), header.as_str()], ""),
            (vec![header.as_str()], "client_id=other"),
            (vec!["Bearer x"], "client_id=a&client_secret=b"),
            (vec![], "client_id=a&client_secret=b&client_assertion=x"),
            (vec![], "client_id=a&client_id=a&client_secret=b"),
        ] {
            assert_eq!(read(&authorization, form), Err(Code::InvalidRequest), "{authorization:?} {form}");
        }
    }

    #[test]
    fn t3_no_credentials_are_an_invalid_client() {
        for (authorization, form) in [
            (vec![], ""),
            (vec![], "client_id=a"),
            (vec![], "client_id=a&client_secret="),
            (vec![], "client_secret=b"),
            (vec!["Bearer x"], ""),
            (vec!["Basic"], ""),
            (vec!["Basic !"], ""),
            (vec!["Basic YQ=="], ""),
            (vec!["Basic Og=="], ""),
            (vec!["Basic /w=="], ""),
        ] {
            assert_eq!(read(&authorization, form), Err(Code::InvalidClient), "{authorization:?} {form}");
        }
    }
}
