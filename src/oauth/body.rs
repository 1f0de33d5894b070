//! What was sent: a body, as JSON or a form, or a query (auth-gateway.md section 1.0).

use axum::{
    body::Bytes,
    extract::{self, FromRequest, FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Error, State};

/// A request's body, read into a type that says which fields there are. Fields it lacks are ignored. A form's field that
/// is there several times is a list, and so it is refused where a text is wanted (RFC 6749 §3.1).
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<State> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &State) -> Result<Self, Error> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
        let bytes = Bytes::from_request(request, state).await.map_err(|problem| {
            let status = problem.into_response_status();
            Error::unreadable(
                status,
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    "Request body is too large"
                } else {
                    "The request body could not be read"
                },
            )
        })?;
        let fields = match kind.as_str() {
            // Libraries name a kind also where there is nothing of it (auth-gateway.md section 14.2, 13).
            "application/json" | "" if bytes.is_empty() => Value::Object(Map::new()),
            "application/json" => serde_json::from_slice(&bytes)
                .map_err(|_| Error::unreadable(StatusCode::BAD_REQUEST, "Body is not valid JSON"))?,
            "application/x-www-form-urlencoded" => form(&bytes),
            _ => return Err(Error::unreadable(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type")),
        };
        serde_json::from_value(fields).map(Self).map_err(|problem| Error::form(problem.to_string()))
    }
}

/// A request's query, read into such a type too. What is there several times is refused.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<State> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Error> {
        let query = extract::Query::from_request_parts(parts, state).await;
        query.map(|extract::Query(fields)| Self(fields)).map_err(|problem| Error::form(problem.body_text()))
    }
}

/// The status of a rejection, without its text.
trait IntoResponseStatus {
    fn into_response_status(self) -> StatusCode;
}

impl<R: axum::response::IntoResponse> IntoResponseStatus for R {
    fn into_response_status(self) -> StatusCode {
        self.into_response().status()
    }
}

/// A form's fields, or a query's.
#[must_use]
pub fn form(bytes: &[u8]) -> Value {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(bytes) {
        let value = Value::String(value.into_owned());
        match fields.get_mut(&*name) {
            None => {
                fields.insert(name.into_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_repeated_field_is_a_list() {
        assert_eq!(form(b"a=1&b=x%20y&a=2&c&a=3"), json!({ "a": ["1", "2", "3"], "b": "x y", "c": "" }));
        assert_eq!(form(b""), json!({}));
    }
}
