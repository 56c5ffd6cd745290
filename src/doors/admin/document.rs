//! JSON:API documents: requests read strictly, answers written in one shape.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::AdminError;
use crate::doors::form;
use crate::store::audit;

/// The media type of all answers, as elastic.io's API names it.
pub const MEDIA_TYPE: &str = "application/json";

/// Other names under which a JSON body is taken.
const ACCEPTED: [&str; 2] = [MEDIA_TYPE, "application/vnd.api+json"];

/// The body of a request: `{"data":{"type":…,"attributes":{…}}}`, or nothing at all for an action without attributes.
#[derive(Debug)]
pub struct Document(Bytes);

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = AdminError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AdminError> {
        Self::within(form::LONGEST, request, state).await
    }
}

impl Document {
    async fn within<S: Send + Sync>(longest: Duration, request: Request, state: &S) -> Result<Self, AdminError> {
        let media_type = request.headers().get(header::CONTENT_TYPE).map(media_type);
        let too_slow = |_| {
            AdminError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body took too long to arrive")
                .expected(format!("all of it within {}", humantime::format_duration(longest)))
        };
        // What the router's body limit cuts, and a connection that breaks, arrive here as rejections.
        let body = tokio::time::timeout(longest, Bytes::from_request(request, state)).await.map_err(too_slow)?;
        let body = body.map_err(|rejection| match rejection.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => AdminError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the document is too large")
                .expected("at most [limits] form_bytes"),
            _ => AdminError::new(StatusCode::BAD_REQUEST, "bad_request", "the body did not arrive whole"),
        })?;
        match media_type {
            None if body.is_empty() => {}
            Some(found) if ACCEPTED.contains(&found.as_str()) => {}
            found => {
                let error = AdminError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "the body is not JSON by its content type");
                return Err(error.found(found.unwrap_or_else(|| "no content type".to_owned())).expected(MEDIA_TYPE));
            }
        }
        Ok(Self(body))
    }

    /// The attributes as a `T`, a struct that need not deny unknown members itself: what is unknown, doubled or of a wrong type is
    /// refused (a struct with `#[serde(flatten)]` cannot be read this way: it hides its fields). `kind` is what `data.type` must say. No
    /// body means no attributes.
    pub fn attributes<T: DeserializeOwned>(&self, kind: &str) -> Result<T, AdminError> {
        let read = attributes(kind, &self.0)?;
        // Read above, so there are no others than are known here.
        audit::note_given(
            unwrap_envelope(kind, &self.0)
                .into_iter()
                .flat_map(|given| given.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name)),
        );
        Ok(read)
    }
}

/// As [`Document::attributes`], from bytes.
pub fn attributes<T: DeserializeOwned>(kind: &str, body: &[u8]) -> Result<T, AdminError> {
    let mut attributes = if body.iter().all(u8::is_ascii_whitespace) { Map::new() } else { unwrap_envelope(kind, body)? };
    // An attribute that is null is one that is not given.
    attributes.retain(|_, value| !value.is_null());
    T::deserialize(Attributes(attributes)).map_err(|problem| problem.0)
}

fn unwrap_envelope(kind: &str, body: &[u8]) -> Result<Map<String, Value>, AdminError> {
    let not_json = |error: serde_json::Error| {
        // serde_json's own words can quote the body, which may hold secrets; the place is enough.
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => {
                AdminError::new(StatusCode::BAD_REQUEST, "bad_document", format!("a member is given twice, at {place}"))
            }
            _ => AdminError::new(StatusCode::BAD_REQUEST, "not_json", format!("the body is not JSON, at {place}")),
        }
    };
    let Once(document) = serde_json::from_slice(body).map_err(not_json)?;
    let shape = "{\"data\":{\"type\":…,\"attributes\":{…}}}";
    let bad = |what: &str| AdminError::new(StatusCode::BAD_REQUEST, "bad_document", what).expected(shape);
    let Value::Object(mut document) = document else { return Err(bad("the document is not an object")) };
    let Some(Value::Object(mut data)) = document.remove("data") else { return Err(bad("the document has no object \"data\"")) };
    document.remove("meta");
    if let Some(unknown) = document.keys().next() {
        return Err(bad("the document has a member that is not known").found(unknown));
    }
    match data.remove("type") {
        Some(Value::String(found)) if found == kind => {}
        Some(Value::String(found)) => {
            return Err(AdminError::new(StatusCode::CONFLICT, "wrong_type", "the type is not the collection's")
                .found(found)
                .expected(kind));
        }
        _ => return Err(bad("\"data\" has no \"type\"")),
    }
    data.remove("id");
    let attributes = match data.remove("attributes") {
        None => Map::new(),
        Some(Value::Object(attributes)) => attributes,
        Some(_) => return Err(bad("\"attributes\" is not an object")),
    };
    match data.keys().next() {
        Some(unknown) => Err(bad("\"data\" has a member that is not known").found(unknown)),
        None => Ok(attributes),
    }
}

/// One record of an answer: `{"type","id","attributes"}`.
pub fn record(kind: &str, id: impl fmt::Display, attributes: impl Serialize) -> Value {
    let attributes = serde_json::to_value(attributes).expect("what is shown of a record has text keys");
    // Not by the macro, which would copy the attributes once more.
    let members = [("type", kind.into()), ("id", id.to_string().into()), ("attributes", attributes)];
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// 200 with one record, or with an array of them.
pub fn shown(data: impl Into<Value>) -> Response {
    answer(StatusCode::OK, &data.into(), None)
}

/// 200 with a page of a list; `next` is the path of the one behind it, where there is one.
pub fn page(records: Vec<Value>, next: Option<String>) -> Response {
    answer(StatusCode::OK, &records.into(), Some(Links { next }))
}

/// 201 with the new record. What the audit names is the record's type and id.
pub fn created(record: Value) -> Response {
    let named = record.get("id").and_then(Value::as_str).map(str::to_owned);
    let mut response = answer(StatusCode::CREATED, &record, None);
    response.extensions_mut().insert(Named(named.unwrap_or_default()));
    response
}

/// 204: done, and nothing to show.
pub fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The id of a new record, for the audit: its path does not hold it yet.
#[derive(Clone, Debug)]
pub(super) struct Named(pub(super) String);

/// What an answer holds.
#[derive(Serialize)]
struct Answer<'a> {
    data: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Links>,
    meta: Map<String, Value>,
}

/// Where a list goes on.
#[derive(Serialize)]
struct Links {
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

fn answer(status: StatusCode, data: &Value, links: Option<Links>) -> Response {
    let text = serde_json::to_string(&Answer { data, links, meta: Map::new() }).expect("JSON values have text keys");
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `type/subtype` of a content type, in lower case, without parameters.
fn media_type(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A map of attributes that a struct is read from; knows the struct's fields, so that it can refuse others by name.
struct Attributes(Map<String, Value>);

/// An [`AdminError`] on its way through serde.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Problem(AdminError);

impl de::Error for Problem {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self(AdminError::new(StatusCode::BAD_REQUEST, "bad_attribute", message.to_string()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(AdminError::missing_attribute(field))
    }
}

impl<'de> Deserializer<'de> for Attributes {
    type Error = Problem;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        if let Some(unknown) = self.0.keys().find(|key| !fields.contains(&key.as_str())) {
            let error = AdminError::new(StatusCode::BAD_REQUEST, "unknown_attribute", format!("{unknown:?} is not an attribute here"));
            return Err(Problem(error.found(unknown).expected(fields.join(", "))));
        }
        visitor.visit_map(Entries { rest: self.0.into_iter(), current: None })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_map(Entries { rest: self.0.into_iter(), current: None })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

struct Entries {
    rest: serde_json::map::IntoIter,
    current: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Problem;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        self.current = self.rest.next();
        let Some((key, _)) = &self.current else { return Ok(None) };
        seed.deserialize(de::value::StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let (key, value) = self.current.take().expect("serde asks for a key before its value");
        let found = kind_of(&value);
        seed.deserialize(value).map_err(|error: serde_json::Error| {
            // The words before "expected" quote the value, which may be a secret; those behind it name what is wanted.
            let words = error.to_string();
            let expected = words.rsplit_once("expected ").map_or("another value", |(_, expected)| expected);
            Problem(AdminError::bad_attribute(&key, found, expected))
        })
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "another text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A JSON value in which no object has a member twice.
struct Once(Value);

impl<'de> de::Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Once(value)) = sequence.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Once(value) = entries.next_value()?;
            if object.insert(key, value).is_some() {
                return Err(de::Error::custom("a member is given twice"));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Wanted {
        name: String,
        #[serde(default)]
        scopes: Vec<String>,
        access_ttl: Option<u64>,
    }

    fn refusal(body: &str) -> AdminError {
        attributes::<Wanted>("thing", body.as_bytes()).expect_err(body)
    }

    #[test]
    fn a_document_becomes_its_attributes() {
        let body = r#"{"data":{"type":"thing","attributes":{"name":"a","scopes":["x"],"access_ttl":null}}}"#;
        let wanted: Wanted = attributes("thing", body.as_bytes()).expect("a good document");
        assert_eq!(wanted, Wanted { name: "a".into(), scopes: vec!["x".into()], access_ttl: None });
    }

    #[test]
    fn an_action_needs_no_body() {
        #[derive(Deserialize)]
        struct Overlap {
            overlap: Option<u64>,
        }
        assert_eq!(attributes::<Overlap>("thing", b"").expect("no attributes").overlap, None);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for (body, code) in [
            ("{", "not_json"),
            ("[]", "bad_document"),
            ("{}", "bad_document"),
            (r#"{"data":{}}"#, "bad_document"),
            (r#"{"data":{"type":"other"}}"#, "wrong_type"),
            (r#"{"data":{"type":"thing","type":"thing"}}"#, "bad_document"),
            (r#"{"data":{"type":"thing","attributes":[]}}"#, "bad_document"),
            (r#"{"data":{"type":"thing"},"more":1}"#, "bad_document"),
            (r#"{"data":{"type":"thing","more":1}}"#, "bad_document"),
            (r#"{"data":{"type":"thing","attributes":{"name":"a","name":"b"}}}"#, "bad_document"),
            (r#"{"data":{"type":"thing"}}"#, "missing_attribute"),
        ] {
            assert_eq!(refusal(body).code, code, "{body}");
        }
    }

    #[test]
    fn attributes_are_refused_by_name_and_without_their_value() {
        let error = refusal(r#"{"data":{"type":"thing","attributes":{"name":"a","colour":"hunter2"}}}"#);
        assert_eq!((error.code, error.found.as_deref()), ("unknown_attribute", Some("colour")));
        assert_eq!(error.expected.as_deref(), Some("name, scopes, access_ttl"));
        let error = refusal(r#"{"data":{"type":"thing","attributes":{"name":"a","access_ttl":"hunter2, expected hunter2"}}}"#);
        assert_eq!((error.code, error.message.as_str(), error.expected.as_deref()), ("bad_attribute", "access_ttl is wrong", Some("u64")));
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_document_that_comes_byte_by_byte_is_not_waited_for_without_end() {
        let drops = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b" ")), ()))
        });
        let request = Request::new(axum::body::Body::from_stream(drops));
        let error = Document::within(Duration::from_millis(50), request, &()).await.expect_err("it has no end");
        assert_eq!(
            (error.code, error.status, error.expected.as_deref()),
            ("too_slow", StatusCode::REQUEST_TIMEOUT, Some("all of it within 50ms"))
        );
    }

    #[test]
    fn nesting_has_an_end() {
        let body = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(refusal(&body).code, "not_json");
    }
}
