//! Realms over the admin API: IB apps that sign people in, their roles, and who holds which.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Router, routing};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{self, Document, Named};
use super::ib_apps::settings::{access_ttl, redirect_uri, secret};
use super::{AdminError, AdminState, Caller, gate};
use crate::audit::{Action, Entry};
use crate::config::Config;
use crate::id::Id;
use crate::inbound::ib_app::{GrantType, IbApp};
use crate::inbound::realm::{self, Realm};
use crate::inbound::user::User;
use crate::instance::Instance;
use crate::oauth::redirect_uri::RedirectUri;
use crate::oauth::token::{self, Kind};
use crate::secret::{ExposeSecret, SecretString};
use crate::store::grant::ending::Ending;
use crate::store::realm::{self as rows, Unassigned};
use crate::store::{Fault, Seals, Transaction, ib_app, user};
use crate::tasks::endings::{self, Whose};

const KIND: &str = "realm";

/// `/tenants/{tenant}/realms`, one of them, and what is done with its roles.
pub(super) fn router() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/tenants/{tenant}/realms", routing::get(list).post(create))
        .route("/tenants/{tenant}/realms/{name}", routing::get(show).patch(update).delete(delete))
        .route("/tenants/{tenant}/realms/{name}/role", routing::post(put_role))
        .route("/tenants/{tenant}/realms/{name}/delete-role", routing::post(delete_role))
        .route("/tenants/{tenant}/realms/{name}/assign", routing::post(assign))
        .route("/tenants/{tenant}/realms/{name}/unassign", routing::post(unassign))
}

#[derive(Deserialize)]
struct Create {
    name: String,
    #[serde(default)]
    or_update: bool,
    key: Option<SecretString>,
    token_validity: Option<u64>,
    description: Option<String>,
    redirect_uris: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Update {
    key: Option<SecretString>,
    token_validity: Option<u64>,
    description: Option<String>,
    redirect_uris: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct PutRole {
    role: String,
    description: Option<String>,
    #[serde(default)]
    or_update: bool,
}

#[derive(Deserialize)]
struct DeleteRole {
    role: String,
}

#[derive(Deserialize)]
struct Assignment {
    user: String,
    role: String,
}

/// What is given for a realm, checked; what is not given stays as it is.
#[derive(Clone)]
struct Settings {
    key: Option<SecretString>,
    token_validity: Option<std::time::Duration>,
    description: Option<String>,
    redirect_uris: Option<Vec<RedirectUri>>,
}

impl Settings {
    fn checked(given: Update) -> Result<Self, AdminError> {
        let key = given.key.map(secret).transpose().map_err(|error| error.of("key"))?;
        let token_validity = given.token_validity.map(access_ttl).transpose().map_err(|error| error.of("token_validity"))?;
        let description = given.description.map(description).transpose()?;
        let redirect_uris = given.redirect_uris.map(|uris| uris.iter().map(|uri| redirect_uri(uri)).collect()).transpose()?;
        Ok(Self { key, token_validity, description, redirect_uris })
    }

    fn applied_to(&self, mut app: IbApp) -> IbApp {
        app.access_ttl = self.token_validity.or(app.access_ttl);
        if let Some(redirect_uris) = &self.redirect_uris {
            app.redirect_uris.clone_from(redirect_uris);
        }
        app
    }

    /// Writes what is given for a realm that exists. Its tokens stay as they are: they have their life and their digests already.
    fn change(&self, transaction: &Transaction<'_>, seals: &Seals, old: Realm, key_id: Id) -> Result<(), Fault> {
        let app = self.applied_to(old.app);
        ib_app::update(transaction, &app)?;
        if let Some(key) = &self.key {
            let key = ib_app::new_secret(seals, key_id, app.id, key, transaction.now().wall);
            ib_app::replace_secrets(transaction, app.id, &[key])?;
        }
        match &self.description {
            Some(description) => rows::describe(transaction, app.id, description),
            None => Ok(()),
        }
    }
}

async fn list(State(state): State<Arc<AdminState>>, Path(tenant): Path<String>) -> Result<Response, AdminError> {
    let realms = state.instance.store.read(move |connection| rows::of_tenant(connection, &tenant)).await?;
    let config = state.instance.config();
    Ok(document::shown(realms.iter().map(|realm| resource(realm, &config, None)).collect::<Vec<_>>()))
}

async fn show(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let wanted = name.clone();
    let realm = state.instance.store.read(move |connection| rows::by_name(connection, &tenant, &wanted)).await?;
    realm.map(|realm| document::shown(resource(&realm, &state.instance.config(), None))).ok_or_else(|| AdminError::not_found(KIND, &name))
}

/// What became of a new realm.
enum Made {
    New(Realm),
    Updated(Realm),
    Exists,
    Taken,
}

async fn create(
    State(state): State<Arc<AdminState>>,
    Path(tenant): Path<String>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let Create { name, or_update, key, token_validity, description, redirect_uris } = document.attributes(KIND)?;
    gate::must_be_able_to_update(&caller, &tenant, "realms", or_update)?;
    if or_update && key.is_some() {
        gate::must_be_able_to_know_secret(&caller, &tenant, "realms")?;
    }
    if !realm::is_identification(&name) {
        return Err(AdminError::bad_attribute("name", name, "1 to 50 letters, digits, '_' and '-'"));
    }
    let settings = Settings::checked(Update { key, token_validity, description, redirect_uris })?;
    let key = settings.key.clone().unwrap_or_else(|| token::mint(Kind::ClientSecret, state.instance.random.as_ref()));
    let (id, key_id) = (new_id(&state.instance), new_id(&state.instance));
    let app = settings.applied_to(realm::app(id, tenant, name.clone(), state.instance.clock.now().wall));
    let seals = state.instance.store.seals().clone();
    let given = key.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let find = |transaction: &Transaction<'_>| {
            rows::by_name(transaction, &app.tenant, &app.name)?
                .ok_or_else(|| Fault::Corrupt { table: "realm", what: "it is gone".to_owned() })
        };
        if let Some(old) = rows::by_name(transaction, &app.tenant, &app.name)? {
            if !or_update {
                return Ok(Made::Exists);
            }
            settings.change(transaction, &seals, old, key_id)?;
            transaction.record(&Entry::of(Action::RealmUpdated).on(app.record()))?;
            return find(transaction).map(Made::Updated);
        }
        if !ib_app::insert(transaction, &app)? {
            return Ok(Made::Taken);
        }
        rows::insert(transaction, app.id, settings.description.as_deref().unwrap_or_default())?;
        let secret = ib_app::new_secret(&seals, key_id, app.id, &given, app.created_at);
        ib_app::replace_secrets(transaction, app.id, &[secret])?;
        transaction.record(&Entry::of(Action::RealmCreated).on(app.record()))?;
        find(transaction).map(Made::New)
    };
    match state.instance.store.write(judge).await? {
        Made::New(realm) => Ok(document::created(resource(&realm, &state.instance.config(), Some(&key)))),
        Made::Updated(realm) => Ok(changed(&state, &realm)),
        Made::Exists => Err(AdminError::exists(KIND, &name)),
        // Without saying whose it is, or what: another tenant's records are nobody else's affair.
        Made::Taken => Err(AdminError::new(StatusCode::CONFLICT, "exists", "the name is taken, here or as a client_id")
            .found(name)
            .next("choose another name")),
    }
}

async fn update(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    let settings = Settings::checked(document.attributes(KIND)?)?;
    if settings.key.is_some() {
        gate::must_be_able_to_know_secret(&caller, &tenant, "realms")?;
    }
    let key_id = new_id(&state.instance);
    let seals = state.instance.store.seals().clone();
    let wanted = name.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let Some(old) = rows::by_name(transaction, &tenant, &wanted)? else { return Ok(None) };
        let told = old.app.record();
        settings.change(transaction, &seals, old, key_id)?;
        transaction.record(&Entry::of(Action::RealmUpdated).on(told))?;
        rows::by_name(transaction, &tenant, &wanted)
    };
    let realm = state.instance.store.write(judge).await?.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    Ok(changed(&state, &realm))
}

/// Whoever is signed in by the realm is signed out.
async fn delete(State(state): State<Arc<AdminState>>, Path((tenant, name)): Path<(String, String)>) -> Result<Response, AdminError> {
    let wanted = name.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let Some(realm) = rows::by_name(transaction, &tenant, &wanted)? else { return Ok(None) };
        ib_app::delete(transaction, realm.app.id)?;
        transaction.record(&Entry::of(Action::RealmDeleted).on(realm.app.record()))?;
        Ok(Some(realm.app.id))
    };
    let app = state.instance.store.write(judge).await?.ok_or_else(|| AdminError::not_found(KIND, &name))?;
    state.instance.tokens.end_app(app);
    Ok(document::done())
}

async fn put_role(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let PutRole { role, description: text, or_update } = document.attributes(KIND)?;
    let role = role_name(role)?;
    let text = text.map(description).transpose()?;
    let id = new_id(&state.instance);
    let made = role.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let Some(realm) = rows::by_name(transaction, &tenant, &name)? else { return Ok(Err(AdminError::not_found(KIND, &name))) };
        if !rows::insert_role(transaction, realm.app.id, id, &role, text.as_deref().unwrap_or_default())? {
            if !or_update {
                return Ok(Err(AdminError::exists("role", &role)));
            }
            if let Some(text) = &text {
                rows::describe_role(transaction, realm.app.id, &role, text)?;
            }
        }
        transaction.record(&Entry::of(Action::RealmRolePut).on(realm.app.record()).with("role", role.as_str()))?;
        again(transaction, &tenant, &name)
    };
    let realm = state.instance.store.write(judge).await??;
    Ok(told(document::shown(resource(&realm, &state.instance.config(), None)), made))
}

async fn delete_role(
    State(state): State<Arc<AdminState>>,
    Path((tenant, name)): Path<(String, String)>,
    document: Document,
) -> Result<Response, AdminError> {
    let DeleteRole { role } = document.attributes(KIND)?;
    let gone = role.clone();
    let judge = move |transaction: &Transaction<'_>| {
        let Some(realm) = rows::by_name(transaction, &tenant, &name)? else { return Ok(Err(AdminError::not_found(KIND, &name))) };
        let app = realm.app.id;
        let Some((id, ending)) = rows::delete_role(transaction, app, &role)? else { return Ok(Err(no_role(&name, &role))) };
        transaction.record(&Entry::of(Action::RealmRoleDeleted).on(realm.app.record()).with("role", role.as_str()))?;
        Ok(again(transaction, &tenant, &name)?.map(|realm| (realm, Whose::Role { app, role: id }, ending)))
    };
    let (realm, whose, ending) = state.instance.store.write(judge).await??;
    endings::finish(&state.instance, whose, ending).await?;
    Ok(told(document::shown(resource(&realm, &state.instance.config(), None)), gone))
}

async fn assign(
    State(state): State<Arc<AdminState>>,
    Path(place): Path<(String, String)>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    change_member(&state, place, &caller, document, MemberChange::Assign).await
}

async fn unassign(
    State(state): State<Arc<AdminState>>,
    Path(place): Path<(String, String)>,
    caller: Caller,
    document: Document,
) -> Result<Response, AdminError> {
    change_member(&state, place, &caller, document, MemberChange::Unassign).await
}

/// What is done to a role and a person.
#[derive(Clone, Copy)]
enum MemberChange {
    /// The person gets the role, and what a role that was deleted took stays taken.
    Assign,
    /// The person loses the role, and is signed out when it was the last one there.
    Unassign,
}

impl MemberChange {
    /// Does it; what ends by it.
    fn apply(self, transaction: &Transaction<'_>, realm: &Realm, role: &str, person: &User) -> Result<Result<Ending, AdminError>, Fault> {
        let (name, login) = (&realm.app.name, &person.login);
        let (action, ending) = match self {
            Self::Assign => match rows::assign(transaction, realm.app.id, role, person.id)? {
                Some(ending) => (Action::RealmRoleAssigned, ending),
                None => return Ok(Err(no_role(name, role))),
            },
            Self::Unassign => match rows::unassign(transaction, realm.app.id, role, person.id)? {
                Unassigned::Taken(ending) => (Action::RealmRoleUnassigned, ending),
                Unassigned::NoRole => return Ok(Err(no_role(name, role))),
                Unassigned::NotHeld => {
                    let what = format!("{login} does not hold the role {role:?} in {name}");
                    let error = AdminError::new(StatusCode::NOT_FOUND, "not_found", what);
                    return Ok(Err(error.next(format!("p2pid realm show {name}"))));
                }
            },
        };
        transaction.record(&Entry::of(action).on(realm.app.record()).with("role", role).with("login", login.as_str()))?;
        Ok(Ok(ending))
    }
}

/// Does to the role and the person that are given what `change` says, and ends what that ends.
async fn change_member(
    state: &AdminState,
    (tenant, name): (String, String),
    caller: &Caller,
    document: Document,
    change: MemberChange,
) -> Result<Response, AdminError> {
    let Assignment { user: login, role } = document.attributes(KIND)?;
    let (given, knows_all) = (format!("{login} {role}"), caller.rules_instance());
    let judge = move |transaction: &Transaction<'_>| {
        let (realm, person) = match realm_and_person(transaction, (&tenant, &name), &role, &login, knows_all)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let ending = match change.apply(transaction, &realm, &role, &person)? {
            Ok(ending) => ending,
            Err(error) => return Ok(Err(error)),
        };
        Ok(again(transaction, &tenant, &name)?.map(|realm| (realm, Whose::Person(person.id), ending)))
    };
    let (realm, whose, ending) = state.instance.store.write(judge).await??;
    endings::finish(&state.instance, whose, ending).await?;
    Ok(told(document::shown(resource(&realm, &state.instance.config(), None)), given))
}

/// The realm, when it has that role, and the person of that login. Somebody who is another tenant's is nobody to whoever does not rule the
/// instance: the answer is that for a login that there is not.
fn realm_and_person(
    transaction: &Transaction<'_>,
    (tenant, name): (&str, &str),
    role: &str,
    login: &str,
    knows_all: bool,
) -> Result<Result<(Realm, User), AdminError>, Fault> {
    let Some(realm) = rows::by_name(transaction, tenant, name)? else { return Ok(Err(AdminError::not_found(KIND, name))) };
    if !rows::has_role(transaction, realm.app.id, role)? {
        return Ok(Err(no_role(name, role)));
    }
    let Some(person) = user::by_login(transaction, login)? else { return Ok(Err(AdminError::not_found("user", login))) };
    if !knows_all && !person.is_known_in(tenant, rows::tenants(transaction, person.id)?) {
        return Ok(Err(AdminError::not_found("user", login)));
    }
    Ok(Ok((realm, person)))
}

/// The realm as it is after a change in the same transaction.
fn again(transaction: &Transaction<'_>, tenant: &str, name: &str) -> Result<Result<Realm, AdminError>, Fault> {
    Ok(rows::by_name(transaction, tenant, name)?.ok_or_else(|| AdminError::not_found(KIND, name)))
}

fn changed(state: &AdminState, realm: &Realm) -> Response {
    // What a token in the table says of its app may have changed.
    state.instance.tokens.forget();
    document::shown(resource(realm, &state.instance.config(), None))
}

/// With what the audit is to name beside the realm.
fn told(mut response: Response, what: String) -> Response {
    response.extensions_mut().insert(Named(what));
    response
}

fn new_id(instance: &Instance) -> Id {
    Id::new(instance.clock.now().wall, instance.random.as_ref())
}

fn no_role(realm: &str, role: &str) -> AdminError {
    AdminError::new(StatusCode::NOT_FOUND, "not_found", format!("the realm {realm:?} has no role {role:?}"))
        .next(format!("p2pid realm role {realm} ROLE makes one; p2pid realm show {realm} lists them"))
}

fn role_name(name: String) -> Result<String, AdminError> {
    if realm::is_role_name(&name) {
        return Ok(name);
    }
    Err(AdminError::bad_attribute("role", format!("{name:?}"), "1 to 128 characters that show, without a space at either end"))
}

fn description(text: String) -> Result<String, AdminError> {
    if realm::is_description(&text) {
        return Ok(text);
    }
    Err(AdminError::bad_attribute(
        "description",
        format!("{} characters", text.chars().count()),
        "at most 255 characters, all of which show",
    ))
}

/// As `realm show` prints it: what an IB app has, by the same names, and what a realm adds. The key is there only where it was just made;
/// it is the client secret.
fn resource(realm: &Realm, config: &Config, key: Option<&SecretString>) -> Value {
    let app = &realm.app;
    // Every realm may use passwords where the instance takes them.
    let grants: Vec<GrantType> =
        app.grants.iter().copied().filter(|grant| config.compat.password_grant || *grant != GrantType::Password).collect();
    let roles = realm.roles.iter().map(|role| json!({ "name": role.name, "description": role.description, "users": role.holders }));
    let validity = app.access_ttl.unwrap_or(realm::TOKEN_VALIDITY).as_secs();
    let mut attributes = json!({
        "id": app.id,
        "tenant": app.tenant,
        "name": app.name,
        "client_id": app.client_id,
        "description": realm.description,
        "token_validity": validity,
        "roles": roles.collect::<Vec<_>>(),
        "redirect_uris": app.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>(),
        "grants": grants,
        "scopes": app.scope,
        "access_ttl": validity,
        "created_at": app.created_at,
    });
    if let Some(key) = key {
        attributes["key"] = json!(key.expose_secret());
        attributes["client_secret"] = json!(key.expose_secret());
    }
    document::record(KIND, app.id, attributes)
}
