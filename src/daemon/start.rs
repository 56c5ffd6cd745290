//! Starting: the only place where the parts are wired together.

use std::path::PathBuf;
use std::sync::Arc;

use axum::{Router, middleware};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::sockets::{Sockets, port};
use super::{Running, StartError, parts};
use crate::audit::{Action, Entry};
use crate::clock::Clock;
use crate::config::{Loaded, Tls};
use crate::doors::admin::access::{Allowed, Group};
use crate::doors::admin::{self, AdminState};
use crate::doors::gateway::Gateway;
use crate::doors::relay::Relay;
use crate::doors::{authorization, browser, console, finish, link};
use crate::instance::Instance;
use crate::net::client::Client;
use crate::net::cores::Cores;
use crate::net::outgoing::Purpose;
use crate::net::places::Audience;
use crate::net::serve::{Server, Serving};
use crate::net::tls::{Identity, ServerTls, TlsError};
use crate::net::trust::Trust;
use crate::random::Random;
use crate::store::Store;
use crate::tasks::keeper::Links;
use crate::tasks::reload::Reloader;
use crate::tasks::{audit, purge, tokens, unsure};

/// The file in `$CREDENTIALS_DIRECTORY` that holds the state keys, when systemd hands them over (`LoadCredential=p2pid-key:…`).
const KEY_CREDENTIAL: &str = "p2pid-key";

/// Opens the store, binds every listener, then serves. When it returns, everything is up; peers may be down, all of them.
///
/// # Errors
/// [`StartError`]; nothing was served then.
pub async fn start(loaded: Loaded, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Running, StartError> {
    let config = Arc::new(loaded.config);
    let allowed = Allowed::new(config.admin.group.as_deref().map(Group::named).transpose()?, config.admin.socket.clone());
    let store = Store::open(&config.instance.state_dir, key_credential().as_deref(), Arc::clone(&clock))?;
    let instance = Arc::new(Instance::new(Arc::clone(&config), store, clock, random));
    let public_tls = tls(&instance, "[public]", &config.public.tls, ServerTls::new)?;
    let mtls = if config.mtls.listen.is_empty() { &Tls::Off } else { &config.mtls.tls };
    let mtls_tls = tls(&instance, "[mtls]", mtls, ServerTls::asking_for_certificates)?;
    let console_tls = tls(&instance, "[console]", &config.console.tls, ServerTls::new)?;
    let told = Entry::of(Action::DaemonStarted).with("version", env!("CARGO_PKG_VERSION"));
    let sockets = Sockets::bind(&config, allowed.gid())?;

    let links = Links::start(Arc::clone(&instance)).await?;
    let relay = Arc::new(Relay::start(Arc::clone(&instance), Arc::clone(&links)).await?);

    let to_applications = instance.outgoing.share(Purpose::Applications);
    let applications = Client::new(&Trust::system(&config.trust.ca)?, &config.limits, to_applications);
    let gateway = Arc::new(Gateway::new(Arc::clone(&instance), applications));

    let cores = Arc::new(Cores::start().map_err(StartError::Threads)?);
    let server = Server::new(&config.limits, &config.instance.name, instance.random.as_ref()).on(Arc::clone(&cores));
    server.set_limits(&config.limits, &config.public.trusted_proxies);
    parts::tell_of_files(&config.limits);
    let made = vec![
        parts::certificate("[public]", public_tls.clone(), |config| &config.public.tls, Arc::clone(&instance.clock)),
        parts::certificate("[mtls]", mtls_tls.clone(), |config| &config.mtls.tls, Arc::clone(&instance.clock)),
        parts::certificate("[console]", console_tls.clone(), |config| &config.console.tls, Arc::clone(&instance.clock)),
        parts::limits(server.clone(), Arc::clone(&instance)),
        parts::applications(Arc::clone(&gateway), Arc::clone(&instance)),
        parts::routes(Arc::clone(&gateway)),
        parts::peers(Arc::clone(&links)),
    ];
    let reloader = Arc::new(Reloader::new(Arc::clone(&instance), loaded.sources, made));
    let (ready, is_ready) = watch::channel(false);
    let state = Arc::new(AdminState {
        instance: Arc::clone(&instance),
        links: Arc::clone(&links),
        relay: Arc::clone(&relay),
        reloader: Arc::clone(&reloader),
        listeners: sockets.listening(&config),
        changes: admin::Changes::default(),
    });
    let kept = middleware::from_fn_with_state(Arc::clone(&instance), browser::keep_to_public_url);
    let pages = link::router(Arc::clone(&instance), Arc::clone(&links)).layer(kept);
    let built_in = authorization::router(&instance).merge(pages).merge(admin::public_router(Arc::clone(&state)));
    let built_in = built_in.layer(middleware::from_fn_with_state(Arc::clone(&instance), browser::tell_from_where));
    let built_in = finish::to_the_end(below_public_url(&instance, built_in), &instance.under_way);
    let public = sockets.public.into_iter().map(|listener| (listener, &public_tls));
    for (listener, tls) in public.chain(sockets.mtls.into_iter().map(|listener| (listener, &mtls_tls))) {
        let serving = Serving { tls: tls.clone(), extended_connect: true, spread: true, ..Serving::default() };
        server.serve(listener, serving, gateway.service(built_in.clone()));
    }
    for listener in sockets.local {
        let relay = relay.service(port(&listener));
        server.serve(
            listener,
            Serving { audience: Audience::Applications, extended_connect: true, spread: true, ..Serving::default() },
            relay,
        );
    }
    for listener in sockets.console {
        let console = finish::to_the_end(console::router(Arc::clone(&state), is_ready.clone(), port(&listener)), &instance.under_way);
        let serving = Serving { tls: console_tls.clone(), audience: Audience::Console, ..Serving::default() };
        server.serve(listener, serving, console);
    }
    let admin = finish::to_the_end(admin::socket_router(state, allowed), &instance.under_way);
    server.serve(sockets.admin, Serving { audience: Audience::Operators, ..Serving::default() }, admin);
    instance.store.write(move |transaction| transaction.record(&told)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(audit::run(Arc::clone(&instance)));
    tasks.spawn(purge::run(Arc::clone(&instance)));
    tasks.spawn(tokens::run(Arc::clone(&instance)));
    tasks.spawn(unsure::run(Arc::clone(&instance), Arc::clone(&links)));
    tasks.spawn(Arc::clone(&reloader).watch());
    ready.send_replace(true);
    let (event, name) = (Action::DaemonStarted.as_str(), &config.instance.name);
    tracing::info!(event, instance = name, public_url = config.instance.public_url.as_str(), "ready");
    Ok(Running { instance, links, reloader, server, cores, ready, tasks })
}

/// Our own paths, at the root and, for a public_url with a path, below it: a proxy may take the path away or leave it.
fn below_public_url(instance: &Instance, routes: Router) -> Router {
    match instance.config().instance.public_url.url().path().trim_end_matches('/') {
        "" => routes,
        path => routes.clone().nest(path, routes),
    }
}

/// The state keys that systemd hands over, which then take the place of `state_dir/key`.
pub fn key_credential() -> Option<PathBuf> {
    let file = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join(KEY_CREDENTIAL);
    file.exists().then_some(file)
}

fn tls(
    instance: &Instance,
    section: &'static str,
    tls: &Tls,
    make: fn(Identity) -> Result<ServerTls, TlsError>,
) -> Result<Option<ServerTls>, StartError> {
    let identity = parts::identity(&instance.config(), tls, &*instance.clock);
    identity.and_then(|identity| identity.map(make).transpose()).map_err(|source| StartError::Tls { section, source })
}
