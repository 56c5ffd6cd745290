//! Names of headers by which a client could claim what is for us, or for a proxy before us, to say.
//!
//! There is no standard for most of them: a proxy sets one, an application behind it believes it, and takes it from a client where no proxy
//! stands between. So the names that widely used proxies and the frameworks behind them use by themselves do not pass. No list of these is ever
//! whole, and what an application made up itself nobody else can know: it must not believe such a name without a proxy of its own that sets it.

/// How such names begin.
const BEGINNINGS: &[&str] = &[
    // Ours.
    "p2pi-",
    // Where a call came from, under which name, to which path.
    "x-forwarded-",
    "x-original-",
    "x-accel-",
    "x-envoy-",
    "x-azure-",
    "cloudfront-viewer-",
    "x-vercel-",
    "incap-",
    "x-sucuri-",
    // Who calls, as proxies that sign people in say it: Apache httpd and Authelia, Kubernetes, oauth2-proxy, Grafana, authentik,
    // Pomerium, mod_auth_openidc, Shibboleth, mod_auth_mellon, SiteMinder, WebSEAL, Google, AWS, Azure, Cloudflare, Tailscale.
    "remote-",
    "x-remote-",
    "x-auth-request-",
    "x-authenticated-",
    "x-webauth-",
    "x-authentik-",
    "x-pomerium-",
    "oidc-",
    "shib-",
    "mellon-",
    "sm-user",
    "iv-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-amzn-oidc-",
    "x-ms-client-principal",
    "x-ms-token-",
    "cf-access-",
    "tailscale-user-",
    // Kong, Vouch, Google's gateways, App Engine, Teleport, Kubernetes' front proxies.
    "x-consumer-",
    "x-credential-identifier",
    "x-anonymous-consumer",
    "x-vouch-",
    "x-apigateway-api-userinfo",
    "x-endpoint-api-userinfo",
    "x-appengine-",
    "teleport-",
    "impersonate-",
    // Which certificate a client showed: nginx, Apache httpd, HAProxy, Traefik, AWS, WebLogic.
    "client-cert",
    "x-client-cert",
    "x-client-dn",
    "x-client-verify",
    "x-ssl-",
    "ssl-",
    "x-tls-client-",
    "x-amzn-mtls-",
    "wl-proxy-",
];

/// Such names, whole.
const NAMES: &[&str] = &[
    "authorization",
    "dpop",
    "proxy",
    "forwarded",
    "x-forwarded",
    // Addresses.
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "x-cluster-client-ip",
    "x-originating-ip",
    "fly-client-ip",
    "do-connecting-ip",
    // Hosts, schemes and paths.
    "x-host",
    "x-http-host-override",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "cf-visitor",
    "x-arr-ssl",
    "x-script-name",
    "x-rewrite-url",
    // People and certificates.
    "x-proxy-user",
    "x-arr-clientcert",
    // Which file the proxy is to send in place of the answer.
    "x-sendfile-type",
    "x-sendfile",
    // By which Next.js once took a request for one of its own (CVE-2025-29927).
    "x-middleware-subrequest",
];

/// Whether a header of that name, in lower case and with `-` for whatever is no letter or digit, makes such a claim.
pub(super) fn are_made_by(name: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_lists_every_name() {
        let manual = include_str!("../manual/headers.md");
        for beginning in BEGINNINGS {
            assert!(manual.contains(&format!("`{beginning}*`")), "src/manual/headers.md has no `{beginning}*`");
        }
        for name in NAMES {
            assert!(manual.contains(&format!("`{name}`")), "src/manual/headers.md has no `{name}`");
        }
        for quoted in manual.lines().filter(|line| line.starts_with("| ")).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let known = quoted.strip_suffix('*').map_or(NAMES.contains(&quoted), |beginning| BEGINNINGS.contains(&beginning));
            assert!(known, "src/manual/headers.md has `{quoted}`, which passes");
        }
    }

    #[test]
    fn what_is_the_applications_own_passes() {
        for name in ["accept", "x-api-key", "x-request-id", "traceparent", "x-user-id", "x-tenant", "if-match", "idempotency-key"] {
            assert!(!are_made_by(name), "{name}");
        }
    }
}
