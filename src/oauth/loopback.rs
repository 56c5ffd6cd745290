//! What can only be this machine: there plain http shows nothing to a network.

use std::net::IpAddr;

use url::{Host, Url};

/// Whether the host of `url` is this machine, by [`is_this_machine`]; a URL without a host is not.
pub fn is_loopback(url: &Url) -> bool {
    url.host().is_some_and(|host| is_this_machine(&host))
}

/// Whether `host` is a loopback address, or a name that stands for one: `localhost` and what lies below it (RFC 6761 §6.3). Names are taken in
/// lower case, as a parsed URL has them.
pub fn is_this_machine<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => name.as_ref() == "localhost" || name.as_ref().ends_with(".localhost"),
        Host::Ipv4(address) => is_loopback_address(IpAddr::V4(*address)),
        Host::Ipv6(address) => is_loopback_address(IpAddr::V6(*address)),
    }
}

/// Whether `address` is a loopback one, be it an IPv4 address in the form of an IPv6 one (RFC 4291 §2.5.5.2).
pub fn is_loopback_address(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_these_names_and_addresses_and_no_others() {
        for (url, expected) in [
            ("http://localhost/", true),
            ("http://LOCALHOST:8080/", true),
            ("http://one.localhost/", true),
            ("http://127.0.0.1/", true),
            ("http://127.255.0.9:1/", true),
            ("http://127.1/", true),
            ("http://[::1]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://[::ffff:192.0.2.1]/", false),
            ("http://0.0.0.0/", false),
            ("http://[::]/", false),
            ("http://192.168.0.1/", false),
            ("http://169.254.1.1/", false),
            ("http://[fe80::1]/", false),
            ("http://notlocalhost/", false),
            ("http://localhost.example/", false),
            ("http://localhost.localdomain/", false),
            ("http://127.0.0.1.example/", false),
            ("data:localhost", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).expect("a URL")), expected, "{url}");
        }
    }
}
