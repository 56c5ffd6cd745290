//! The vocabulary of the RFCs: what goes over the wire, as plain types. No rule of who may do what stands here.

pub mod assertion;
pub mod bearer;
pub mod binding;
pub mod challenge;
pub mod client_auth;
pub mod client_certificate;
pub mod dpop;
pub mod error;
pub mod json;
pub mod jws;
pub mod key;
pub mod loopback;
pub mod parameters;
pub mod pkce;
pub mod redirect_uri;
pub mod resource;
pub mod rotation;
pub mod scope;
pub mod signing_key;
pub mod thumbprint;
pub mod token;
pub mod token_reply;
pub mod token_request;
pub mod visible;
