//! The files that a configuration names: certificates, keys, authorities. They are read here to be checked; whoever uses them
//! reads them again, and a change of one is a change of the configuration.

use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::load::read_file;
use super::section::Refusal;

/// More than any certificate chain or bundle of authorities has.
const MOST: u64 = 4 << 20;

/// The certificates of a PEM file.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    const EXPECTED: &str = "a PEM file with at least one certificate";
    let text = read(path, EXPECTED)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(Refusal::found(format!("no certificate in {}", path.display()), EXPECTED)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(Refusal::found(format!("{}, which is not PEM ({error})", path.display()), EXPECTED)),
    }
}

/// Reads a file of certificate authorities, each of which can be one.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let mut roots = RootCertStore::empty();
    let certificates = certificates(path)?;
    for (position, certificate) in certificates.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|error| {
            let found = format!("certificate {} of {}, which cannot be an authority ({error})", position + 1, path.display());
            Refusal::found(found, "certificates of authorities, in PEM")
        })?;
    }
    Ok(certificates)
}

/// A digest of certificates, by which others are told apart from them.
pub(super) fn digest_of(certificates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    certificates.iter().for_each(|certificate| digest.update(certificate));
    digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Checks that `key` is the private key of the first of `chain`.
pub(super) fn private_key(path: &Path, chain: Option<Vec<CertificateDer<'static>>>) -> Result<(), Refusal> {
    const EXPECTED: &str = "a PEM file with the certificate's private key";
    let text = zeroize::Zeroizing::new(read(path, EXPECTED)?);
    let key =
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| Refusal::found(format!("no private key in {}", path.display()), EXPECTED))?;
    let Some(chain) = chain else { return Ok(()) };
    match CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(Refusal::found(format!("{}, the key of another certificate", path.display()), "the key that belongs to `cert`"))
        }
        Err(error) => Err(Refusal::found(format!("{}, which cannot be used ({error})", path.display()), EXPECTED)),
    }
}

fn read(path: &Path, expected: &'static str) -> Result<Vec<u8>, Refusal> {
    read_file(path, MOST).map_err(|found| Refusal::found(format!("{}: {found}", path.display()), expected))
}
