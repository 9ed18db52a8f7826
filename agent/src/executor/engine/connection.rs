//! The engine's socket, and what its refusals mean.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use tokio::sync::OnceCell;
use weft_proto::dial::told;

use crate::task::Failure;

/// How long the head of an answer may take. Pulls and logs answer at once and then go on.
const PATIENCE_SECS: u64 = 120;

/// The way to an engine: opened when it is first needed, version agreed on once.
#[derive(Clone)]
pub(super) struct Connection {
    socket: Arc<PathBuf>,
    docker: Arc<OnceCell<Docker>>,
}

impl Connection {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket: Arc::new(socket),
            docker: Arc::default(),
        }
    }

    pub(super) async fn docker(&self) -> Result<Docker, Failure> {
        let opened = self.docker.get_or_try_init(|| async {
            let path = self.socket.to_string_lossy();
            let docker = Docker::connect_with_unix(&path, PATIENCE_SECS, API_DEFAULT_VERSION)?;
            docker.negotiate_version().await
        });
        let docker = opened.await.map_err(|error| {
            Failure::passing(format!(
                "Cannot connect to the Docker daemon at unix://{}. Is the docker daemon running? ({error})",
                self.socket.display()
            ))
        })?;
        Ok(docker
            .clone()
            .with_timeout(Duration::from_secs(PATIENCE_SECS)))
    }
}

/// The HTTP status of a refusal.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The engine's own words when it answered, ours when it did not.
pub(super) fn failure(verb: &str, object: &str, error: &Error) -> Failure {
    match error {
        Error::DockerResponseServerError { message, .. } => Failure::lasting(message.trim()),
        Error::DockerStreamError { error } => Failure::lasting(error.trim()),
        Error::JsonDataError { message, .. } => Failure::lasting(format!(
            "cannot {verb} {object}: the engine's answer is not understood: {message}"
        )),
        other => Failure::passing(format!(
            "cannot {verb} {object}: no answer from the container engine, is it running? ({})",
            told(other)
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_away_is_named_with_what_the_connection_met() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("engine.sock");
        drop(UnixListener::bind(&path).expect("a socket that nobody listens at"));
        let docker = Docker::connect_with_unix(&path.to_string_lossy(), 5, API_DEFAULT_VERSION)
            .expect("a way");
        let error = docker.ping().await.expect_err("nobody listens");
        let words = failure("inspect container", "web.1", &error).to_string();
        let begin =
            "cannot inspect container web.1: no answer from the container engine, is it running? (";
        assert!(
            words.starts_with(begin) && words.contains("Connection refused"),
            "{words}"
        );
    }
}
