//! Names of headers by which a client could claim what is for us, or for a proxy before us, to say.
//!
//! There is no standard for most of them: a proxy sets one, an application behind it believes it, and takes it from a client where no proxy
//! stands between. So the names that proxies and the frameworks behind them use by themselves never pass. What an application made up itself
//! nobody else can know; it must not believe that without a proxy of its own that sets it.

/// How such names begin.
const BEGINNINGS: &[&str] = &[
    // Ours.
    "p2pi-",
    // Where a call came from, under which name, to which path.
    "x-forwarded-",
    "x-original-",
    "x-accel-",
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
    // Hosts, schemes and paths.
    "x-host",
    "x-http-host-override",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "x-script-name",
    "x-rewrite-url",
    // People and certificates.
    "x-proxy-user",
    "x-arr-clientcert",
    // Which file the proxy is to send in place of the answer.
    "x-sendfile-type",
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
