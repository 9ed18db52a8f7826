//! Versions of the Docker API.

use std::{fmt, str::FromStr};

use crate::reply::ApiError;

/// A version of the Docker API, such as 1.41.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl ApiVersion {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

/// The newest version whose swarm part is answered here.
pub(crate) const NEWEST: ApiVersion = ApiVersion::new(1, 50);

/// The oldest.
pub(crate) const OLDEST: ApiVersion = ApiVersion::new(1, 24);

/// Assumed of an engine that has never answered: the oldest that this project is tried on, so
/// that a client's choice still holds when it comes.
pub(crate) const UNKNOWN_ENGINE: ApiVersion = ApiVersion::new(1, 41);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().map_err(|_| ()),
            false => Err(()),
        };
        Ok(Self::new(number(major)?, number(minor)?))
    }
}

/// The versions that this door speaks now: its own, narrowed to what the engine understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) oldest: ApiVersion,
    pub(crate) newest: ApiVersion,
}

impl Span {
    /// What this door speaks by itself.
    pub(crate) const OURS: Self = Self {
        oldest: OLDEST,
        newest: NEWEST,
    };

    /// Ours and the engine's, where both agree.
    pub(crate) fn with_engine(oldest: ApiVersion, newest: ApiVersion) -> Self {
        Self {
            oldest: OLDEST.max(oldest),
            newest: NEWEST.min(newest),
        }
    }

    /// Refuses versions outside, in Docker's words.
    pub(crate) fn check(&self, asked: ApiVersion) -> Result<(), ApiError> {
        if asked > self.newest {
            return Err(ApiError::bad(format!(
                "client version {asked} is too new. Maximum supported API version is {}",
                self.newest
            )));
        }
        if asked < self.oldest {
            return Err(ApiError::bad(format!(
                "client version {asked} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
                self.oldest
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        let parse = |text: &str| text.parse::<ApiVersion>();
        assert!(parse("1.9").unwrap() < parse("1.41").unwrap());
        assert!(parse("1").is_err() && parse("1.x").is_err() && parse("+1.2").is_err());
    }

    #[test]
    fn refusals_are_docker_s() {
        let span = Span::with_engine(ApiVersion::new(1, 12), ApiVersion::new(1, 41));
        assert_eq!(
            span.check(ApiVersion::new(1, 99)).unwrap_err().message,
            "client version 1.99 is too new. Maximum supported API version is 1.41"
        );
        assert_eq!(
            span.check(ApiVersion::new(1, 5)).unwrap_err().message,
            "client version 1.5 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
    }
}
