//! Answers: bodies, statuses, and refusals in Docker's form.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde::Serialize;
use weft_proto::{ControlError, ErrorCode};

use crate::node::NotManager;

/// Whatever may break a body on its way.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any make.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// An answer, or a refusal that becomes one.
pub(crate) type Reply = Result<Response<Body>, ApiError>;

/// A refusal as Docker writes it: a status and `{"message": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// 400, the message as it stands.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 of a route that does not exist.
    pub(crate) fn no_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// 500, the message as it stands.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A refusal of the managers, with the prefix that Docker's store layer puts before it.
    pub(crate) fn from_manager(error: ControlError) -> Self {
        let ControlError { code, message } = error;
        // Docker itself words these outside of its store.
        let unprefixed = code == ErrorCode::NotFound
            || message.contains(" is ambiguous (")
            || message.starts_with("endpoint with name ");
        if unprefixed || message.starts_with("rpc error:") {
            return Self::new(status(code), message);
        }
        // Docker knows the missing leader and the lost race as plain Unknown.
        let code = if code == ErrorCode::Aborted || message.contains("does not have a leader") {
            ErrorCode::Unknown
        } else {
            code
        };
        Self::new(
            status(code),
            format!("rpc error: code = {} desc = {message}", name(code)),
        )
    }

    /// A refusal of the node itself, word for word.
    pub(crate) fn from_node(error: ControlError) -> Self {
        Self::new(status(error.code), error.message)
    }

    /// The answer that says it.
    pub(crate) fn response(self) -> Response<Body> {
        #[derive(Serialize)]
        struct Message {
            message: String,
        }
        json(
            self.status,
            &Message {
                message: self.message,
            },
        )
    }
}

impl From<NotManager> for ApiError {
    fn from(why: NotManager) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why.to_string())
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::FailedPrecondition => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::AlreadyExists => StatusCode::CONFLICT,
        ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorCode::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::DeadlineExceeded | ErrorCode::Aborted | ErrorCode::Unknown => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidArgument => "InvalidArgument",
        ErrorCode::NotFound => "NotFound",
        ErrorCode::AlreadyExists => "AlreadyExists",
        ErrorCode::PermissionDenied => "PermissionDenied",
        ErrorCode::FailedPrecondition => "FailedPrecondition",
        ErrorCode::Unimplemented => "Unimplemented",
        ErrorCode::Unavailable => "Unavailable",
        ErrorCode::Unauthenticated => "Unauthenticated",
        ErrorCode::DeadlineExceeded => "DeadlineExceeded",
        ErrorCode::Aborted | ErrorCode::Unknown => "Unknown",
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// `value` as JSON, ended by a newline as Go's encoder does.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let (status, mut text) = match serde_json::to_vec(value) {
        Ok(text) => (status, text),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            let text = br#"{"message":"the answer cannot be written as JSON"}"#.to_vec();
            (StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    };
    text.push(b'\n');
    let mut response = Response::new(whole(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// 200 and `value` as JSON.
pub(crate) fn ok<T: Serialize>(value: &T) -> Response<Body> {
    json(StatusCode::OK, value)
}

/// A body at hand.
pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
