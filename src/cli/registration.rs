//! What the other side of a link is told: the command that makes its half or changes it, where that is a p2pid; else where it finds what it needs.

use serde_json::Value;
use url::Url;

use super::context::{Context, DEFAULT_TENANT};
use super::failure::Failure;
use super::records::text;

/// This instance, as the other side has to name it.
pub(super) async fn this_instance(context: &Context<'_>) -> Result<Value, Failure> {
    Ok(context.client()?.fetch("/v2/status").await?["attributes"].take())
}

/// Where the peers of a tenant find its applications, when that is not where all find them that look no further: by one of its routes.
fn base_url(instance: &Value, tenant: &str, url: &str) -> Option<Result<String, String>> {
    if tenant == DEFAULT_TENANT {
        return None;
    }
    // The longest path comes first; the shortest takes most.
    let routes = instance["routes"].as_array()?;
    let path = routes.iter().rev().find(|route| route["tenant"] == tenant).map(|route| text(&route["path"]));
    Some(match path {
        Some(path) => Ok(format!("{}{}", url.trim_end_matches('/'), path.trim_end_matches('/'))),
        None => Err(format!(
            "No [[route]] has tenant = \"{tenant}\": its peers reach nothing until there is one, and then need --base-url {url}/PATH."
        )),
    })
}

/// What is to be done elsewhere with an IB app that was made here, or with `may_exist` changed. Its commands are for the other side, but for
/// `another_secret`, which makes one here.
pub(super) fn of_ib_app(app: &Value, instance: &Value, may_exist: bool, another_secret: &str) -> String {
    let (name, us, url) = (text(&app["name"]), text(&instance["instance"]), text(&instance["public_url"]));
    let has = |member: &str, value: &str| app[member].as_array().is_some_and(|values| values.iter().any(|found| found == value));
    let is_by_code = has("grants", "authorization_code");
    let signs = app["auth_method"] == "private_key_jwt";
    // A client that shows a certificate is asked for it elsewhere (RFC 8705 §5).
    let shows_certificate = app["mtls"] == true || text(&app["auth_method"]).ends_with("tls_client_auth");
    let endpoints = instance["mtls_public_url"].as_str().filter(|_| shows_certificate).unwrap_or(&url);
    let development_certificate = instance["development_certificate"].as_str();
    let base_url = base_url(instance, &text(&app["tenant"]), &url);
    let is_only_looking = app["scopes"].as_array().is_some_and(Vec::is_empty);
    if is_only_looking {
        return format!("It looks tokens up at {endpoints}/oauth/introspect. {}", issuer(&url));
    }
    let create = || {
        let method = if app["auth_method"] == "client_secret_post" { " --auth-method client_secret_post" } else { "" };
        let grant = if is_by_code { "" } else { " --grant client_credentials" };
        let update = if may_exist { " --or-update" } else { "" };
        let (client_id, scopes) = (text(&app["client_id"]), scope_flags(&app["scopes"]));
        let trust = development_certificate.map(|file| format!(" --ca {file}")).unwrap_or_default();
        let base = base_url.iter().flatten().map(|base| format!(" --base-url {base}")).collect::<String>();
        format!("p2pid peer create {us} --url {url}{base} --client-id {client_id}{scopes}{method}{grant}{trust}{update}")
    };
    let copied = match development_certificate {
        Some(file) if !signs => format!("\n{file} is the development certificate of {us}; on another host, give a copy of it."),
        _ => String::new(),
    };
    // Whether the other side has such a peer is not known here.
    let hint = match (signs, may_exist, app["client_secret"].is_null()) {
        (true, ..) => String::new(),
        (false, false, _) => format!("\nWhere {name} has the peer {us} already, add --or-update."),
        (false, true, false) => String::new(),
        (false, true, true) => format!("\nIts secret is the one that {name} has; for another one: {another_secret}"),
    } + &copied
        + &base_url.iter().filter_map(|base| base.as_ref().err()).map(|missing| format!("\n{missing}")).collect::<String>();
    // A p2pid whose keys are registered here has made them with its peer.
    let next = || match (signs, is_by_code) {
        (false, _) => create(),
        (true, true) => format!("p2pid peer request {us} --wait"),
        (true, false) => format!("p2pid peer refresh {us}"),
    };
    let is_elsewhere = |uri: &Value| !uri.as_str().is_some_and(|uri| uri.ends_with("/oauth/callback"));
    let is_third_party = app["redirect_uris"].as_array().is_some_and(|uris| uris.iter().any(is_elsewhere));
    let can_be_ours = (signs || text(&app["auth_method"]).starts_with("client_secret")) && app["native"] != true && app["mtls"] != true;
    match (can_be_ours && !is_third_party, is_by_code) {
        (true, true) => format!("On {name}:  {}{hint}", next()),
        (true, false) => {
            format!("When {name} is a p2pid, there:  {}{hint}\nElse:  tokens are at {endpoints}/oauth/token. {}", next(), issuer(&url))
        }
        (false, true) => {
            let par = match app["require_par"] == true {
                true => format!("par        {endpoints}/oauth/par  (first: authorize takes nothing but its request_uri)\n"),
                false => String::new(),
            };
            format!("{par}authorize  {url}/oauth/authorize  (PKCE: S256)\ntoken      {endpoints}/oauth/token\n{}", issuer(&url))
        }
        (false, false) => format!("token  {endpoints}/oauth/token\n{}", issuer(&url)),
    }
}

/// Who we are for a client that reads it up itself (RFC 8414 §3.1: what follows the host stands behind the well-known part).
fn issuer(public_url: &str) -> String {
    let Ok(mut metadata) = Url::parse(public_url) else { return format!("Issuer: {public_url}") };
    let path = metadata.path().trim_end_matches('/').to_owned();
    metadata.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    format!("Issuer: {public_url}, all else: {metadata}")
}

/// The command that registers an OB app which signs at the other side, when that is a p2pid, or with `may_exist` changes it there; `host` is what we
/// call it. Nothing for an app that does not sign.
pub(super) fn of_ob_app(app: &Value, instance: &Value, host: Option<&str>, may_exist: bool) -> Option<String> {
    if !signs(app) {
        return None;
    }
    let (name, url) = (text(&instance["instance"]), text(&instance["public_url"]));
    let from = match app["grant"].as_str() {
        None | Some("authorization_code") => format!("--peer-url {url}"),
        Some(grant) => format!("--grant {grant}"),
    };
    let (client_id, scopes, keys) = (text(&app["client_id"]), scope_flags(&app["scopes"]), text(&app["jwks_uri"]));
    let (host, update) = (host.unwrap_or("the other host"), if may_exist { " --or-update" } else { "" });
    Some(format!("On {host}:  p2pid ib create {name} {from} --client-id {client_id}{scopes} --jwks {keys}{update}"))
}

/// The command that makes known there that an OB app, which is registered, signs from now on.
pub(super) fn of_key(app: &Value, instance: &Value, host: Option<&str>) -> Option<String> {
    let (name, client_id, keys) = (text(&instance["instance"]), text(&app["client_id"]), text(&app["jwks_uri"]));
    signs(app).then(|| {
        let host = host.unwrap_or("the other host");
        format!(
            "On {host}:  p2pid ib update {name} --jwks {keys}\n{name} is the IB app with the client id {client_id} there: p2pid ib list"
        )
    })
}

fn signs(app: &Value) -> bool {
    !app["jwks_uri"].is_null() && app["auth_method"] != "none"
}

fn scope_flags(scopes: &Value) -> String {
    text(scopes).split_whitespace().map(|scope| format!(" --scope {scope}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TWO: &str = "https://two.example.com:7443";

    fn told_of(changes: Value, may_exist: bool) -> String {
        let mut app = json!({
            "name": "one", "client_id": "5f0c", "scopes": ["a", "p2pi"], "grants": ["authorization_code", "refresh_token"],
            "redirect_uris": ["https://one.example.com/oauth/callback"], "auth_method": "client_secret", "native": false, "mtls": false,
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            app[name] = value.clone();
        }
        let instance = json!({ "instance": "two", "public_url": TWO, "mtls_public_url": "https://two.example.com:7444" });
        of_ib_app(&app, &instance, may_exist, "p2pid ib rotate-secret one")
    }

    fn told(changes: Value) -> String {
        told_of(changes, false)
    }

    #[test]
    fn another_p2pid_is_told_what_to_do() {
        let create = format!("p2pid peer create two --url {TWO} --client-id 5f0c --scope a --scope p2pi");
        let hint = "\nWhere one has the peer two already, add --or-update.";
        assert_eq!(told(json!({})), format!("On one:  {create}{hint}"));
        assert_eq!(
            told(json!({ "auth_method": "client_secret_post" })),
            format!("On one:  {create} --auth-method client_secret_post{hint}")
        );
        assert_eq!(told(json!({ "auth_method": "private_key_jwt" })), "On one:  p2pid peer request two --wait");
        let itself = |method: &str| told(json!({ "grants": ["client_credentials"], "redirect_uris": [], "auth_method": method }));
        assert!(
            itself("client_secret")
                .starts_with(&format!("When one is a p2pid, there:  {create} --grant client_credentials{hint}\nElse:  "))
        );
        assert!(itself("private_key_jwt").starts_with("When one is a p2pid, there:  p2pid peer refresh two\n"));
    }

    #[test]
    fn a_development_certificate_is_named_where_it_has_to_be_trusted() {
        let instance = json!({ "instance": "two", "public_url": TWO, "development_certificate": "/var/lib/p2pid/two/tls/cert.pem" });
        let app = json!({
            "name": "one", "client_id": "5f0c", "scopes": ["p2pi"], "grants": ["authorization_code"], "auth_method": "client_secret",
            "client_secret": "s",
        });
        let told = of_ib_app(&app, &instance, true, "p2pid ib rotate-secret one");
        let create =
            format!("p2pid peer create two --url {TWO} --client-id 5f0c --scope p2pi --ca /var/lib/p2pid/two/tls/cert.pem --or-update");
        let copy = "/var/lib/p2pid/two/tls/cert.pem is the development certificate of two; on another host, give a copy of it.";
        assert_eq!(told, format!("On one:  {create}\n{copy}"));
    }

    #[test]
    fn a_tenants_peer_is_told_of_the_tenants_route() {
        let mut instance = json!({
            "instance": "two", "public_url": TWO,
            "routes": [{ "path": "/acme/more", "tenant": "acme" }, { "path": "/acme", "tenant": "acme" }, { "path": "/", "tenant": "default" }],
        });
        let mut app = json!({
            "name": "one", "client_id": "5f0c", "scopes": ["acme"], "grants": ["authorization_code"], "auth_method": "client_secret",
            "client_secret": "s", "tenant": "acme",
        });
        let create = format!("On one:  p2pid peer create two --url {TWO} --base-url {TWO}/acme --client-id 5f0c --scope acme");
        assert!(
            of_ib_app(&app, &instance, false, "p2pid ib rotate-secret one").starts_with(&create),
            "{}",
            of_ib_app(&app, &instance, false, "p2pid ib rotate-secret one")
        );
        instance["routes"] = json!([{ "path": "/", "tenant": "default" }]);
        let told = of_ib_app(&app, &instance, true, "p2pid ib rotate-secret one");
        assert!(
            !told.contains(" --base-url https://two.example.com:7443 ") && told.contains("\nNo [[route]] has tenant = \"acme\""),
            "{told}"
        );
        app["tenant"] = json!("default");
        assert!(!of_ib_app(&app, &instance, true, "p2pid ib rotate-secret one").contains("--base-url"));
    }

    #[test]
    fn who_is_there_already_is_updated() {
        let create = format!("p2pid peer create two --url {TWO} --client-id 5f0c --scope a --scope p2pi --or-update");
        assert_eq!(told_of(json!({ "client_secret": "given" }), true), format!("On one:  {create}"));
        let told = told_of(json!({}), true);
        assert_eq!(told, format!("On one:  {create}\nIts secret is the one that one has; for another one: p2pid ib rotate-secret one"));
    }

    #[test]
    fn who_shows_a_certificate_is_told_where_it_is_asked_for_one() {
        let by_code = told(json!({ "mtls": true }));
        assert!(by_code.contains(&format!("authorize  {TWO}/oauth/authorize")), "a browser shows none: {by_code}");
        assert!(by_code.contains("token      https://two.example.com:7444/oauth/token\n"), "{by_code}");
        for method in ["tls_client_auth", "self_signed_tls_client_auth"] {
            let itself = told(json!({ "grants": ["client_credentials"], "redirect_uris": [], "auth_method": method }));
            assert!(itself.starts_with("token  https://two.example.com:7444/oauth/token\n"), "{itself}");
        }
    }

    #[test]
    fn another_client_is_told_where_to_ask() {
        let metadata = format!("Issuer: {TWO}, all else: {TWO}/.well-known/oauth-authorization-server");
        for other in [
            json!({ "auth_method": "none" }),
            json!({ "native": true }),
            json!({ "mtls": true }),
            json!({ "auth_method": "self_signed_tls_client_auth" }),
            json!({ "redirect_uris": ["https://shop.example.com/done"] }),
        ] {
            let told = told(other);
            assert!(!told.contains("p2pid peer") && told.contains("/oauth/authorize") && told.ends_with(&metadata), "{told}");
        }
        let par = format!("par        {TWO}/oauth/par  (first: ");
        assert!(told(json!({ "native": true, "require_par": true })).starts_with(&par));
        assert!(!told(json!({ "native": true, "require_par": false })).contains("/oauth/par"));
        let looks = told(json!({ "scopes": [], "grants": ["client_credentials"], "redirect_uris": [] }));
        assert_eq!(looks, format!("It looks tokens up at {TWO}/oauth/introspect. {metadata}"));
        assert!(issuer("https://two.example.com/a").ends_with(" https://two.example.com/.well-known/oauth-authorization-server/a"));
    }

    #[test]
    fn the_other_host_is_told_how_to_register_a_key() {
        let mut app = json!({
            "client_id": "5f0c", "scopes": ["a", "p2pi"], "grant": "authorization_code", "jwks_uri": "https://one.example.com/oauth/jwks/7a",
        });
        let one = json!({ "instance": "one", "public_url": "https://one.example.com" });
        let flags = "--client-id 5f0c --scope a --scope p2pi --jwks https://one.example.com/oauth/jwks/7a";
        let create = of_ob_app(&app, &one, Some("two"), false);
        assert_eq!(create, Some(format!("On two:  p2pid ib create one --peer-url https://one.example.com {flags}")));
        let again = of_ob_app(&app, &one, Some("two"), true);
        assert_eq!(again, create.map(|create| create + " --or-update"));
        let update = of_key(&app, &one, Some("two")).expect("it signs");
        assert!(update.starts_with("On two:  p2pid ib update one --jwks https://one.example.com/oauth/jwks/7a\n"), "{update}");
        app["grant"] = json!("client_credentials");
        let create = of_ob_app(&app, &one, None, false);
        assert_eq!(create, Some(format!("On the other host:  p2pid ib create one --grant client_credentials {flags}")));
        app["jwks_uri"] = Value::Null;
        assert_eq!((of_ob_app(&app, &one, None, false), of_key(&app, &one, None)), (None, None));
    }
}
