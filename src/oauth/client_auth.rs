//! How a client says who it is at our endpoints: with a secret in `Authorization: Basic` or in the form (RFC 6749 §2.3.1), with an assertion
//! that it signed (RFC 7523 §2.2), or by its name alone; in one way, once.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode;

use super::assertion::{self, Assertion};
use super::error::{Code, WireError};
use super::parameters::Parameters;
use crate::secret::{ExposeSecret, SecretString};

/// Clients pad base64 or leave it; both are taken.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// How a client authenticates, as it is registered (RFC 7591 §2 `token_endpoint_auth_method`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// With its secret, in either way.
    #[default]
    ClientSecret,
    /// With its secret in `Authorization: Basic`.
    ClientSecretBasic,
    /// With its secret in the form.
    ClientSecretPost,
    /// With an assertion that its private key signed.
    PrivateKeyJwt,
    /// With a certificate that an authority signed (RFC 8705 §2.1).
    TlsClientAuth,
    /// With a certificate that it registered (RFC 8705 §2.2).
    SelfSignedTlsClientAuth,
    /// Not at all: it cannot keep a secret.
    None,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ClientSecret,
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::PrivateKeyJwt,
        Self::TlsClientAuth,
        Self::SelfSignedTlsClientAuth,
        Self::None,
    ];

    /// As it is registered.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecret => "client_secret",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
            Self::None => "none",
        }
    }

    /// The method of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// Whether the client has a secret at all.
    pub const fn has_secret(self) -> bool {
        matches!(self, Self::ClientSecret | Self::ClientSecretBasic | Self::ClientSecretPost)
    }

    /// Whether the client shows a certificate.
    pub const fn is_by_certificate(self) -> bool {
        matches!(self, Self::TlsClientAuth | Self::SelfSignedTlsClientAuth)
    }

    /// Whether it rests on public keys of the client's.
    pub const fn has_keys(self) -> bool {
        matches!(self, Self::PrivateKeyJwt | Self::SelfSignedTlsClientAuth)
    }

    /// Whether a secret may be presented in that way.
    pub const fn takes_secret(self, way: Way) -> bool {
        match (self, way) {
            (Self::ClientSecret, _) | (Self::ClientSecretBasic, Way::Basic) | (Self::ClientSecretPost, Way::Post) => true,
            (Self::ClientSecretBasic, Way::Post) | (Self::ClientSecretPost, Way::Basic) => false,
            (Self::PrivateKeyJwt | Self::TlsClientAuth | Self::SelfSignedTlsClientAuth | Self::None, _) => false,
        }
    }
}

/// What the metadata of the token endpoint name.
pub const METHODS: [&str; 4] = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];

/// What the metadata of endpoints name that a client without any authentication may not use.
pub const CONFIDENTIAL_METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

/// What a client presents to authenticate.
#[derive(Debug)]
pub enum Presented<'a> {
    /// A secret.
    Secret {
        /// What it may have meant, most likely first. Basic's halves are form-encoded by the RFC, yet many clients send them raw.
        readings: Vec<Credentials>,
        /// How it came.
        way: Way,
    },
    /// An assertion, which is to be judged.
    Assertion(Assertion<'a>),
    /// A `client_id` alone; with a certificate beside it, it may be more.
    Name(String),
}

/// One reading of what a client presents.
#[derive(Debug)]
pub struct Credentials {
    /// Who it says it is.
    pub client_id: String,
    /// Its secret.
    pub secret: SecretString,
}

/// How a secret comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `Authorization: Basic`
    Basic,
    /// In the form.
    Post,
}

impl Presented<'_> {
    /// Every `client_id` that it may be meant for.
    pub fn client_ids(&self) -> impl Iterator<Item = &str> {
        let (readings, name) = match self {
            Self::Secret { readings, .. } => (readings.as_slice(), None),
            Self::Assertion(assertion) => (&[][..], Some(assertion.client_id())),
            Self::Name(client_id) => (&[][..], Some(client_id.as_str())),
        };
        readings.iter().map(|reading| reading.client_id.as_str()).chain(name)
    }
}

/// Reads a request's client authentication.
///
/// # Errors
/// `invalid_request` for two methods in one request, `invalid_client` for none.
pub fn presented<'a>(headers: &HeaderMap, form: &'a Parameters) -> Result<Presented<'a>, WireError> {
    let invalid_request = |what: &str| WireError::new(Code::InvalidRequest, what);
    let invalid_client = |what: &str| WireError::new(Code::InvalidClient, what);
    let the = |name| form.the(name).map_err(|doubled| invalid_request(&doubled.to_string()));
    let (client_id, client_secret, assertion) = (the("client_id")?, the("client_secret")?, the("client_assertion")?);
    let assertion_type = the("client_assertion_type")?;

    let mut values = headers.get_all(AUTHORIZATION).iter();
    let header = values.next();
    if values.next().is_some() {
        return Err(invalid_request("the Authorization header is there more than once"));
    }
    let has_assertion = form.has("client_assertion") || form.has("client_assertion_type");
    if [header.is_some(), client_secret.is_some(), has_assertion].iter().filter(|is_there| **is_there).count() > 1 {
        return Err(invalid_request("a client authenticates in one way, not in two"));
    }
    if let Some(value) = header {
        let readings = basic(value.as_bytes()).ok_or_else(|| invalid_client("the Authorization header is not Basic id:secret"))?;
        if client_id.is_some_and(|named| readings.iter().all(|reading| reading.client_id != named)) {
            return Err(invalid_request("client_id is not the one in the Authorization header"));
        }
        return Ok(Presented::Secret { readings, way: Way::Basic });
    }
    if has_assertion {
        let text = assertion.filter(|_| assertion_type == Some(assertion::TYPE));
        let text =
            text.ok_or_else(|| invalid_request(&format!("client_assertion comes with client_assertion_type {}", assertion::TYPE)))?;
        let assertion = Assertion::read(text).map_err(|why| invalid_client(&why.to_string()))?;
        if client_id.is_some_and(|named| named != assertion.client_id()) {
            return Err(invalid_request("client_id is not the sub of client_assertion"));
        }
        return Ok(Presented::Assertion(assertion));
    }
    match (client_id, client_secret) {
        (Some(client_id), Some(secret)) => {
            let credentials = Credentials { client_id: client_id.to_owned(), secret: SecretString::from(secret) };
            Ok(Presented::Secret { readings: vec![credentials], way: Way::Post })
        }
        // An empty secret is no secret, but whoever sends one did not mean to go without.
        (Some(client_id), None) if !form.has("client_secret") => Ok(Presented::Name(client_id.to_owned())),
        _ => Err(invalid_client("a client authenticates with its client_id and client_secret, or with a client_assertion")),
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

    fn read(authorization: &[&str], form: &str) -> Result<(Vec<(String, String)>, Way), Code> {
        match of(authorization, &parameters(form))? {
            Presented::Secret { readings, way } => {
                let pairs = readings.into_iter().map(|reading| (reading.client_id, reading.secret.expose_secret().to_owned()));
                Ok((pairs.collect(), way))
            }
            other => panic!("{other:?}"),
        }
    }

    fn parameters(form: &str) -> Parameters {
        Parameters::read(form.as_bytes()).expect("a form")
    }

    fn of<'a>(authorization: &[&str], form: &'a Parameters) -> Result<Presented<'a>, Code> {
        let headers = authorization.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).expect("a header value"))).collect();
        presented(&headers, form).map_err(|error| error.code)
    }

    fn basic_header(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn pair(client_id: &str, secret: &str) -> (String, String) {
        (client_id.to_owned(), secret.to_owned())
    }

    #[test]
    fn t2_one_method_is_read() {
        assert_eq!(read(&[], "client_id=a&client_secret=b"), Ok((vec![pair("a", "b")], Way::Post)));
        assert_eq!(read(&[&basic_header("a:b")], ""), Ok((vec![pair("a", "b")], Way::Basic)));
        assert_eq!(read(&[basic_header("a:b").trim_end_matches('=')], "client_id=a"), Ok((vec![pair("a", "b")], Way::Basic)));
        assert_eq!(read(&["bAsIc YTpiOmM="], ""), Ok((vec![pair("a", "b:c")], Way::Basic)));
    }

    #[test]
    fn t2_basic_is_form_decoded_first_and_raw_second() {
        let expected = vec![pair("a c", "b:+"), pair("a+c", "b%3A%2B")];
        assert_eq!(read(&[&basic_header("a+c:b%3A%2B")], ""), Ok((expected, Way::Basic)));
        assert_eq!(read(&[&basic_header("a:50%")], ""), Ok((vec![pair("a", "50%")], Way::Basic)));
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

    #[test]
    fn t2_t13_an_assertion_names_its_client_and_comes_alone() {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let text = format!("{}.{}.AAAA", encoded(r#"{"alg":"ES256"}"#), encoded(r#"{"sub":"a"}"#));
        let nameless = format!("{}.{}.AAAA", encoded(r#"{"alg":"ES256"}"#), encoded("{}"));
        let form = |text: &str, more: &str| format!("client_assertion_type={}&client_assertion={text}{more}", assertion::TYPE);
        for more in ["", "&client_id=a"] {
            let form = parameters(&form(&text, more));
            let presented = of(&[], &form).expect("well formed");
            assert!(matches!(presented, Presented::Assertion(_)) && presented.client_ids().eq(["a"]), "{presented:?}");
        }
        for (authorization, form, expected) in [
            (vec![], form(&text, "&client_id=b"), Code::InvalidRequest),
            (vec![], form(&text, "&client_secret=b"), Code::InvalidRequest),
            (vec!["Basic YTpi"], form(&text, ""), Code::InvalidRequest),
            (vec![], format!("client_assertion={text}"), Code::InvalidRequest),
            (vec![], format!("client_id=a&client_assertion_type={}", assertion::TYPE), Code::InvalidRequest),
            (vec![], format!("client_assertion_type=urn:x&client_assertion={text}"), Code::InvalidRequest),
            (vec![], form(&text, &format!("&client_assertion={text}")), Code::InvalidRequest),
            (vec![], form("x", ""), Code::InvalidClient),
            (vec![], form(&nameless, ""), Code::InvalidClient),
        ] {
            assert_eq!(of(&authorization, &parameters(&form)).map(|_| ()), Err(expected), "{authorization:?} {form}");
        }
    }

    #[test]
    fn a_name_alone_is_what_a_client_without_a_secret_presents() {
        match of(&[], &parameters("client_id=a")) {
            Ok(presented @ Presented::Name(_)) => assert_eq!(presented.client_ids().collect::<Vec<_>>(), ["a"]),
            other => panic!("{other:?}"),
        }
    }
}
