//! Public keys of others: JSON Web Keys (RFC 7517) of the three algorithms that are believed, and their thumbprints (RFC 7638).
//!
//! A key says what it is once: its kind decides the algorithm, so that no header can choose another one for it (RFC 8725 §3.1). What is not
//! believed, HMAC and RSA PKCS#1 among it, has no form here at all.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};

use super::json::Members;
use super::thumbprint::{CertificateThumbprint, KeyThumbprint};

/// The algorithms that are believed, as the metadata name them: FAPI 2.0 §5.4.1.
pub const ALGORITHMS: [&str; 3] = ["EdDSA", "ES256", "PS256"];

/// Keys in a set at most.
const MOST_KEYS: usize = 50;
/// The bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// How something is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA with P-256 and SHA-256 (RFC 7518 §3.4).
    Es256,
    /// RSASSA-PSS with SHA-256 (RFC 7518 §3.5), with keys of 2048 bits at least.
    Ps256,
}

impl Algorithm {
    /// The algorithm of a header's `alg`. `Ed25519` is `EdDSA` by its newer name (RFC 9864).
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            "PS256" => Some(Self::Ps256),
            _ => None,
        }
    }

    /// As a header's `alg` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Ps256 => "PS256",
        }
    }
}

/// Why something is no public key that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It is not an object with the members of a key.
    #[error("a key is not a JSON Web Key")]
    Form,
    /// It has a private part, which is nobody else's to see.
    #[error("a key has a private part; give the public key alone")]
    Private,
    /// Its kind is not believed.
    #[error("a key is not one of Ed25519 (OKP), P-256 (EC), or RSA of 2048 to 8192 bits")]
    Kind,
    /// It is for something else than signatures, or for another algorithm.
    #[error("a key is not for signatures by EdDSA, ES256 or PS256 (alg, use, key_ops)")]
    Use,
    /// Its certificate is none, or another key's.
    #[error("a key's x5c does not begin with the certificate of that key")]
    Certificate,
    /// It is no set of keys at all.
    #[error("it is no JSON Web Key Set, an object with a list \"keys\"")]
    NoSet,
    /// The set has no keys, or too many.
    #[error("the set has {0} keys; 1 to 50 are read")]
    Number(usize),
    /// There are keys in the set, and none for us.
    #[error(
        "none of the set's keys can be used here: Ed25519 (OKP), P-256 (EC) or RSA of 2048 to 8192 bits, for signatures by EdDSA, ES256 or PS256"
    )]
    NoneUsable,
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    material: Material,
    thumbprint: KeyThumbprint,
    /// `kid`
    pub key_id: Option<String>,
    /// The certificate that `x5c` begins with (RFC 8705 §2.2.2), which is kept as `x5t#S256`.
    pub certificate: Option<CertificateThumbprint>,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    /// 32 bytes.
    Ed25519(Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
    /// Modulus and exponent, big-endian.
    Rsa(Vec<u8>, Vec<u8>),
}

impl PublicKey {
    /// Reads a JSON Web Key.
    pub fn from_jwk(value: &Value) -> Result<Self, BadKey> {
        let members = value.as_object().ok_or(BadKey::Form)?;
        let text = |name: &str| members.get(name).map(|value| value.as_str().ok_or(BadKey::Form)).transpose();
        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|private| members.contains_key(*private)) {
            return Err(BadKey::Private);
        }
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.ok_or(BadKey::Form)?).map_err(|_| BadKey::Form);
        let coordinate = |name: &str| bytes(name).and_then(|bytes| if bytes.len() == 32 { Ok(bytes) } else { Err(BadKey::Form) });
        let material = match (text("kty")?.ok_or(BadKey::Form)?, text("crv")?) {
            ("OKP", Some("Ed25519")) => Material::Ed25519(coordinate("x")?),
            ("EC", Some("P-256")) => Material::P256([vec![4], coordinate("x")?, coordinate("y")?].concat()),
            ("RSA", _) => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                // Leading zeros would give one key several thumbprints.
                let is_short = |number: &[u8]| number.first().is_some_and(|first| *first != 0);
                let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
                if !MODULUS.contains(&modulus.len()) || exponent.len() > 8 || !is_short(&modulus) || !is_short(&exponent) || !is_odd {
                    return Err(BadKey::Kind);
                }
                Material::Rsa(modulus, exponent)
            }
            _ => return Err(BadKey::Kind),
        };
        let algorithm = material.algorithm();
        let is_for_signatures = text("use")?.is_none_or(|purpose| purpose == "sig")
            && text("alg")?.is_none_or(|name| Algorithm::from_name(name) == Some(algorithm))
            && members.get("key_ops").is_none_or(|operations| {
                operations.as_array().is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
            });
        if !is_for_signatures {
            return Err(BadKey::Use);
        }
        let first = |chain: &Value| STANDARD.decode(chain.get(0)?.as_str()?).ok();
        let certificate = match members.get("x5c") {
            // RFC 7517 §4.7. Whoever could have any certificate called theirs would be taken for its owner, or shut its owner out.
            Some(chain) => {
                let certificate = first(chain).filter(|certificate| material.is_of(certificate)).ok_or(BadKey::Certificate)?;
                Some(CertificateThumbprint::of_der(&certificate))
            }
            None => text("x5t#S256")?.and_then(CertificateThumbprint::from_text),
        };
        Ok(Self { thumbprint: material.thumbprint(), material, key_id: text("kid")?.map(str::to_owned), certificate })
    }

    /// RFC 7638.
    pub fn thumbprint(&self) -> KeyThumbprint {
        self.thumbprint
    }

    /// The one algorithm that it is used with.
    pub fn algorithm(&self) -> Algorithm {
        self.material.algorithm()
    }

    /// Whether `signature` is its owner's under `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
            Material::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Material::Rsa(n, e) => RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, message, signature),
        };
        verified.is_ok()
    }

    /// The key as a JSON Web Key, with what it is for.
    pub fn to_jwk(&self) -> Value {
        let mut key: Value = serde_json::from_str(&self.material.canonical()).expect("the canonical form is JSON");
        key["use"] = "sig".into();
        if let Some(key_id) = &self.key_id {
            key["kid"] = key_id.as_str().into();
        }
        if let Some(certificate) = self.certificate {
            key["x5t#S256"] = certificate.to_string().into();
        }
        key
    }

    /// The key as it stands in the header of a proof: nothing but its material.
    pub fn to_bare_jwk(&self) -> String {
        self.material.canonical()
    }
}

impl Material {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::P256(_) => Algorithm::Es256,
            Self::Rsa(..) => Algorithm::Ps256,
        }
    }

    /// The members that are needed, in the order of their names, without spaces (RFC 7638 §3.2).
    fn canonical(&self) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed25519(x) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(x)),
            Self::P256(point) => {
                let (x, y) = point[1..].split_at(32);
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y))
            }
            Self::Rsa(n, e) => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n)),
        }
    }

    fn thumbprint(&self) -> KeyThumbprint {
        KeyThumbprint::of_canonical(&self.canonical())
    }

    /// Whether `certificate`, DER, is one of this key.
    fn is_of(&self, certificate: &[u8]) -> bool {
        let Ok(certificate) = Certificate::from_der(certificate) else { return false };
        let key = certificate.tbs_certificate.subject_public_key_info;
        let Some(bits) = key.subject_public_key.as_bytes() else { return false };
        match self {
            Self::Ed25519(point) => key.algorithm.oid == ED25519_KEY && bits == point,
            Self::P256(point) => {
                let curve = key.algorithm.parameters.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
                key.algorithm.oid == EC_KEY && curve == Some(P256_CURVE) && bits == point
            }
            Self::Rsa(n, e) => {
                let numbers = SliceReader::new(bits).and_then(|mut reader| {
                    reader.sequence(|reader| Ok((UintRef::decode(reader)?.as_bytes() == n, UintRef::decode(reader)?.as_bytes() == e)))
                });
                RSA_KEYS.contains(&key.algorithm.oid) && numbers == Ok((true, true))
            }
        }
    }
}

/// RFC 8410 §3.
const ED25519_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5480 §2.1.1.
const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// RFC 4055 §1.2: for any use, and for RSASSA-PSS alone.
const RSA_KEYS: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"), ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10")];

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("thumbprint", &self.thumbprint).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A JSON Web Key Set (RFC 7517 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// Reads a set. Keys of kinds and uses that are not ours are passed over, as the RFC asks; a private part is an error, for it has leaked.
    pub fn read(text: &[u8]) -> Result<Self, BadKey> {
        let document = Members::read(text).ok_or(BadKey::NoSet)?;
        let keys = document.0.get("keys").and_then(Value::as_array).ok_or(BadKey::NoSet)?;
        if !(1..=MOST_KEYS).contains(&keys.len()) {
            return Err(BadKey::Number(keys.len()));
        }
        let mut usable = Vec::new();
        for key in keys {
            match PublicKey::from_jwk(key) {
                Ok(key) => usable.push(key),
                Err(BadKey::Kind | BadKey::Use) => {}
                Err(error) => return Err(error),
            }
        }
        if usable.is_empty() { Err(BadKey::NoneUsable) } else { Ok(Self(usable)) }
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.0
    }

    /// Whether one of its keys has a certificate, or has that one.
    pub fn has_certificate(&self, wanted: Option<CertificateThumbprint>) -> bool {
        self.0.iter().filter_map(|key| key.certificate).any(|certificate| wanted.is_none_or(|wanted| wanted == certificate))
    }

    /// The keys that something may be signed with whose header names this algorithm and key.
    pub fn candidates<'a>(&'a self, algorithm: Algorithm, key_id: Option<&'a str>) -> impl Iterator<Item = &'a PublicKey> {
        let is_named = move |key: &PublicKey| key_id.is_none() || key.key_id.as_deref() == key_id;
        self.0.iter().filter(move |key| key.algorithm() == algorithm && is_named(key))
    }

    /// As it is kept and shown.
    pub fn to_json(&self) -> Value {
        serde_json::json!({ "keys": self.0.iter().map(PublicKey::to_jwk).collect::<Vec<_>>() })
    }
}

impl serde::Serialize for KeySet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for KeySet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Value::deserialize(deserializer)?;
        Self::read(document.to_string().as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RFC 7638 §3.1.
    const RSA_MODULUS: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let rsa = PublicKey::from_jwk(&json!({ "kty": "RSA", "n": RSA_MODULUS, "e": "AQAB", "alg": "PS256", "kid": "2011-04-29" }));
        let rsa = rsa.expect("a key");
        assert_eq!(rsa.thumbprint().to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!((rsa.algorithm(), rsa.key_id.as_deref()), (Algorithm::Ps256, Some("2011-04-29")));
        // RFC 8037 appendix A.3.
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let ed = PublicKey::from_jwk(&ed).expect("a key");
        assert_eq!(ed.thumbprint().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(KeyThumbprint::from_text(&ed.thumbprint().to_string()), Some(ed.thumbprint()));
        // RFC 9449 §6.1 with the key of §4.1.
        let ec = json!({ "kty": "EC", "crv": "P-256", "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA" });
        let ec = PublicKey::from_jwk(&ec).expect("a key");
        assert_eq!(ec.thumbprint().to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        for key in [rsa, ed, ec] {
            assert_eq!(PublicKey::from_jwk(&key.to_jwk()).expect("it reads back"), key);
        }
    }

    #[test]
    fn k2_what_is_no_public_key_for_our_algorithms_is_refused() {
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let with = |name: &str, value: Value| {
            let mut key = ed.clone();
            key[name] = value;
            PublicKey::from_jwk(&key).map(|_| ())
        };
        assert_eq!(with("use", json!("sig")), Ok(()));
        assert_eq!(with("key_ops", json!(["verify"])), Ok(()));
        for (name, value, expected) in [
            ("d", json!("x"), BadKey::Private),
            ("k", json!(""), BadKey::Private),
            ("kty", json!("oct"), BadKey::Kind),
            ("kty", json!(7), BadKey::Form),
            ("crv", json!("X25519"), BadKey::Kind),
            ("crv", json!("Ed448"), BadKey::Kind),
            ("x", json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="), BadKey::Form),
            ("x", json!("11qYAYKxCrfVS"), BadKey::Form),
            ("use", json!("enc"), BadKey::Use),
            ("alg", json!("ES256"), BadKey::Use),
            ("alg", json!("none"), BadKey::Use),
            ("key_ops", json!(["sign"]), BadKey::Use),
            ("x5c", json!([]), BadKey::Certificate),
            ("x5c", json!([STANDARD.encode(b"no certificate")]), BadKey::Certificate),
        ] {
            assert_eq!(with(name, value.clone()), Err(expected), "{name} {value}");
        }
        let rsa = |n: &str, e: &str| PublicKey::from_jwk(&json!({ "kty": "RSA", "n": n, "e": e })).map(|_| ());
        assert_eq!(rsa(RSA_MODULUS, "AQAB"), Ok(()));
        // 1024 bits; an even exponent; leading zeros.
        for (n, e) in [(&RSA_MODULUS[..172], "AQAB"), (RSA_MODULUS, "AQAA"), (RSA_MODULUS, "AAEAAQ"), (RSA_MODULUS, "")] {
            assert_eq!(rsa(n, e), Err(BadKey::Kind), "{e}");
        }
    }

    /// A certificate of a new key, and that key as a JSON Web Key.
    fn certified(algorithm: &'static rcgen::SignatureAlgorithm) -> (Vec<u8>, Value) {
        use rcgen::PublicKeyData;
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        let (bits, encode) = (key.der_bytes(), |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes));
        let jwk = match bits.len() {
            32 => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(bits) }),
            65 => json!({ "kty": "EC", "crv": "P-256", "x": encode(&bits[1..33]), "y": encode(&bits[33..]) }),
            // An RSAPublicKey of 2048 bits in DER: nine bytes before the modulus, two before the exponent.
            _ => json!({ "kty": "RSA", "n": encode(&bits[9..265]), "e": encode(&bits[267..]) }),
        };
        (certificate.der().to_vec(), jwk)
    }

    #[test]
    fn g7_a_key_has_the_certificate_of_its_own_and_keeps_it_when_it_is_stored() {
        let set = |key: &Value, chain: &[&[u8]]| {
            let mut key = key.clone();
            key["x5c"] = chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
            KeySet::read(json!({ "keys": [key] }).to_string().as_bytes())
        };
        let kinds = [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256];
        let certified: Vec<_> = kinds.iter().flat_map(|kind| [certified(kind), certified(kind)]).collect();
        for (own, key) in &certified {
            for (other, _) in certified.iter().filter(|(other, _)| other != own) {
                assert_eq!(set(key, &[other, own]), Err(BadKey::Certificate), "the certificate of another key, or of another kind");
                let read = set(key, &[own, other]).expect("its own");
                let stored: KeySet = serde_json::from_value(read.to_json()).expect("it reads back");
                let of = |certificate: &[u8]| Some(CertificateThumbprint::of_der(certificate));
                for set in [&read, &stored] {
                    assert!(set.has_certificate(None) && set.has_certificate(of(own)) && !set.has_certificate(of(other)));
                }
            }
            let plain = KeySet::read(json!({ "keys": [key] }).to_string().as_bytes()).expect("a set");
            assert!(!plain.has_certificate(None));
        }
    }

    #[test]
    fn a_set_passes_over_keys_of_other_kinds() {
        let ed = |kid: &str| json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": kid });
        let set = |keys: Value| KeySet::read(json!({ "keys": keys }).to_string().as_bytes());
        let read = set(json!([{ "kty": "EC", "crv": "P-384", "x": "", "y": "" }, ed("a"), ed("b")])).expect("a set");
        assert_eq!(read.keys().len(), 2);
        assert_eq!(read.candidates(Algorithm::EdDsa, Some("b")).count(), 1);
        assert_eq!(read.candidates(Algorithm::EdDsa, None).count(), 2);
        assert_eq!(read.candidates(Algorithm::Es256, None).count() + read.candidates(Algorithm::EdDsa, Some("c")).count(), 0);
        assert_eq!(KeySet::read(read.to_json().to_string().as_bytes()), Ok(read));
        assert_eq!(set(json!([])), Err(BadKey::Number(0)));
        assert_eq!(set(json!(vec![ed("a"); 51])), Err(BadKey::Number(51)));
        assert_eq!(set(json!([{ "kty": "OKP", "crv": "X25519", "x": "AAAA" }])), Err(BadKey::NoneUsable));
        assert_eq!(set(json!([{ "kty": "oct", "k": "AAAA" }])), Err(BadKey::Private));
        assert_eq!(KeySet::read(br#"{"keys":[],"keys":[]}"#), Err(BadKey::NoSet));
        assert_eq!(KeySet::read(b"[]"), Err(BadKey::NoSet));
    }
}
