//! A minimal valid configuration, one thing changed, one named refusal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// As little as a configuration can say.
const MINIMAL: &str = r#"
[instance]
name = "one"
public_url = "https://one.example.com:7443"
[public]
tls = "self-signed"
"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("a file");
    }
    folder
}

fn loaded(files: &[(&str, &str)]) -> Result<Config, Problems> {
    let folder = folder(files);
    load(&folder.path().join("one.toml")).map(|loaded| loaded.config)
}

/// The one problem of `text`: `LINE:COLUMN key: found …, expected …`.
fn refusal(text: &str) -> String {
    let problems = loaded(&[("one.toml", text)]).expect_err(text);
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| {
            format!("{}:{} {}: found {}, expected {}", problem.line, problem.column, problem.key, problem.found, problem.expected)
        })
        .collect();
    lines.join("\n")
}

#[test]
fn a_minimal_file_has_every_default() {
    let config = loaded(&[("one.toml", MINIMAL)]).expect("valid");
    assert_eq!(config.instance.state_dir, Path::new("/var/lib/p2pid/one"));
    assert_eq!(config.admin.socket, Path::new("/var/lib/p2pid/one/admin.sock"));
    assert_eq!(config.instance.p2pi_path, "/");
    assert_eq!(config.public.listen, [Listen::Tcp("[::]:7443".parse().expect("an address"))]);
    assert_eq!(config.local.listen, [Listen::Tcp("127.0.0.1:7480".parse().expect("an address"))]);
    assert_eq!(config.console.listen, [Listen::Tcp("127.0.0.1:7490".parse().expect("an address"))]);
    assert_eq!(config.console.tls, Tls::Off);
    assert!(!config.local.open && !config.public.hsts && !config.public.admin_api);
    assert_eq!(config.tokens, build::default::tokens());
    assert_eq!(config.limits, build::default::limits());
    assert_eq!(config.compat, Compat::default());
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let text = r#"[instance]
name = "-one"
public_url = "https://one.example.com/"
[limits]
drain = 10
colour = "blue"
[[route]]
path = "/oauth/x"
upstream = "ftp://127.0.0.1"
"#;
    let problems = loaded(&[("one.toml", text)]).expect_err("many problems");
    let found: Vec<(usize, usize, &str)> = problems.iter().map(|problem| (problem.line, problem.column, problem.key.as_str())).collect();
    let expected = [
        (1, 1, "public.tls.cert"),
        (1, 1, "public.tls.key"),
        (2, 8, "instance.name"),
        (3, 14, "instance.public_url"),
        (5, 9, "limits.drain"),
        (6, 1, "limits.colour"),
        (9, 12, "route[1].upstream"),
    ];
    assert_eq!(found, expected);
    let text = problems.to_string();
    assert!(text.contains("one.toml:5:9: limits.drain: found the number 10, expected a duration from"), "{text}");
    let json = serde_json::to_value(&problems).expect("JSON");
    assert_eq!(json["errors"][5]["key"], "limits.colour");
    assert_eq!(json["errors"][5]["found"], "an unknown key");
    assert_eq!(json["errors"][5].as_object().map(serde_json::Map::len), Some(6));
    assert!(problems.annotated(false).contains("5 | drain = 10"), "{}", problems.annotated(false));
}

#[test]
fn what_this_version_does_not_serve_is_refused_where_it_is_turned_on() {
    for key in ["onesait_default_key", "onesait_200_errors", "callback_prefix", "powerfolder_get_refresh"] {
        let column = key.len() + 4;
        let said = format!("8:{column} compat.{key}: found true, expected false: this version does not serve it");
        assert_eq!(refusal(&format!("{MINIMAL}[compat]\n{key} = true\n")), said);
        assert!(refusal(&format!("{MINIMAL}[compat]\n{key} = 1\n")).contains("found the number 1, expected true or false"), "{key}");
        loaded(&[("one.toml", &format!("{MINIMAL}[compat]\n{key} = false\n"))]).expect(key);
    }
    let served = loaded(&[("one.toml", &format!("{MINIMAL}[compat]\nquery_token = true\npassword_grant = true\n"))]).expect("valid");
    assert!(served.compat.query_token && served.compat.password_grant);
}

#[test]
fn a_listener_for_certificates_is_refused_where_it_could_ask_for_none() {
    let written = |mtls: &str| format!("{MINIMAL}[mtls]\n{mtls}\n");
    let url = "public_url = \"https://one.example.com:7444\"";
    let listen = "listen = [\"127.0.0.1:7444\"]";
    // (what is in `[mtls]`, all that is said of it)
    let cases = [
        (
            listen.to_owned(),
            "8:10 mtls.public_url: found nothing, expected the URL under which clients reach this instance with a certificate, such as \
             \"https://instance1.example.com:7444\"",
        ),
        (
            url.to_owned(),
            "8:14 mtls.public_url: found a URL at which nobody is asked for a certificate, expected `mtls.listen`, or \
             `mtls.client_cert_header` behind a proxy, which ask clients for certificates",
        ),
        (
            format!("{listen}\npublic_url = \"http://one.example.com:7444\""),
            "9:14 mtls.public_url: found \"http://one.example.com:7444\", expected an https URL: certificates are shown in TLS",
        ),
        (
            format!("{listen}\npublic_url = \"https://one.example.com:7444/below\""),
            "9:14 mtls.public_url: found \"https://one.example.com:7444/below\", expected the path of instance.public_url, /",
        ),
        (
            format!("{url}\nclient_cert_header = true"),
            "9:22 mtls.client_cert_header: found true, without `public.trusted_proxies`, expected the proxies that send Client-Cert",
        ),
        (
            format!("{listen}\n{url}\ntls = \"off\""),
            "8:11 mtls.listen[1]: found 127.0.0.1:7444 without TLS, expected a certificate of ours in `mtls.tls`, or in `public.tls`",
        ),
        (
            format!("listen = [\"unix:/run/one.sock\"]\n{url}"),
            "8:11 mtls.listen[1]: found a Unix socket, which has no TLS, expected an address with port",
        ),
    ];
    for (mtls, said) in cases {
        assert_eq!(refusal(&written(&mtls)), said, "{mtls}");
    }
    // What is taken already, and what are no authorities: the key, and what was found.
    let cases = [
        (format!("listen = [\"[::]:7443\"]\n{url}"), "8:11 mtls.listen[1]: found ", "[::]:7443"),
        (format!("{listen}\n{url}\nca = [\"one.toml\"]"), "10:7 mtls.ca[1]: found ", "one.toml"),
        (format!("{listen}\n{url}\nca = [\"none.pem\"]"), "10:7 mtls.ca[1]: found ", "none.pem"),
    ];
    for (mtls, place, found) in cases {
        let said = refusal(&written(&mtls));
        assert!(said.starts_with(place) && said.contains(found) && said.contains(", expected "), "{mtls}: {said}");
    }
    loaded(&[("one.toml", &written(&format!("{listen}\n{url}")))]).expect("valid");
}

#[test]
fn each_single_value_is_checked() {
    // (what is added to the minimal file, what is said of it)
    let cases = [
        ("[tokens]\naccess_ttl = \"0s\"", "tokens.access_ttl: found \"0s\", expected a duration from \"1s\""),
        ("[tokens]\naccess_ttl = \"off\"", "tokens.access_ttl: found \"off\""),
        ("[tokens]\nrefresh_ttl = \"11y\"", "tokens.refresh_ttl: found \"11y\""),
        ("[tokens]\nrotation = \"sometimes\"", "expected \"retry_safe\", \"strict\" or \"none\""),
        ("[tokens]\nretry_window = 60", "tokens.retry_window: found the number 60"),
        (
            "[[route]]\npath = \"/x\"\nupstream = \"http://127.0.0.1:1\"\nmethods = []",
            "methods: found an empty list, expected a list of methods",
        ),
        ("listen = []", "public.listen: found an empty list, expected a list of addresses"),
        ("[tokens]\ncode_ttl = \"11m\"", "tokens.code_ttl: found \"11m\", expected a duration from \"1s\" to \"10m\""),
        ("[limits]\nheader_bytes = \"4KiB\"", "expected a size from \"8KiB\" to \"1MiB\""),
        ("[limits]\nform_bytes = \"64 kilobytes\"", "limits.form_bytes: found \"64 kilobytes\""),
        ("[limits]\nbody_bytes = -1", "limits.body_bytes: found the number -1"),
        ("[limits]\nconnections = 0", "expected a whole number from 1 to 1000000"),
        ("[limits]\nconnections = 99999999999999999999", "found the number 99999999999999999999"),
        ("[limits]\nconnections = 1.5", "found the fraction 1.5"),
        ("[limits]\ndrain = 1979-05-27", "found the date or time 1979-05-27"),
        ("[limits]\nconnect_timeout = \"2d\"", "limits.connect_timeout: found \"2d\""),
        ("[limits]\nauth_failures = \"20/fortnight\"", "expected a rate such as \"20/min\""),
        ("[limits]\nauth_failures = \"0/min\"", "limits.auth_failures: found \"0/min\""),
        ("[limits]\nclient_requests = 5", "limits.client_requests: found the number 5, expected \"off\" or 0, or a rate such as"),
        ("[limits]\nclient_requests = \"0/min\"", "limits.client_requests: found \"0/min\""),
        ("[limits]\nnothing = 1", "limits.nothing: found an unknown key, expected one of header_bytes, form_bytes"),
        ("\"a\\u001b[2Jb\\u202e\" = 1", r"a\u{1b}[2Jb\u{202e}: found an unknown key"),
        ("[nothing]", "nothing: found an unknown key, expected one of instance, public"),
        ("limits = 5", "public.limits: found an unknown key, expected one of listen, tls"),
        ("[[tokens]]\naccess_ttl = \"1h\"", "tokens: found a list, expected a table, as in [tokens]"),
        ("[route]\npath = \"/a\"", "route: found a table, expected a list of tables, as in [[route]]"),
        ("[local]\nlisten = \"127.0.0.1:7480\"", "local.listen: found \"127.0.0.1:7480\", expected a list of addresses"),
        ("[local]\nlisten = [\"localhost:7480\"]", "local.listen[1]: found \"localhost:7480\", expected an address with port"),
        ("[local]\nlisten = [\"unix:\"]", "local.listen[1]: found \"unix:\", expected the path of a socket"),
        ("[local]\nopen = \"yes\"", "local.open: found \"yes\", expected true or false"),
        ("[local]\nopen = true\nlisten = [\"127.0.0.1:1\", \"0.0.0.0:2\"]", "local.open: found true, with local.listen on 0.0.0.0:2"),
        ("[local]\nhosts = [\"Apps.example.com\"]", "local.hosts[1]: found \"Apps.example.com\", expected a host name in lower case"),
        (
            "[console]\norigins = [\"https://apps.example.com/\"]",
            "console.origins[1]: found \"https://apps.example.com/\", expected a web origin",
        ),
        ("[console]\nlisten = [\"192.0.2.1:7490\"]", "console.listen[1]: found 192.0.2.1:7490 without TLS, expected a loopback address"),
        ("[console]\ntls = \"on\"", "console.tls: found \"on\", expected { cert ="),
        ("[console]\ntls = { cert = \"none.pem\" }", "console.tls.key: found nothing, expected the file of the private key"),
        ("[console]\nlisten = [\"127.0.0.1:7480\"]", "console.listen[1]: found 127.0.0.1:7480, which local.listen has"),
        ("[local]\nlisten = [\"unix:/s\"]\n[admin]\nsocket = \"/s\"", "admin.socket: found /s, which local.listen[1] has"),
        ("[admin]\ngroup = \"a:b\"", "admin.group: found \"a:b\""),
        ("[trust]\nca = [\"none.pem\"]", "trust.ca[1]: found "),
        ("[scopes]\n\"a b\" = \"x\"", "scopes.a b: found the scope \"a b\""),
        ("[scopes]\na = \"\"", "scopes.a: found \"\", expected one line"),
        ("[scopes]\na = { text = \"x\", team = \"y\" }", "scopes.a: found an unknown key team"),
        ("[compat]\nquery_token = 1", "compat.query_token: found the number 1"),
        ("[[route]]\nupstream = \"http://127.0.0.1\"", "route[1].path: found nothing"),
        ("[[route]]\npath = \"/a\"", "route[1].upstream: found nothing"),
        ("[[route]]\npath = \"/a/\"\nupstream = \"http://127.0.0.1\"", "route[1].path: found \"/a/\", expected a path such as"),
        ("[[route]]\npath = \"/a/../b\"\nupstream = \"http://127.0.0.1\"", "route[1].path: found \"/a/../b\""),
        ("[[route]]\npath = \"/a%2f\"\nupstream = \"http://127.0.0.1\"", "route[1].path: found \"/a%2f\""),
        (
            "[[route]]\npath = \"/oauth\"\nupstream = \"http://127.0.0.1\"",
            "route[1].path: found \"/oauth\", expected a path that is not /oauth",
        ),
        ("[[route]]\npath = \"/link/x\"\nupstream = \"http://127.0.0.1\"", "route[1].path: found \"/link/x\""),
        (
            "[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1?x\"",
            "route[1].upstream: found \"http://127.0.0.1?x\", expected a URL without query",
        ),
        (
            "[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1\"\nmethods = [\"get\"]",
            "route[1].methods[1]: found \"get\", expected a method",
        ),
        (
            "[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1\"\nscopes = [\"x\"]",
            "route[1].scopes[1]: found \"x\", expected a scope that [scopes]",
        ),
        ("[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1\"\npaths = \"wild\"", "route[1].paths: found \"wild\""),
        (
            "[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1\"\n[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1\"",
            "route[2].path: found \"/a\", which an earlier route has",
        ),
        (
            "[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1\"\npaths = \"raw\"\n[[route]]\npath = \"/a/b\"\nupstream = \"http://127.0.0.1\"",
            "route[1].paths: found \"raw\", with the route /a/b below it",
        ),
        (
            "[scopes]\nx = { text = \"X\", tenant = \"other\" }\n[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1\"\nscopes = [\"x\"]",
            "route[1].scopes[1]: found \"x\", a scope of tenant other, expected a scope of the route's tenant default",
        ),
    ];
    for (addition, said) in cases {
        let refusal = refusal(&format!("{MINIMAL}{addition}\n"));
        assert!(refusal.contains(said), "{addition}\n  says: {refusal}\n  not:  {said}");
        assert!(!refusal.contains('\n'), "{addition} has one problem, not:\n{refusal}");
    }
}

#[test]
fn public_urls_have_one_form() {
    let cases = [
        ("ftp://one.example.com", "expected a URL"),
        ("one.example.com", "expected a URL"),
        ("https://one.example.com/", "expected \"https://one.example.com\""),
        ("https://One.example.com", "expected \"https://one.example.com\""),
        ("https://one.example.com:443", "expected \"https://one.example.com\""),
        ("https://one.example.com?x=1", "expected a URL without query"),
        ("https://one.example.com#x", "expected a URL without query"),
        ("http://one.example.com", "expected an https URL"),
        ("http://127.0.0.1:7443", "expected an https URL"),
        ("https://me:hunter2@one.example.com", "found a URL with a user name or password in it"),
    ];
    for (url, said) in cases {
        let refusal = refusal(&MINIMAL.replace("https://one.example.com:7443", url));
        assert!(refusal.contains(said) && refusal.starts_with("4:14 instance.public_url"), "{url}: {refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
    let clear = MINIMAL.replace("https://one.example.com:7443", "http://127.0.0.1:7443").replace("\"self-signed\"", "\"off\"");
    assert!(loaded(&[("one.toml", &clear)]).is_err(), "without TLS only on loopback");
    let clear = format!("{clear}listen = [\"127.0.0.1:7443\"]\n");
    assert_eq!(loaded(&[("one.toml", &clear)]).expect("valid").instance.public_url.as_str(), "http://127.0.0.1:7443");
}

#[test]
fn parts_merge_in_the_order_of_their_names() {
    let files = [
        ("one.toml", MINIMAL),
        (
            "one.d/20-b.toml",
            "[limits]\ndrain = \"2s\"\n[local]\nlisten = []\n[[route]]\npath = \"/b\"\nupstream = \"http://127.0.0.1:2\"\n",
        ),
        ("one.d/10-a.toml", "[limits]\ndrain = \"1s\"\nconnections = 7\n[[route]]\npath = \"/a\"\nupstream = \"http://127.0.0.1:1\"\n"),
        ("one.d/.hidden.toml", "nonsense"),
        ("one.d/notes.txt", "nonsense"),
    ];
    let config = loaded(&files).expect("valid");
    assert_eq!(config.limits.drain, Duration::from_secs(2));
    assert_eq!(config.limits.connections, 7);
    assert!(config.local.listen.is_empty());
    assert_eq!(config.routes.iter().map(|route| route.path.as_str()).collect::<Vec<_>>(), ["/a", "/b"]);
    assert_eq!(config.instance.p2pi_path, "/a", "the first route's");
}

#[test]
fn a_problem_in_a_part_names_the_part() {
    let problems = loaded(&[("one.toml", MINIMAL), ("one.d/x.toml", "\n[limits]\n drain = 1")]).expect_err("a problem");
    let problem = problems.first();
    assert!(problem.file.ends_with("one.d/x.toml"), "{problem}");
    assert_eq!((problem.line, problem.column), (3, 10));
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let text =
        MINIMAL.replace("[public]", "state_dir = \"state\"\n[admin]\nsocket = \"admin.sock\"\n[public]\nlisten = [\"unix:public.sock\"]");
    let folder = folder(&[("one.toml", &text)]);
    let config = load(&folder.path().join("one.toml")).expect("valid").config;
    assert_eq!(config.instance.state_dir, folder.path().join("state"));
    assert_eq!(config.admin.socket, folder.path().join("admin.sock"));
    assert_eq!(config.public.listen, [Listen::Unix(folder.path().join("public.sock"))]);
}

#[test]
fn certificates_are_checked_with_their_keys() {
    let one = rcgen::generate_simple_self_signed(["one.example.com".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["one.example.com".to_owned()]).expect("a certificate");
    let (cert, key, other_key) = (one.cert.pem(), one.signing_key.serialize_pem(), other.signing_key.serialize_pem());
    let text = MINIMAL.replace("\"self-signed\"", "{ cert = \"cert.pem\", key = \"key.pem\" }\n[trust]\nca = [\"cert.pem\"]");
    let check = |cert: &str, key: &str| {
        loaded(&[("one.toml", &text), ("cert.pem", cert), ("key.pem", key)]).map_err(|problems| problems.to_string())
    };
    let config = check(&cert, &key).expect("valid");
    assert!(matches!(config.public.tls, Tls::Files { .. }));
    let bare = MINIMAL.replace("tls = \"self-signed\"", "");
    assert_eq!(
        loaded(&[("one.toml", &bare), ("cert.pem", &cert), ("key.pem", &key)]).map(|config| config.public.hsts),
        Ok(false),
        "the default files"
    );
    assert!(check(&cert, &other_key).expect_err("another key").contains("public.tls.key: found "));
    assert!(check(&cert, &other_key).expect_err("another key").contains("the key of another certificate"));
    assert!(check("", &key).expect_err("no certificate").contains("public.tls.cert: found no certificate in"));
    assert!(check(&cert, "").expect_err("no key").contains("public.tls.key: found no private key in"));
    assert!(check("-----BEGIN CERTIFICATE-----\n!", &key).expect_err("no PEM").contains("public.tls.cert"));
}

#[test]
fn hostile_files_are_told_apart() {
    let deep = format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let dotted = format!("{}a = 1", "a.".repeat(10_000));
    let long = format!("a = \"{}\"", "x".repeat(10 << 20));
    let cases: [(&[u8], &str); 9] = [
        (deep.as_bytes(), "cannot recurse further"),
        (dotted.as_bytes(), "recurs"),
        (long.as_bytes(), "1:1: file: found more than 1048576 bytes, expected a file of TOML, at most 1 MiB"),
        (b"a = \"x\0y\"", "1:7: TOML: found \"\\0\""),
        (b"[a]\n# \xff", "2:3: file: found the byte 0xff, which is not UTF-8, expected TOML, which is UTF-8"),
        (b"a = 1\na = 2", "2:1: TOML: found \"a\" (duplicate key)"),
        (b"a = ", "1:5: TOML: found "),
        (b"\xff\xfea\0", "1:1: file: found the byte 0xff, which is not UTF-8"),
        (b"[instance\nname = 1", "1:10: TOML: found "),
    ];
    for (bytes, said) in cases {
        let folder = folder(&[]);
        let path = folder.path().join("one.toml");
        std::fs::write(&path, bytes).expect("a file");
        let problems = load(&path).expect_err("hostile").to_string();
        assert!(problems.contains(said), "{}\n  not: {said}", problems.chars().take(1_000).collect::<String>());
        assert!(problems.len() < 100_000);
    }
    let folder = folder(&[]);
    let missing = load(&folder.path().join("one.toml")).expect_err("no file").to_string();
    assert!(missing.contains("one.toml:1:1: file: found no readable file (No such file or directory"), "{missing}");
    assert!(load(folder.path()).expect_err("a folder").to_string().contains("found a folder"));
}

#[test]
fn a_byte_order_mark_is_no_obstacle() {
    assert!(loaded(&[("one.toml", &format!("\u{feff}{MINIMAL}"))]).is_ok());
}

#[test]
fn the_socket_is_found_where_the_rest_is_wrong() {
    let located = |text: &str| {
        let folder = folder(&[("one.toml", text)]);
        let located = locate(&folder.path().join("one.toml"));
        (located.socket, located.warning.is_some())
    };
    assert_eq!(located("[admin]\nsocket = \"/s\"\n[limits]\ndrain = 1\n"), (PathBuf::from("/s"), false));
    assert_eq!(located("[instance]\nstate_dir = \"/d\"\n[public\n"), (PathBuf::from("/d/admin.sock"), true));
    assert_eq!(located("[instance\n"), (PathBuf::from("/run/p2pid/one/admin.sock"), true));
    assert_eq!(located(MINIMAL), (PathBuf::from("/var/lib/p2pid/one/admin.sock"), false));
    let gone = locate(Path::new("/nowhere/two.toml"));
    assert_eq!((gone.name.as_str(), gone.socket.as_path()), ("two", Path::new("/run/p2pid/two/admin.sock")));
    assert!(gone.warning.is_some());
}

#[test]
fn nobody_is_told_of_a_listener_for_certificates_before_it_listens() {
    let old = loaded(&[("one.toml", MINIMAL)]).expect("valid");
    let listens = format!("{MINIMAL}[mtls]\nlisten = [\"[::]:8444\"]\npublic_url = \"https://one.example.com:8444\"\n");
    let new = loaded(&[("one.toml", &listens)]).expect("valid");
    assert_eq!(Config::needs_restart(&old, &new), ["mtls.listen", "mtls.public_url"]);
    let applied = new.clone().applied_to(&old);
    assert!(applied.mtls.public_url.is_none() && applied.mtls.listen.is_empty(), "the metadata name no address of it");
    assert!(new.clone().applied_to(&new).mtls.public_url.is_some(), "a restart later");
    assert!(old.applied_to(&new).mtls.public_url.is_some(), "and as long as it listens");
}

#[test]
fn what_needs_a_restart_is_named() {
    let old = loaded(&[("one.toml", MINIMAL)]).expect("valid");
    let text = MINIMAL.replace("name = \"one\"", "name = \"two\"\nstate_dir = \"/var/lib/p2pid/one\"");
    let text = format!("{text}listen = [\"[::]:8443\"]\n[limits]\ndrain = \"1s\"\n[admin]\nsocket = \"/var/lib/p2pid/one/admin.sock\"\n");
    let new = loaded(&[("one.toml", &text)]).expect("valid");
    assert_eq!(Config::needs_restart(&old, &new), ["instance.name", "public.listen"]);
    assert_eq!(Config::needs_restart(&old, &old), Vec::<&str>::new());
    let applied = new.applied_to(&old);
    assert_eq!((applied.instance.name.as_str(), applied.limits.drain), ("one", Duration::from_secs(1)));
    assert_eq!(Config::needs_restart(&old, &applied), Vec::<&str>::new());
}

proptest::proptest! {
    /// Any text at all is read or refused; nothing panics.
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = loaded(&[("one.toml", &text)]).map_err(|problems| (problems.to_string(), problems.annotated(true)));
    }

    /// Nor does a file that is nearly right.
    #[test]
    fn no_nearly_right_file_panics(cut in 0_usize..6_000, addition in "[\\[\\]{}=\".a-z0-9/:\n é]{0,12}") {
        let text = example();
        let (before, after) = (text.chars().take(cut), text.chars().skip(cut + 3));
        let text: String = before.chain(addition.chars()).chain(after).collect();
        let _ = loaded(&[("one.toml", &text)]).map_err(|problems| (problems.to_string(), problems.annotated(true)));
    }
}
