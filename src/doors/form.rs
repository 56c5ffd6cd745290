//! Forms that come in: by content type, size and encoding, before anybody looks at what they say.

use std::time::Duration;

use axum::extract::Request;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use zeroize::Zeroize;

use super::call::announced_length;
use crate::oauth::parameters::{Malformed, Parameters};

/// How much of a refused body is read away at most, and for how long.
const DISCARDED: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_millis(500);

/// The longest that a form or document of ours may take to arrive. Without it a byte now and then would hold a connection for ever: whoever
/// waits for a body looks at the silence between two parts alone.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// Why a request carries no form that can be read.
#[derive(Debug, thiserror::Error)]
pub enum NoForm {
    /// Another content type, or none.
    #[error("the content type is not application/x-www-form-urlencoded")]
    ContentType,
    /// Beyond `[limits] form_bytes`.
    #[error("the form is too large")]
    TooLarge,
    /// The body took longer than [`LONGEST`].
    #[error("the form took too long to arrive")]
    TooSlow,
    /// The body did not arrive whole.
    #[error("the form did not arrive whole")]
    Broken,
    /// The body is not a form.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl NoForm {
    /// The status to refuse it with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::ContentType | Self::Broken | Self::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// The head of a request and its form of at most `most` bytes.
pub async fn read(request: Request, most: usize) -> Result<(Parts, Parameters), NoForm> {
    read_within(request, most, LONGEST).await
}

async fn read_within(request: Request, most: usize, longest: Duration) -> Result<(Parts, Parameters), NoForm> {
    let (parts, body) = request.into_parts();
    if !is_form(&parts.headers) {
        return Err(NoForm::ContentType);
    }
    // What announces itself as too long is not waited for, beyond what lets an honest client finish sending and read the refusal.
    if announced_length(&parts.headers).is_some_and(|length| length > most as u64) {
        discard(body).await;
        return Err(NoForm::TooLarge);
    }
    let body = tokio::time::timeout(longest, Limited::new(body, most).collect())
        .await
        .map_err(|_| NoForm::TooSlow)?
        .map_err(|error| if error.downcast_ref::<LengthLimitError>().is_some() { NoForm::TooLarge } else { NoForm::Broken })?;
    // Forms carry passwords, codes and tokens.
    let mut bytes = Vec::from(body.to_bytes());
    let form = Parameters::read(&bytes);
    bytes.zeroize();
    Ok((parts, form?))
}

/// Reads away what comes soon of a body that is refused: a connection that is closed under a sender takes the answer with it.
async fn discard(mut body: axum::body::Body) {
    let mut left = DISCARDED;
    let work = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Whether it came to its end or not, the answer is the same.
    let _ = tokio::time::timeout(PATIENCE, work).await;
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn read_as(content_type: Option<&str>, body: &'static str) -> Result<Parameters, StatusCode> {
        let mut request = http::Request::post("/");
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(body)).expect("a request");
        read(request, 16).await.map(|(_, form)| form).map_err(|error| error.status())
    }

    #[tokio::test]
    async fn t1_a_form_that_announces_itself_as_too_long_is_not_waited_for() {
        let body = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>());
        let request = http::Request::post("/").header(CONTENT_TYPE, "application/x-www-form-urlencoded").header("content-length", "17");
        let refused = read(request.body(body).expect("a request"), 16).await;
        assert!(matches!(refused, Err(NoForm::TooLarge)));
    }

    #[tokio::test]
    async fn t1_a_form_that_comes_byte_by_byte_is_not_waited_for_without_end() {
        let drops = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::convert::Infallible>(bytes::Bytes::from_static(b"a")), ()))
        });
        let request = http::Request::post("/").header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(Body::from_stream(drops));
        let refused = read_within(request.expect("a request"), usize::MAX, Duration::from_millis(50)).await;
        assert_eq!(refused.map(|_| ()).map_err(|error| error.status()), Err(StatusCode::REQUEST_TIMEOUT));
    }

    #[tokio::test]
    async fn t1_only_a_form_of_its_size_and_encoding_is_read() {
        let form = "application/x-www-form-urlencoded";
        let read = read_as(Some("Application/X-WWW-Form-Urlencoded; charset=utf-8"), "a=1").await.expect("a form");
        assert_eq!(read.the("a"), Ok(Some("1")));
        for (content_type, body, expected) in [
            (None, "a=1", StatusCode::BAD_REQUEST),
            (Some("application/json"), "{}", StatusCode::BAD_REQUEST),
            (Some("multipart/form-data"), "a=1", StatusCode::BAD_REQUEST),
            (Some(form), "a=%", StatusCode::BAD_REQUEST),
            (Some(form), "a=12345678901234567890", StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            assert_eq!(read_as(content_type, body).await.map(|_| ()), Err(expected), "{content_type:?} {body}");
        }
    }
}
