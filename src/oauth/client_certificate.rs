//! Whose a client's certificate is (RFC 8705 §2.1.2): the one name in it that the client is registered by.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::RdnSequence;

/// The name that a client's certificate must have. Which one is fixed by its kind: what stands elsewhere in the certificate is nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Its subject, as RFC 4514 writes it.
    SubjectDn(String),
    /// A DNS name.
    SanDns(String),
    /// A URI.
    SanUri(String),
    /// An IP address.
    SanIp(IpAddr),
    /// An e-mail address.
    SanEmail(String),
}

/// A text that cannot be the name of a client; it says what could.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotASubject(pub &'static str);

impl Subject {
    /// The metadata of a client that say it, in their order (RFC 8705 §2.1.2).
    pub const NAMES: [&'static str; 5] = [
        "tls_client_auth_subject_dn",
        "tls_client_auth_san_dns",
        "tls_client_auth_san_uri",
        "tls_client_auth_san_ip",
        "tls_client_auth_san_email",
    ];

    /// The subject that the metadata `name`, one of [`Subject::NAMES`], says.
    pub fn register(name: &str, value: &str) -> Result<Self, NotASubject> {
        let is_word = !value.is_empty() && value.len() <= 1024 && value.bytes().all(|byte| byte.is_ascii_graphic());
        let word = |subject: fn(String) -> Self, expected| if is_word { Ok(subject(value.to_owned())) } else { Err(NotASubject(expected)) };
        match name {
            "tls_client_auth_subject_dn" => {
                let is_one = value.len() <= 1024 && read_name(value).is_some_and(|name| !name.is_empty());
                let expected =
                    NotASubject("a name as RFC 4514 writes it, the last part first and without spaces between: CN=shop,O=Example,C=DE");
                if is_one { Ok(Self::SubjectDn(value.to_owned())) } else { Err(expected) }
            }
            "tls_client_auth_san_dns" => word(Self::SanDns, "a DNS name, such as shop.example.com"),
            "tls_client_auth_san_uri" => word(Self::SanUri, "a URI, such as https://shop.example.com"),
            "tls_client_auth_san_ip" => value.parse().map(Self::SanIp).map_err(|_| NotASubject("an IP address")),
            _ => word(Self::SanEmail, "an e-mail address, such as shop@example.com"),
        }
    }

    /// The metadata that says it, and what it says.
    pub fn to_metadata(&self) -> (&'static str, String) {
        let [dn, dns, uri, ip, email] = Self::NAMES;
        match self {
            Self::SubjectDn(name) => (dn, name.clone()),
            Self::SanDns(name) => (dns, name.clone()),
            Self::SanUri(name) => (uri, name.clone()),
            Self::SanIp(address) => (ip, address.to_string()),
            Self::SanEmail(name) => (email, name.clone()),
        }
    }

    /// Whether the certificate `der` has that name. Names are compared to the letter, but for the case of DNS names, and for the ways in which
    /// one subject can be written.
    pub fn is_of(&self, der: &[u8]) -> bool {
        let Ok(certificate) = Certificate::from_der(der) else { return false };
        let certificate = certificate.tbs_certificate;
        if let Self::SubjectDn(wanted) = self {
            return read_name(wanted).is_some_and(|wanted| parts(&wanted) == parts(&certificate.subject));
        }
        let Ok(Some((_, SubjectAltName(names)))) = certificate.get::<SubjectAltName>() else { return false };
        names.iter().any(|name| match (self, name) {
            (Self::SanDns(wanted), GeneralName::DnsName(name)) => wanted.eq_ignore_ascii_case(name.as_str()),
            (Self::SanUri(wanted), GeneralName::UniformResourceIdentifier(name)) => wanted == name.as_str(),
            (Self::SanEmail(wanted), GeneralName::Rfc822Name(name)) => wanted == name.as_str(),
            (Self::SanIp(IpAddr::V4(wanted)), GeneralName::IpAddress(bytes)) => wanted.octets() == bytes.as_bytes(),
            (Self::SanIp(IpAddr::V6(wanted)), GeneralName::IpAddress(bytes)) => wanted.octets() == bytes.as_bytes(),
            _ => false,
        })
    }
}

/// The name that RFC 4514 writes so. A number of ten digits or more where an attribute's type stands is refused unread: such arcs are beyond the
/// reader of OIDs, which calculates with them unchecked.
fn read_name(text: &str) -> Option<RdnSequence> {
    let mut digits = 0;
    for (at, byte) in text.bytes().enumerate() {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        let stands_in_a_type = || text.bytes().skip(at + 1).find(|byte| b",+=".contains(byte)) == Some(b'=');
        if digits == 10 && stands_in_a_type() {
            return None;
        }
    }
    RdnSequence::from_str(text).ok()
}

/// What an attribute of a name says: text, whichever string type it is in, or something else.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Text(Vec<u8>),
    Der(Vec<u8>),
}

/// A name as it is compared: its parts in order, the attributes of a part in any.
fn parts(name: &RdnSequence) -> Vec<Vec<(String, Said)>> {
    let part = |attributes: &x509_cert::name::RelativeDistinguishedName| {
        let said = attributes.0.iter().map(|attribute| {
            let value = &attribute.value;
            let said = match value.tag() {
                Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => Said::Text(value.value().to_vec()),
                _ => Said::Der(value.to_der().unwrap_or_default()),
            };
            (attribute.oid.to_string(), said)
        });
        let mut said: Vec<_> = said.collect();
        said.sort();
        said
    };
    name.0.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{DistinguishedName, DnType, DnValue, SanType};

    use super::*;

    fn certificate(name: &[(DnType, DnValue)], others: &[SanType]) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        name.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), value.clone()));
        params.subject_alt_names = others.to_vec();
        params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    #[test]
    fn a_number_that_no_oid_has_is_no_attribute_type() {
        let register = |text: &str| Subject::register("tls_client_auth_subject_dn", text);
        for bad in ["7777777777777777777777CO=E", "1.2.99999999999999999999=a", "CN=a,2.5.4.99999999999=b", "CN=a+4294967296=b"] {
            assert!(register(bad).is_err(), "{bad}");
        }
        for good in ["CN=123456789012345,O=99999999999", "2.5.4.3=shop"] {
            assert!(register(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn g7_a_certificate_is_of_the_one_name_that_was_registered() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let printable = |text: &str| DnValue::PrintableString(text.try_into().expect("letters"));
        let name =
            [(DnType::CountryName, printable("DE")), (DnType::OrganizationName, printable("Example")), (DnType::CommonName, utf8("a,b"))];
        let text = |text: &str| text.try_into().expect("ASCII");
        let others = [
            SanType::DnsName(text("shop.example.com")),
            SanType::URI(text("https://shop.example.com/x")),
            SanType::Rfc822Name(text("shop@example.com")),
            SanType::IpAddress("192.0.2.1".parse().expect("an address")),
            SanType::IpAddress("2001:db8::1".parse().expect("an address")),
        ];
        let der = certificate(&name, &others);
        let is_of = |kind: &str, value: &str| {
            let subject = Subject::register(&format!("tls_client_auth_{kind}"), value).expect(value);
            assert_eq!(subject.to_metadata(), (&*format!("tls_client_auth_{kind}"), value.to_owned()));
            subject.is_of(&der)
        };
        for (kind, value) in [
            ("subject_dn", r"CN=a\,b,O=Example,C=DE"),
            ("subject_dn", r"cn=a\2cb,o=Example,c=DE"),
            ("san_dns", "shop.example.com"),
            ("san_dns", "Shop.Example.COM"),
            ("san_uri", "https://shop.example.com/x"),
            ("san_email", "shop@example.com"),
            ("san_ip", "192.0.2.1"),
            ("san_ip", "2001:db8::1"),
        ] {
            assert!(is_of(kind, value), "{kind} {value}");
        }
        for (kind, value) in [
            ("subject_dn", "CN=a"),
            ("subject_dn", r"CN=a\,b"),
            ("subject_dn", r"C=DE,O=Example,CN=a\,b"),
            ("subject_dn", r"CN=A\,b,O=Example,C=DE"),
            ("subject_dn", r"CN=a\,b+O=Example,C=DE"),
            ("subject_dn", r"CN=a\,b,O=Example,C=DE,C=DE"),
            ("san_dns", "example.com"),
            ("san_dns", "*.example.com"),
            ("san_dns", "shop@example.com"),
            ("san_uri", "https://shop.example.com/X"),
            ("san_email", "shop.example.com"),
            ("san_ip", "192.0.2.2"),
        ] {
            assert!(!is_of(kind, value), "{kind} {value}");
        }
        let wildcard = certificate(&name, &[SanType::DnsName(text("*.example.com"))]);
        assert!(!Subject::SanDns("shop.example.com".to_owned()).is_of(&wildcard), "a client is one, not a family");
        assert!(!Subject::SanDns("shop".to_owned()).is_of(b"not one"));
        for (kind, value) in
            [("subject_dn", ""), ("subject_dn", "shop"), ("subject_dn", "CN=a, O=b"), ("san_dns", ""), ("san_dns", "a b"), ("san_ip", "x")]
        {
            Subject::register(&format!("tls_client_auth_{kind}"), value).expect_err(value);
        }
    }
}
