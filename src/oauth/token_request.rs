//! What a client asks at the token endpoint (RFC 6749 §4.1.3, §4.4.2, §6; `resource` of RFC 8707).

use super::error::{Code, WireError};
use super::parameters::{Doubled, Parameters};
use super::scope::Scope;
use crate::secret::SecretString;

/// A well-formed token request.
#[derive(Debug)]
pub enum TokenRequest {
    /// `grant_type=authorization_code`
    Code(CodeRequest),
    /// `grant_type=refresh_token`
    Refresh(RefreshRequest),
    /// `grant_type=client_credentials`, with the scope that is asked for; none asks for all of the app's.
    ClientCredentials(Option<Scope>),
}

/// A code to be exchanged.
#[derive(Debug)]
pub struct CodeRequest {
    /// `code`
    pub code: SecretString,
    /// `redirect_uri`
    pub redirect_uri: Option<String>,
    /// `code_verifier`
    pub verifier: Option<SecretString>,
}

/// A refresh token to be exchanged.
#[derive(Debug)]
pub struct RefreshRequest {
    /// `refresh_token`
    pub token: SecretString,
    /// `scope`, when less than the whole is asked.
    pub scope: Option<Scope>,
}

/// Somebody's name and password, handed in by a client (RFC 6749 §4.3.2).
#[derive(Clone, Debug)]
pub struct PasswordRequest {
    /// `username`
    pub username: String,
    /// `password`
    pub password: SecretString,
    /// `scope`; none asks for all of the app's.
    pub scope: Option<Scope>,
}

impl PasswordRequest {
    /// The form as one of `grant_type=password`; none when it is of another type. To be asked only where that grant is served.
    ///
    /// # Errors
    /// `invalid_request` or `invalid_scope` (RFC 6749 §5.2).
    pub fn read(form: &Parameters) -> Result<Option<Self>, WireError> {
        form.each_once(&["grant_type", "username", "password", "scope"]).map_err(doubled)?;
        if required(form, "grant_type")? != "password" {
            return Ok(None);
        }
        let (username, password) = (required(form, "username")?.to_owned(), SecretString::from(required(form, "password")?));
        Ok(Some(Self { username, password, scope: scope(form)? }))
    }
}

/// The parameters that are looked at.
const KNOWN: [&str; 6] = ["grant_type", "code", "redirect_uri", "code_verifier", "refresh_token", "scope"];

impl TokenRequest {
    /// Reads the form of a token request; `served` are the grant types of the metadata, for whoever asks for another.
    ///
    /// # Errors
    /// `invalid_request`, `invalid_scope` or `unsupported_grant_type` (RFC 6749 §5.2).
    pub fn read(form: &Parameters, served: &[&str]) -> Result<Self, WireError> {
        form.each_once(&KNOWN).map_err(doubled)?;
        match required(form, "grant_type")? {
            "authorization_code" => Ok(Self::Code(CodeRequest {
                code: SecretString::from(required(form, "code")?),
                redirect_uri: optional(form, "redirect_uri")?.map(str::to_owned),
                verifier: optional(form, "code_verifier")?.map(SecretString::from),
            })),
            "refresh_token" => {
                Ok(Self::Refresh(RefreshRequest { token: SecretString::from(required(form, "refresh_token")?), scope: scope(form)? }))
            }
            "client_credentials" => Ok(Self::ClientCredentials(scope(form)?)),
            _ => Err(WireError::new(Code::UnsupportedGrantType, format!("the grant types here are {}", served.join(", ")))),
        }
    }
}

fn scope(form: &Parameters) -> Result<Option<Scope>, WireError> {
    let scope = optional(form, "scope")?.map(str::parse).transpose();
    scope.map_err(|error: super::scope::NotAScope| WireError::new(Code::InvalidScope, error.to_string()))
}

/// The value of a parameter that must be there.
pub fn required<'a>(form: &'a Parameters, name: &str) -> Result<&'a str, WireError> {
    optional(form, name)?.ok_or_else(|| WireError::new(Code::InvalidRequest, format!("the parameter {name} is missing")))
}

fn optional<'a>(form: &'a Parameters, name: &str) -> Result<Option<&'a str>, WireError> {
    form.the(name).map_err(doubled)
}

fn doubled(error: Doubled) -> WireError {
    WireError::new(Code::InvalidRequest, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    fn read(form: &str) -> Result<TokenRequest, WireError> {
        TokenRequest::read(&Parameters::read(form.as_bytes()).expect("a form"), &["authorization_code", "refresh_token"])
    }

    #[test]
    fn the_grants_are_read() {
        match read("grant_type=authorization_code&code=c&redirect_uri=https%3A%2F%2Fa%2Fcb&code_verifier=v&unknown=1") {
            Ok(TokenRequest::Code(request)) => {
                assert_eq!(request.code.expose_secret(), "c");
                assert_eq!(request.redirect_uri.as_deref(), Some("https://a/cb"));
                assert_eq!(request.verifier.expect("a verifier").expose_secret(), "v");
            }
            other => panic!("{other:?}"),
        }
        match read("grant_type=refresh_token&refresh_token=r&scope=b+a") {
            Ok(TokenRequest::Refresh(request)) => assert_eq!(request.scope.expect("a scope").to_string(), "a b"),
            other => panic!("{other:?}"),
        }
        for (form, expected) in [("grant_type=client_credentials", None), ("grant_type=client_credentials&scope=b", Some("b"))] {
            match read(form) {
                Ok(TokenRequest::ClientCredentials(scope)) => assert_eq!(scope.map(|scope| scope.to_string()).as_deref(), expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn t9_a_password_request_is_read_where_it_is_served_and_shows_no_password() {
        let read = |form: &str| PasswordRequest::read(&Parameters::read(form.as_bytes()).expect("a form"));
        let request = read("grant_type=password&username=a+b&password=p%26w&scope=openid").expect("well formed").expect("its type");
        assert_eq!((request.username.as_str(), request.password.expose_secret()), ("a b", "p&w"));
        assert_eq!(request.scope.as_ref().map(ToString::to_string).as_deref(), Some("openid"));
        assert!(!format!("{request:?}").contains("p&w"));
        assert!(read("grant_type=refresh_token&refresh_token=r").expect("well formed").is_none(), "another type");
        for (form, expected) in [
            ("username=a&password=b", Code::InvalidRequest),
            ("grant_type=password&username=a", Code::InvalidRequest),
            ("grant_type=password&password=b", Code::InvalidRequest),
            ("grant_type=password&username=&password=b", Code::InvalidRequest),
            ("grant_type=password&username=a&username=b&password=b", Code::InvalidRequest),
            ("grant_type=password&username=a&password=b&password=b", Code::InvalidRequest),
            ("grant_type=password&username=a&password=b&scope=a%0Ab", Code::InvalidScope),
        ] {
            assert_eq!(read(form).map(drop).map_err(|error| error.code), Err(expected), "{form}");
        }
    }

    #[test]
    fn t1_t9_what_is_missing_doubled_or_not_served_is_refused() {
        for (form, expected) in [
            ("", Code::InvalidRequest),
            ("grant_type=", Code::InvalidRequest),
            ("grant_type=authorization_code", Code::InvalidRequest),
            ("grant_type=refresh_token&refresh_token=", Code::InvalidRequest),
            ("grant_type=refresh_token&refresh_token=r&refresh_token=r", Code::InvalidRequest),
            ("grant_type=refresh_token&refresh_token=r&code=1&code=2", Code::InvalidRequest),
            ("grant_type=refresh_token&refresh_token=r&scope=a%0Ab", Code::InvalidScope),
            ("grant_type=password&username=a&password=b", Code::UnsupportedGrantType),
            ("grant_type=client_credentials&scope=a%0Ab", Code::InvalidScope),
            ("grant_type=client_credentials&scope=a&scope=a", Code::InvalidRequest),
            ("grant_type=implicit", Code::UnsupportedGrantType),
            ("grant_type=Refresh_Token&refresh_token=r", Code::UnsupportedGrantType),
        ] {
            assert_eq!(read(form).map(|_| ()).map_err(|error| error.code), Err(expected), "{form}");
        }
        let other = read("grant_type=implicit").expect_err("not served");
        assert_eq!(other.description(), "the grant types here are authorization_code, refresh_token");
    }
}
