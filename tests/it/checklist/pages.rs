//! A: what every page of ours carries, what its forms need, and what log-in bears.

use http::{HeaderName, HeaderValue, header};
use p2pid::cli::demo::browser::{Navigation, Page};

use crate::world::World;
use crate::world::client::Client;
use crate::world::node::Node;
use crate::world::person::Person;

/// Every kind of page: log-in, question, request page, linked, and errors.
async fn all_pages(world: &mut World, client: &Client) -> Vec<(&'static str, Page)> {
    world.introduces().await;
    let url = world.alpha.request_url("beta").await;
    let request = world.operator.opens(&url).await;
    let log_in = world.operator.goes_on_from(&request).continues().await;
    let question = world.operator.goes_on_from(&log_in).logs_in().await;
    let linked = world.operator.goes_on_from(&question).allows().await;
    let grants = world.operator.opens(&format!("{}/grants", world.beta.settings.url())).await;
    assert!(grants.form_with("grant").is_ok(), "{}", grants.text());
    let used = world.operator.opens(&url).await;
    let unknown = world.operator.opens(&format!("{}/link/p2pt_nothing", world.alpha.settings.url())).await;
    let callback = world.operator.opens(&format!("{}/oauth/callback?code=x&state=y", world.alpha.settings.url())).await;
    let no_client = world.operator.opens(&client.authorize(&world.beta).with("client_id", "nobody").url()).await;
    vec![
        ("request", request),
        ("log-in", log_in),
        ("question", question),
        ("linked", linked),
        ("grants", grants),
        ("used", used),
        ("unknown", unknown),
        ("callback", callback),
        ("no client", no_client),
    ]
}

#[tokio::test]
async fn a9_no_page_can_be_framed_or_sends_its_address_away() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let origin = |node: &Node| format!("https://{}", node.settings.public);
    let (alpha, beta) = (origin(&world.alpha), origin(&world.beta));
    for (what, page) in all_pages(&mut world, &client).await {
        let header = |name: &str| page.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let policy = header("content-security-policy");
        // Browsers apply it to the redirect after a POST too: each page names where its form leads in the end, and no more.
        let form_action = match what {
            "request" => format!("form-action 'self' {beta}"),
            "log-in" | "question" => format!("form-action 'self' {alpha}"),
            _ => "form-action 'self'".to_owned(),
        };
        let directives: Vec<&str> = policy.split("; ").collect();
        for directive in ["frame-ancestors 'none'", &form_action, "default-src 'none'"] {
            assert!(directives.contains(&directive), "{what}: {directive} is not in {policy}");
        }
        assert_eq!(header("x-frame-options").to_ascii_uppercase(), "DENY", "{what}");
        assert_eq!(header("referrer-policy"), "same-origin", "{what}");
        assert_eq!(header("cache-control"), "no-store", "{what}");
        assert!(!page.body.contains("<script") && !page.body.contains("http-equiv"), "{what}");
        for source in page.body.split("src=\"").skip(1) {
            assert!(!source.starts_with("http") && !source.starts_with("//"), "{what}: third-party content {source}");
        }
    }
}

#[tokio::test]
async fn a10_a_form_is_taken_only_with_its_token_from_our_own_pages() {
    let mut world = World::new().await;
    let asks = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")];
    for path in ["/login", "/logout", "/grants", "/oauth/authorize", "/oauth/callback", "/link/x"] {
        for method in ["GET", "OPTIONS", "PUT"] {
            let answer = world.beta.is_asked(method, path, &asks, "").await;
            let allowed = answer.headers.iter().find(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
            assert_eq!(allowed, None, "{method} {path}");
            if method != "GET" {
                assert_eq!((answer.status(), answer.header("p2pi-error")), (405, Some("method_not_allowed")), "{method} {path}");
            }
        }
    }
    let client = Client::registered(&world.beta, "shop").await;
    world.introduces().await;
    let request = world.alpha.request_url("beta").await;
    let request = world.operator.opens(&request).await;
    let log_in = world.operator.opens(&client.authorize(&world.beta).url()).await;
    let (login, password) = (world.operator.login.clone(), world.operator.password.clone());
    let log_in_form = log_in.form_with("password").and_then(|form| form.fill("username", &login)?.fill("password", &password));
    let forms = [("request page", request.form().expect("one form").submit()), ("log-in", log_in_form.expect("a log-in form").submit())];
    for (what, form) in forms {
        refused_when_forged(&mut world, what, &form).await;
        let answer = world.operator.browser.step(&form).await.expect("an answer");
        assert_eq!(answer.status, 303, "{what}: the honest form is taken after all that");
    }
    let question = world.operator.opens(&client.authorize(&world.beta).url()).await;
    let allow = question.form_with("decision").and_then(|form| form.press("decision", "allow")).expect("a question");
    refused_when_forged(&mut world, "question", &allow).await;
    let taken = world.operator.browser.step(&allow).await.expect("an answer");
    assert_eq!(taken.status, 303, "the honest form is taken after all that");
    let twice = world.operator.browser.step(&allow).await.expect("an answer");
    assert!(twice.status.is_client_error(), "a question is decided once, not {}", twice.status);
}

#[tokio::test]
async fn a10_a_log_out_is_taken_from_its_own_page_only_and_ends_the_session_for_good() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let request = client.authorize(&world.beta).url();
    let question = world.operator.opens(&request).logs_in().await;
    let cookies = sent_cookies(&mut world, &question.url);
    let logout = format!("{}/logout", world.beta.settings.url());
    let form = world.operator.opens(&logout).await.form().expect("one button").submit();
    refused_when_forged(&mut world, "log-out", &form).await;
    assert!(world.operator.opens(&request).await.form_with("decision").is_ok(), "nothing of it ended the session");

    let out = world.operator.browser.step(&form).await.expect("an answer");
    assert_eq!((out.status.as_u16(), out.title().starts_with("Signed out")), (200, true), "{}", out.text());
    assert!(world.operator.opens(&request).await.form_with("password").is_ok(), "the browser is signed in no more");
    // Whoever kept the cookie has nothing.
    let target = request.strip_prefix(&world.beta.settings.url()).expect("ours").to_owned();
    let kept = world.beta.is_asked("GET", &target, &[("Cookie", &cookies)], "").await;
    assert!(kept.header("location").is_some_and(|location| location.contains("/login?")), "{} {}", kept.first_line, kept.text());
}

#[tokio::test]
async fn a10_a_grant_is_withdrawn_from_its_own_page_only() {
    let (mut world, _) = World::linked().await;
    let page = world.operator.opens(&format!("{}/grants", world.beta.settings.url())).await;
    let form = page.form_with("grant").expect("one grant").submit();
    refused_when_forged(&mut world, "grants", &form).await;
    assert_eq!(world.beta.lists("grant").await.len(), 1, "nothing of it ended the grant");
    let query = form.body().expect("a form by POST").to_owned();
    let by_link = world.operator.opens(&format!("{}?{query}", page.url)).await;
    assert!(by_link.form_with("grant").is_ok(), "a GET withdraws nothing: {}", by_link.text());
    let done = world.operator.browser.step(&form).await.expect("an answer");
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(world.beta.lists("grant").await.is_empty());
}

/// The cookies that the operator's browser sends there.
fn sent_cookies(world: &mut World, url: &url::Url) -> String {
    let cookies = world.operator.browser.cookies().reaching(url);
    cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

/// The same form, forged in one thing after another.
async fn refused_when_forged(world: &mut World, what: &str, form: &Navigation) {
    let fetch_site = HeaderName::from_static("sec-fetch-site");
    let elsewhere = || Some(HeaderValue::from_static("https://evil.example"));
    let body = form.body().expect("a form by POST").to_owned();
    let (token, others): (Vec<&str>, Vec<&str>) = body.split('&').partition(|pair| pair.starts_with("token="));
    let other_token = if token[0].ends_with('A') { "B" } else { "A" };
    let other_token = format!("{}{other_token}", &token[0][..token[0].len() - 1]);
    let without_token = others.join("&");
    let with_other_token = format!("{without_token}&{other_token}");
    let cross_site = Some(HeaderValue::from_static("cross-site"));
    let forged = [
        ("from elsewhere", form.clone().with_header(header::ORIGIN, elsewhere())),
        (
            "from a hidden page elsewhere",
            form.clone()
                .with_header(header::ORIGIN, Some(HeaderValue::from_static("null")))
                .with_header(fetch_site.clone(), cross_site.clone()),
        ),
        ("without Origin, cross-site", form.clone().with_header(header::ORIGIN, None).with_header(fetch_site, cross_site)),
        ("without its token", form.clone().with_body(&without_token)),
        ("with another token", form.clone().with_body(&with_other_token)),
        ("without cookies", form.clone().with_header(header::COOKIE, None)),
    ];
    for (how, navigation) in forged {
        let page = world.operator.browser.step(&navigation).await.expect("an answer");
        assert!(page.status.is_client_error(), "{what} {how}: {} {:?}", page.status, page.way[0].location());
        assert_eq!(page.headers.get("access-control-allow-origin"), None, "{what} {how}");
    }
}

#[tokio::test]
async fn a12_no_parameter_sends_a_browser_elsewhere() {
    let mut world = World::new().await;
    let base = world.beta.settings.url();
    let targets = ["https://evil.example/", "//evil.example/", "/\\evil.example", "https:evil.example", "/login", "/p2pi/orders"];
    for target in targets {
        let encoded: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
        let mut person = Person::new(&world.operator.login, &world.operator.password, &[world.beta.settings.authority()]);
        let page = person.opens(&format!("{base}/login?next={encoded}")).logs_in().await;
        assert!(page.way.iter().all(|hop| hop.url.origin().ascii_serialization() == base), "{target}: {:?}", page.way);
        assert!(page.url.path() == "/login" && page.form_with("password").is_err(), "{target}: logged in, and nowhere else: {}", page.url);
    }
    for query in ["next", "return_to", "redirect", "redirect_uri", "continue", "url", "next_url"] {
        for target in ["https://evil.example/", "//evil.example/", "/\\evil.example", "https:evil.example"] {
            let encoded: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
            for path in ["login", "logout", "grants", "oauth/callback", "link/none"] {
                let page = world.operator.opens(&format!("{base}/{path}?{query}={encoded}")).await;
                assert_eq!(page.url.origin().ascii_serialization(), base, "{path}?{query}={target}");
                for form in page.forms() {
                    assert_eq!(form.action().origin().ascii_serialization(), base, "{path}?{query}={target}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a13_the_session_is_another_after_log_in_and_its_cookie_is_for_this_host_alone() {
    let mut world = World::new().await;
    let client = Client::registered(&world.beta, "shop").await;
    let page = world.operator.opens(&client.authorize(&world.beta).url()).logs_in().await;
    let lines = page.way.iter().flat_map(|hop| hop.headers.get_all(header::SET_COOKIE)).filter_map(|line| line.to_str().ok());
    let mut names = Vec::new();
    for line in lines {
        for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(line.contains(attribute), "{attribute} is not in {line}");
        }
        let (name, value) = line.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
        assert!(name.starts_with("__Host-") && !line.contains("Domain"), "{line}");
        names.extend((!value.is_empty()).then(|| name.to_owned()));
    }
    assert_eq!(names.len(), 2, "one before the log-in, another after it: {names:?}");
    let of_this_port = &p2pid::secret::Fingerprint::of(&world.beta.settings.url()).to_string()[..8];
    assert!(names.iter().all(|name| name.ends_with(of_this_port)), "cookies are not separated by port: {names:?}");
    let cookies = world.operator.browser.cookies().reaching(&page.url).len();
    assert_eq!(cookies, 1, "what came before the log-in is gone");
}
