//! What we read from an X.509 certificate: its digest, for whom it stands, and how long.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::clock::Timestamp;

/// The SHA-256 of a whole certificate, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The digest of `certificate`.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a [`Pin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected sha256: and 64 hexadecimal digits")]
pub struct NotAPin;

impl FromStr for Pin {
    type Err = NotAPin;

    /// Reads what [`fmt::Display`] writes; upper case and the colons that `openssl x509 -fingerprint` puts between bytes pass too.
    fn from_str(text: &str) -> Result<Self, NotAPin> {
        let (kind, digits) = text.trim().split_once(':').ok_or(NotAPin)?;
        if !kind.eq_ignore_ascii_case("sha256") {
            return Err(NotAPin);
        }
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b':').collect();
        let mut digest = [0; 32];
        if digits.len() != 2 * digest.len() {
            return Err(NotAPin);
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hexadecimal(pair[0])? << 4 | hexadecimal(pair[1])?;
        }
        Ok(Self(digest))
    }
}

fn hexadecimal(digit: u8) -> Result<u8, NotAPin> {
    let value = char::from(digit).to_digit(16).ok_or(NotAPin)?;
    Ok(u8::try_from(value).expect("a hexadecimal digit is below 16"))
}

/// What one certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its digest.
    pub pin: Pin,
    /// The names that it stands for (subjectAltName), DNS names and addresses as text.
    pub names: Vec<String>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

impl Certificate {
    /// Reads a certificate; `None` when it is not one.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
        let names = match certificate.get::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0.iter().filter_map(name).collect(),
            Ok(None) => Vec::new(),
            Err(_) => return None,
        };
        Some(Self {
            pin: Pin::of(der),
            names,
            not_before: timestamp(certificate.validity.not_before.to_unix_duration()),
            not_after: timestamp(certificate.validity.not_after.to_unix_duration()),
        })
    }

    /// How long it is still valid at `now`; `None` when it is not (yet, or any more).
    pub fn valid_for(&self, now: Timestamp) -> Option<Duration> {
        (self.not_before <= now && now < self.not_after).then(|| self.not_after.since(now))
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes().len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes.as_bytes()).ok()?).to_string()),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes.as_bytes()).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp::default().plus(since_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_written_and_as_openssl_writes_them() {
        let pin = Pin::of(&CertificateDer::from(b"anything".to_vec()));
        assert_eq!(pin.to_string().parse(), Ok(pin));
        let digits = &pin.to_string()[7..];
        let pairs: Vec<String> = digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
        assert_eq!(format!("SHA256:{}", pairs.join(":")).parse(), Ok(pin));
        for wrong in ["", "sha256:", digits, "sha1:00", "sha256:zz", &format!("sha256:{digits}00"), &format!("sha256:{}g", &digits[1..])] {
            assert_eq!(wrong.parse::<Pin>(), Err(NotAPin), "{wrong}");
        }
    }

    #[test]
    fn names_and_validity_are_read() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params =
            rcgen::CertificateParams::new(vec!["two.example.com".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]).expect("names");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let certificate = Certificate::read(params.self_signed(&key).expect("a certificate").der()).expect("readable");
        assert_eq!(certificate.names, ["two.example.com", "127.0.0.1", "::1"]);
        assert_eq!(certificate.not_before.to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(certificate.not_after.to_string(), "2027-01-01T00:00:00Z");
        let day = Duration::from_secs(86_400);
        assert_eq!(certificate.valid_for(certificate.not_after.minus(61 * day)), Some(61 * day));
        assert_eq!(certificate.valid_for(certificate.not_after), None);
        assert_eq!(certificate.valid_for(certificate.not_before.minus(day)), None);
        assert_eq!(Certificate::read(&CertificateDer::from(b"not one".to_vec())), None);
    }
}
