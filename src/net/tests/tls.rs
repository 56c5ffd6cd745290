//! Our own certificate: made, kept, replaced.

use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

fn url(text: &str) -> url::Url {
    text.parse().expect("a URL")
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_open_ones_live_on() {
    let ((old, old_pem), (new, new_pem)) = (identity(), identity());
    let (site, tls) = Site::secure(who_calls(), &old);
    let early = trusting(&old_pem);
    let before = text(&early, &site.secure_url("/")).await;
    tls.replace(new.clone());
    assert_eq!(tls.certificate(), *new.certificate());
    assert_eq!(text(&early, &site.secure_url("/")).await, before, "the same connection");
    text(&trusting(&new_pem), &site.secure_url("/")).await;
    text(&pinning(new.certificate().pin), &site.secure_url("/")).await;
    assert!(matches!(fetch(&trusting(&old_pem), &site.secure_url("/")).await, Err(FetchError::Untrusted(_))));
}

/// A certificate for 127.0.0.1 as `openssl req -x509` makes it, an authority's and its own, valid until `end`; and its PEM.
fn authoritys_own(end: Timestamp) -> (Identity, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = (std::time::SystemTime::UNIX_EPOCH + end.since(Timestamp::default())).into();
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert_file, &pem).expect("a file");
    std::fs::write(&key_file, key.serialize_pem()).expect("a file");
    (Identity::from_files(&cert_file, &key_file).expect("they fit"), pem)
}

#[tokio::test]
async fn c5_a_certificate_that_is_named_is_believed_though_it_is_an_authoritys_and_only_for_its_name_and_time() {
    let day = Duration::from_secs(86_400);
    let (right, pem) = authoritys_own(now().plus(day));
    let (site, tls) = Site::secure(who_calls(), &right);
    text(&trusting(&pem), &site.secure_url("/")).await;
    let more = Trust::system(&[]).expect("roots").with_authorities(pem.as_bytes(), "cert.pem").expect("a certificate");
    text(&Client::new(&more, &limits(), share()), &site.secure_url("/")).await;

    let by_name = site.secure_url("/").replace("127.0.0.1", "localhost");
    for (client, url, reason) in [
        (trusting(&pem), by_name.as_str(), "it stands for another name"),
        (trusting(&authoritys_own(now().plus(day)).1), &site.secure_url("/"), "it is not fit for a server (CaUsedAsEndEntity)"),
    ] {
        let Err(FetchError::Untrusted(untrusted)) = fetch(&client, url).await else { panic!("expected a refusal: {reason}") };
        assert_eq!(untrusted.reason, reason);
    }
    let (old, old_pem) = authoritys_own(now().minus(day));
    tls.replace(old);
    let Err(FetchError::Untrusted(untrusted)) = fetch(&trusting(&old_pem), &site.secure_url("/")).await else { panic!("it has expired") };
    assert_eq!(untrusted.reason, "it has expired");
}

#[test]
fn two_development_certificates_for_one_host_have_different_names() {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    use x509_cert::der::Decode;
    let subject = || {
        let der = CertificateDer::from_pem_slice(identity().1.as_bytes()).expect("PEM");
        x509_cert::Certificate::from_der(&der).expect("a certificate").tbs_certificate.subject.to_string()
    };
    let (one, other) = (subject(), subject());
    assert!(one.contains("127.0.0.1 (p2pid development certificate "), "{one}");
    assert_ne!(one, other);
}

#[test]
fn the_development_certificate_is_private_kept_and_made_anew_when_needed() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("tls");
    let one = url("https://one.example.com:7443");
    let first = Identity::self_signed(&folder, &one, now()).expect("a certificate");
    assert_eq!(first.certificate().names, ["one.example.com"]);
    let mode = || std::fs::metadata(&folder).expect("the folder").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o700);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("made open");
    Identity::self_signed(&folder, &one, now()).expect("a certificate");
    assert_eq!(mode(), 0o700, "one that stood open");
    for file in ["cert.pem", "key.pem"] {
        assert_eq!(std::fs::metadata(folder.join(file)).expect(file).permissions().mode() & 0o777, 0o600, "{file}");
    }
    let pin = |url: &url::Url, now: Timestamp| Identity::self_signed(&folder, url, now).expect("a certificate").certificate().pin;
    assert_eq!(pin(&one, now()), first.certificate().pin, "kept");
    let end = first.certificate().not_after;
    let renewed = pin(&one, end);
    assert_ne!(renewed, first.certificate().pin, "it has run out");
    assert_ne!(pin(&url("https://two.example.com"), end), renewed, "another host");
    let address = Identity::self_signed(&folder, &url("https://[::1]:7443"), end).expect("a certificate");
    assert_eq!(address.certificate().names, ["::1"]);
    assert_eq!(pin(&url("https://[::1]:7443"), end), address.certificate().pin, "kept");
    std::fs::write(folder.join("key.pem"), "damaged").expect("a file");
    let elsewhere = folder.join("elsewhere");
    std::fs::write(&elsewhere, "precious").expect("a file");
    std::os::unix::fs::symlink(&elsewhere, folder.join("key.pem.new")).expect("a link");
    pin(&one, end);
    assert_eq!(std::fs::read_to_string(&elsewhere).expect("read"), "precious", "a link that somebody put there is not followed");
}

#[test]
fn files_that_are_no_certificate_or_do_not_fit_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = |name: &str| {
        Identity::self_signed(&folder.path().join(name), &url("https://localhost"), now()).expect("a certificate");
        (folder.path().join(name).join("cert.pem"), folder.path().join(name).join("key.pem"))
    };
    let ((cert, key), (_, other_key)) = (make("one"), make("other"));
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").expect("a file");
    let missing = folder.path().join("missing.pem");
    let damaged = folder.path().join("damaged.pem");
    std::fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("a file");
    let cases = [
        (&missing, &key, &missing, "cannot be read"),
        (&empty, &key, &empty, "found no certificate"),
        (&damaged, &key, &damaged, "found a certificate that cannot be read"),
        (&cert, &missing, &missing, "cannot be read"),
        (&cert, &empty, &empty, "found nothing that is a private key"),
        (&cert, &cert, &cert, "found nothing that is a private key"),
        (&cert, &other_key, &other_key, "found a key of another certificate"),
    ];
    for (cert, key, named, found) in cases {
        let error = Identity::from_files(cert, key).expect_err(found).to_string();
        assert!(error.starts_with(&named.display().to_string()) && error.contains(found) && error.contains("expected"), "{error}");
    }
    Identity::from_files(&cert, &key).expect("these fit");
}

#[tokio::test]
async fn who_speaks_http_to_a_tls_port_is_told() {
    let (site, _) = Site::secure(who_calls(), &identity().0);
    let response = fetch(&anybody(), &site.url("/")).await.expect("an answer");
    assert_eq!(response.status(), 400);
    assert!(response.body().ends_with(b"expected TLS: the URL begins with https://\n"), "{response:?}");
    until("its end", || site.server.connections() == 0).await;
}

/// The first flight of a client whose newest TLS is `version` (RFC 5246 §7.4.1.2), and which could do with our certificate and its key.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    // ECDHE-ECDSA with AES: in GCM, as TLS 1.2 has it, and in CBC, as all before have it.
    let ciphers = [0xc0, 0x2b, 0xc0, 0x09, 0xc0, 0x0a];
    // secp256r1, points as they are, ECDSA with SHA-256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3];
    let mut hello = version.to_vec();
    hello.extend([7; 32]);
    hello.extend([0, 0, 6]);
    hello.extend(ciphers);
    hello.extend([1, 0, 0, 22]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).expect("a short one");
    [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat()
}

#[tokio::test]
async fn c5_tls_before_1_2_is_refused_as_too_old() {
    let (identity, _) = identity();
    let (site, _) = Site::secure(who_calls(), &identity);
    for version in [[3, 0], [3, 1], [3, 2], [3, 3]] {
        let mut stream = TcpStream::connect(site.address).await.expect("a connection");
        stream.write_all(&client_hello(version)).await.expect("a reader");
        let mut record = [0; 7];
        soon("an answer", stream.read_exact(&mut record)).await.expect("an answer");
        if version == [3, 3] {
            assert_eq!((record[0], record[5]), (0x16, 2), "TLS 1.2 goes on with a server hello");
        } else {
            // A fatal alert, protocol_version (RFC 8446 §6.2).
            assert_eq!((record[0], &record[5..]), (0x15, &[2, 70][..]), "{version:?}");
        }
    }
}
