//! Refusals and failures that cross the wire.

use serde::{Deserialize, Serialize};

/// Why a request failed: gRPC's codes, which the front door maps to HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The request can never be right. HTTP 400.
    InvalidArgument,
    /// No such object. HTTP 404.
    NotFound,
    /// The name is taken. HTTP 409.
    AlreadyExists,
    /// Not for this caller, or not on such an object. HTTP 403.
    PermissionDenied,
    /// Right at another time. HTTP 400.
    FailedPrecondition,
    /// Not built. HTTP 501.
    Unimplemented,
    /// No leader, or this node is no manager. HTTP 503.
    Unavailable,
    /// Not proven who. HTTP 401.
    Unauthenticated,
    /// Too late. HTTP 500.
    DeadlineExceeded,
    /// Somebody else wrote first (`update out of sequence`). HTTP 500, as Docker has it.
    Aborted,
    /// Anything else. HTTP 500.
    Unknown,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// Its class.
    pub code: ErrorCode,
    /// For people, in Docker's words where Docker has some; without the `rpc error:` prefix.
    pub message: String,
}

impl ControlError {
    /// A failure of class `code`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $code:ident),* $(,)?) => {
        impl ControlError {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new(ErrorCode::$code, message) })*
        }
    };
}
constructors! {
    /// The request can never be right.
    invalid => InvalidArgument,
    /// No such object.
    not_found => NotFound,
    /// The name is taken.
    exists => AlreadyExists,
    /// Right at another time.
    precondition => FailedPrecondition,
    /// No leader, or no manager here.
    unavailable => Unavailable,
    /// Somebody else wrote first.
    aborted => Aborted,
    /// Anything else.
    unknown => Unknown,
}
