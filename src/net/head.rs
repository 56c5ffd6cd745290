//! How long a request's head is: counted in one way for HTTP/1.1 and HTTP/2, so that what one of two hops takes the other takes too, but for
//! the two fields that the relay adds (the token and the request's name).
//!
//! The length is HTTP/2's (RFC 9113 §6.5.2): each field's name and value and 32 bytes; the path with its query; and the name of the host,
//! which HTTP/2 writes as `:authority` and HTTP/1.1 as `Host`. It is one of the fields either way. So are all cookies, which HTTP/2 may
//! send in crumbs, a field each (RFC 9113 §8.2.3).

use http::{Request, header};

/// Fields in one head at most: more are no platform's, and cost more to look through than their bytes say. It is what hyper has room for without
/// asking for memory, and what Envoy, Apache httpd and Tomcat allow unless they are told otherwise.
pub(super) const MOST_FIELDS: usize = 100;

/// What each field costs besides its name and value.
const PER_FIELD: usize = 32;

/// Whether a request's head has at most `most` bytes and [`MOST_FIELDS`] fields.
pub(super) fn is_within<B>(request: &Request<B>, most: usize) -> bool {
    let headers = request.headers();
    let field = |name: &str, value: usize| name.len() + value + PER_FIELD;
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let host = request.uri().authority().filter(|_| !headers.contains_key(header::HOST));
    let crumbs = headers.get_all(header::COOKIE).iter().count().saturating_sub(1);
    let count = headers.len() - crumbs + usize::from(host.is_some());
    let host = host.map_or(0, |authority| field(header::HOST.as_str(), authority.as_str().len()));
    let fields: usize = headers.iter().map(|(name, value)| field(name.as_str(), value.len())).sum();
    // Put together, crumbs have one name, and "; " between them.
    let fields = fields - crumbs * (field(header::COOKIE.as_str(), 0) - "; ".len());
    count <= MOST_FIELDS && path + host + fields <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_as_long_whichever_http_it_came_by() {
        let one = Request::get("/a?b").header("host", "two.example").header("x-long", "value").body(()).expect("a request");
        let two = Request::get("https://two.example/a?b").header("x-long", "value").body(()).expect("a request");
        let length = 4 + (4 + 11 + 32) + (6 + 5 + 32);
        for request in [one, two] {
            assert!(is_within(&request, length) && !is_within(&request, length - 1));
        }
    }

    #[test]
    fn cookies_are_one_field_however_they_are_sent() {
        let one = Request::get("/").header("cookie", ["a=1"; 300].join("; ")).body(()).expect("a request");
        let mut crumbs = Request::get("/").body(()).expect("a request");
        for _ in 0..300 {
            crumbs.headers_mut().append("cookie", "a=1".parse().expect("a value"));
        }
        let length = 1 + (6 + 300 * 3 + 299 * 2 + 32);
        for request in [one, crumbs] {
            assert!(is_within(&request, length) && !is_within(&request, length - 1));
        }
    }
}
