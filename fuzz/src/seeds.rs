//! Inputs to begin with: the least that each target takes, so that what is found by chance begins behind the first check.

use std::path::Path;
use std::{fs, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p2pid::oauth::dpop;
use p2pid::oauth::signing_key::SigningKey;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::json;

/// What a target is given.
pub struct Seeds {
    /// The target's name.
    pub target: &'static str,
    /// Its inputs.
    pub inputs: Vec<Vec<u8>>,
}

fn texts(target: &'static str, inputs: &[&str]) -> Seeds {
    Seeds { target, inputs: inputs.iter().map(|input| input.as_bytes().to_vec()).collect() }
}

/// Those of all targets.
pub fn all() -> Vec<Seeds> {
    let jwt = SigningKey::generate().sign(r#"{"alg":"ES256"}"#, r#"{"sub":"one"}"#);
    let assertion =
        format!("\nclient_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion={jwt}&client_id=one");
    let keys = [SigningKey::generate().public().to_jwk(), SigningKey::generate_ed25519().public().to_jwk(), rsa()];
    let key_set = json!({ "keys": keys }).to_string();
    let claims = r#"{"iss":"one","sub":"one","aud":"https://two.example:7443","exp":1000060,"iat":1000000,"nbf":1000000,"jti":"a"}"#;
    let proof = json!({
        "htm": "POST", "htu": "https://two.example:7443/p2pi/%6frders%2Fnew", "iat": 1_000_000, "jti": "a", "nonce": "n",
        "ath": dpop::token_hash("token"),
    });
    let der = certificate();
    let encoded = STANDARD.encode(&der);
    let subject = |kind: &str, value: &str| [format!("{kind}\n{value}\n").into_bytes(), der.clone()].concat();
    vec![
        texts(
            "token_request",
            &[
                "grant_type=authorization_code&code=p2pc_x&redirect_uri=https%3A%2F%2Fone.example%2Fcb&code_verifier=abc",
                "grant_type=refresh_token&refresh_token=p2pr_x&scope=a+b&resource=https://two.example",
                "grant_type=client_credentials&scope=",
            ],
        ),
        texts(
            "form",
            &[
                "application/x-www-form-urlencoded\n\n\u{7}=x&grant_type=refresh_token&refresh_token=p2pr_x&client_id=one&client_secret=s",
                "Application/X-WWW-Form-Urlencoded; charset=utf-8\n20\ntoken=p2pa_x&token_type_hint=access_token",
                "application/json\n\n{}",
                "application/x-www-form-urlencoded\n4096\nclient_id=a&response_type=code&redirect_uri=https://one.example/cb?a=b&state=%26",
            ],
        ),
        texts(
            "authorization_request",
            &[
                "response_type=code&client_id=one&redirect_uri=https%3A%2F%2Fone.example%2Fcb%3Fa%3Db&scope=p2pi+orders&state=s%26%23&\
                 code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256",
                "response_type=code&client_id=one&redirect_uri=http://127.0.0.1:1/cb&code_challenge_method=plain&code_challenge=a",
                "client_id=one&request_uri=urn:ietf:params:oauth:request_uri:p2pq_x",
                "client_id=one&request=a&response_mode=query&resource=https://two.example:7443/&dpop_jkt=a&scope=p2pi&scope=p2pi",
            ],
        ),
        texts(
            "unreadable",
            &[
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "POST /418 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcHEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHTTP/\r\n0\r\n\r\nGET /\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 29\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n\u{16}\u{3}\u{1}",
                "GET / HTTP/1.1\r\nHost: a\r\nX-Odd : 1\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nabcd",
                "GET / HTTP/3.0\r\n\r\n",
            ],
        ),
        texts(
            "browser_guard",
            &[
                "host:127.0.0.1:7490\norigin:http://127.0.0.1:7490\nsec-fetch-site:same-origin",
                "host:[::1]:7490",
                "host:console.example\norigin:https://tool.example\nsec-fetch-site:cross-site",
                "host:localhost:7490\nhost:localhost:7490",
            ],
        ),
        texts(
            "query_token",
            &["/a?x=1&access_token=t&y=%26", "/a?access%5Ftoken=t&&x", "/a?access_token=t&access_token=t", "/a?access_token"],
        ),
        texts(
            "audit_query",
            &[
                "since=2026-11-28T11:00:00Z&until=2026-12-01T06:00:00Z&action=peer.unlinked,login&record=two&actor=a&tenant=default&limit=5",
                "after=7&before=9&limit=1000",
                "action=daemon&limit=0",
            ],
        ),
        texts(
            "endpoint_answer",
            &[
                "201\n{\"request_uri\":\"urn:ietf:params:oauth:request_uri:a&b#c\",\"expires_in\":60}",
                "400\n{\"error\":\"invalid_request\",\"error_description\":\"no\"}",
                "400\n{\"error\":\"unsupported_token_type\"}",
                "302\n<html>",
            ],
        ),
        texts(
            "client_auth",
            &["Basic YTpi\n", "basic YSUzQTpiKw\nclient_id=a%3A", "\nclient_id=a&client_secret=b", "\nclient_id=a", &assertion],
        ),
        texts("bearer", &["\nBearer abc.-_~+/==", "a=b\ndpop abc", "access_token=x\nBearer abc", "\nBearer a\nBearer b"]),
        texts(
            "redirect_uri",
            &[
                "https://one.example/cb?a=b\nhttps://one.example/cb?a=b",
                "http://127.0.0.1:9000/cb\nhttp://127.0.0.1:1/cb",
                "http://[::1]/cb?x\nhttp://[::1]:80/cb?x",
                "http://localhost/\nhttp://localhost:1/",
                "http://127.0.0.1:0/cb\nhttp://127.0.0.1:1@two.example/cb",
            ],
        ),
        texts("scope", &["", "p2pi", "a b a https://x/y", "a  b", "\"a\\"]),
        texts(
            "jws",
            &[&jwt, "{\"alg\":\"EdDSA\",\"typ\":\"JWT\",\"kid\":\"a\"}\n{\"sub\":\"one\"}", "{\"alg\":\"ES256\",\"crit\":[]}\n{}"],
        ),
        texts("key", &[&key_set, r#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"EC","crv":"P-384"}]}"#]),
        texts("assertion", &[&format!("\n{claims}"), &format!("{{\"alg\":\"Ed25519\",\"typ\":\"application/jwt\"}}\n{claims}")]),
        texts("dpop", &[&format!("\n{proof}"), &format!("{{\"alg\":\"EdDSA\",\"typ\":\"dpop+jwt\",\"jwk\":{}}}\n{proof}", keys[1])]),
        texts(
            "path",
            &["/", "/p2pi/orders/%6frders;v=1", "/a%2fb//c", "/%c3%a4%e4", "/a/..%3b/b", "/%c0%ae", "/a%2F..%2Fb", "/a/%2e%2E/b", "/a\\b"],
        ),
        texts(
            "stripped_headers",
            &[
                "connection:close, x-a\nx-a:1\nte:trailers\nhost:a\nauthorization:Bearer a\ncontent-length:0",
                "p2pi-client:a\np2pi_scope:b\nx_forwarded_for:1.2.3.4\nforwarded:for=1.2.3.4\nclient-cert:::\ndpop:a",
                "cookie:a=b; __Host-p2pid-session-0=c\ncookie:p2pid-login-0=d\nset-cookie:=p2pid-session-0=a\nset-cookie:a=b",
                "p2pi-error:a\np2pi-error-from:us\nstrict-transport-security:max-age=1\ntransfer-encoding:chunked\nproxy-a:b",
            ],
        ),
        texts(
            "forwarded",
            &[
                "forwarded:for=6.6.6.6;proto=https, for=\"[2001:db8::1]:4711\"",
                "forwarded:for=6.6.6.6;x=\"\nforwarded:For=unknown;by=_a",
                "x-forwarded-for:6.6.6.6, 10.0.0.2\nx-forwarded-for:[::1]:80",
            ],
        ),
        Seeds { target: "client_certificate", inputs: vec![der.clone()] },
        Seeds {
            target: "certificate_subject",
            inputs: vec![
                subject("0", r"CN=a\,b,O=Example,C=DE"),
                subject("0", r"CN=a\2cb+O=Example,2.5.4.6=#1302"),
                subject("1", "shop.example.com"),
                subject("2", "https://shop.example.com/x"),
                subject("3", "192.0.2.1"),
                subject("3", "2001:db8::1"),
                subject("4", "shop@example.com"),
            ],
        },
        texts("client_cert_header", &[&format!("client-cert::{encoded}:\nclient-cert-chain::{encoded}:, :{encoded}:")]),
        texts("server_metadata", &[&metadata("https://two.example:7443/p2pi"), &metadata("https://other.example/p2pi")]),
        texts(
            "token_answer",
            &[
                "200\ncontent-type:application/json\ndate:Thu, 01 Jan 1970 00:00:00 GMT\n\n{\"access_token\":\"a\",\"token_type\":\"Bearer\",\
                 \"expires_in\":3600,\"refresh_token\":\"b\",\"refresh_token_expires_in\":\"1e3\",\"scope\":\"a  b\",\"p2pi_subject\":\"c\"}",
                "200\n\n{\"access_token\":7,\"refresh_token\":\"b\"}",
                "200\n\n{\"access_token\":\"a\",\"token_type\":\"mac\",\"expires_in\":\"-1\"}",
                "200\n\n{\"access_token\":\"a\",\"token_type\":\"DPoP\"}",
                "400\ndpop-nonce:n\n\n{\"error\":\"use_dpop_nonce\"}",
                "400\n\n{\"error\":\"invalid_grant\",\"error_description\":\"no\"}",
                "302\nlocation:/login\n\n<html>",
                "503\nretry-after:3\n\n",
            ],
        ),
        texts(
            "callback",
            &[
                "code=a&state=b&iss=https%3A%2F%2Ftwo.example%3A7443%2Fissuer",
                "error=access_denied&error_description=no&iss=https%3A%2F%2Ftwo.example%3A7443%2Fissuer",
                "error=a&code=b&iss=https%3A%2F%2Ftwo.example%3A7443%2Fissuer",
            ],
        ),
        texts(
            "configuration",
            &[
                include_str!("../../config/p2pid.toml"),
                "[instance]\nname = \"one\"\npublic_url = \"https://one.example\"\nstate_dir = \"state\"\n[public]\nlisten = [\"[::]:7443\"]\n\
                 tls = \"self-signed\"\n[[route]]\npath = \"/p2pi\"\nupstream = \"http://127.0.0.1:1/a\"\nscopes = [\"p2pi\"]\nmethods = [\"GET\"]\n\
                 [scopes]\np2pi = \"Call\"\norders = { text = \"Order\", tenant = \"default\" }\n[tokens]\naccess_ttl = \"1h 30m\"\n",
                "[limits]\ndrain = \"1\u{a0}s\"\nform_bytes = 7\n\u{e4}=1",
            ],
        ),
        texts(
            "admin_document",
            &[
                r#"{"data":{"type":"thing","attributes":{"name":"a","is_native":true,"count":7,"scopes":["a"],"grants":{"a":["b"]},"keys":{"keys":[]}}}}"#,
                r#"{"data":{"type":"thing","id":"a","attributes":{"name":"a","count":null,"colour":"b"}}}"#,
                r#"{"data":{"type":"thing","attributes":{"name":"a","name":"b"}}}"#,
            ],
        ),
        texts("cookies", &["cookie:a=b; __Host-p2pid-session-0123abcd=c\ncookie:d", "cookie:__Host-p2pid-session-0123abcd=a=b ;x"]),
        texts(
            "words",
            &[
                "order-7.a_B",
                "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
                "SHA256:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF",
                "0197f0a0-0000-7000-8000-000000000000",
                "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
                "https://one.example/a?b=c",
                "http://127.0.0.1:80/",
                "p2pa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA000000",
            ],
        ),
        texts("sealed", &["a secret", ""]),
        texts(
            "admin_credentials",
            &[
                "authorization:Basic b3BzQG9uZS5leGFtcGxlOnAycGtfQUFBQQ==",
                "authorization:basic  YTpiOmM= ",
                "authorization:Basic YWI=\nauthorization:Basic YTpi",
                "authorization:Bearer YTpi",
            ],
        ),
        texts(
            "introspection_answer",
            &["200\n{\"active\":true,\"scope\":\"p2pi\"}", "200\n{\"active\":\"true\"}", "200\n[]", "503\n{\"active\":false}"],
        ),
        texts(
            "token_refusal",
            &[
                r#"{"error":"invalid_grant","error_description":"gone","error_uri":"https://two.example/a"}"#,
                r#"{"error":"a\u202eb","error_description":7}"#,
                r#"{"error":{"error":"use_dpop_nonce"}}"#,
                r#"{"error":"slow_down"}"#,
            ],
        ),
        texts(
            "challenge",
            &[
                r#"DPoP error="use_dpop_nonce", error_description="a \" b", algs="ES256 PS256""#,
                r#"Negotiate YWJj==, Bearer realm="a, b=c" , DPoP Error = use_dpop_nonce"#,
                r#"DPoP realm="error=\"use_dpop_nonce\"""#,
            ],
        ),
    ]
}

/// Writes them below `corpus`, one folder for each target, and one file for each input that is not there.
///
/// # Errors
/// What the file system refuses.
pub fn write(corpus: &Path) -> io::Result<()> {
    for Seeds { target, inputs } in all() {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), input)?;
        }
    }
    Ok(())
}

/// A public RSA key of 2048 bits, which is nobody's.
fn rsa() -> serde_json::Value {
    json!({ "kty": "RSA", "e": "AQAB", "alg": "PS256", "use": "sig", "kid": "r", "n": format!("{}w", "v".repeat(341)), "key_ops": ["verify"] })
}

/// A certificate with a name of each kind.
fn certificate() -> Vec<u8> {
    let mut params = CertificateParams::default();
    for (kind, value) in [(DnType::CountryName, "DE"), (DnType::OrganizationName, "Example"), (DnType::CommonName, "a,b")] {
        params.distinguished_name.push(kind, value);
    }
    let text = |text: &str| text.try_into().expect("ASCII");
    params.subject_alt_names = vec![
        SanType::DnsName(text("shop.example.com")),
        SanType::URI(text("https://shop.example.com/x")),
        SanType::Rfc822Name(text("shop@example.com")),
        SanType::IpAddress("192.0.2.1".parse().expect("an address")),
        SanType::IpAddress("2001:db8::1".parse().expect("an address")),
    ];
    params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
}

fn metadata(calls: &str) -> String {
    json!({
        "issuer": "https://two.example:7443/issuer",
        "resource": "https://two.example:7443/issuer",
        "authorization_endpoint": "https://two.example:7443/oauth/authorize?a=b",
        "token_endpoint": "https://two.example:7443/oauth/token",
        "introspection_endpoint": "http://localhost/oauth/introspect",
        "revocation_endpoint": "http://127.0.0.1:1/oauth/revoke",
        "authorization_response_iss_parameter_supported": true,
        "p2pi_endpoint": calls,
        "scopes_supported": ["p2pi", 7],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
    })
    .to_string()
}
