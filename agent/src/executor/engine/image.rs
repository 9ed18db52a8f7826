//! Images: pulled when they can be, taken as they are when they are there.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::{
    auth::DockerCredentials, models::ImageInspect, query_parameters::CreateImageOptions,
};
use futures::StreamExt;
use tokio::{sync::Mutex, time::timeout};
use weft_types::secret::Base64;

use super::{
    body::ImageFacts,
    connection::{Connection, failure, status},
};
use crate::task::Failure;

/// A pull that did nothing for so long is given up when the image is there anyway.
const SILENCE_WITH_IMAGE: Duration = Duration::from_secs(5);
/// The same when it is not.
const SILENCE: Duration = Duration::from_secs(120);
/// A pull is good for all tasks that want the same image shortly after.
const FRESH: Duration = Duration::from_secs(10);
/// A pull in vain that took so long was no quick refusal: the registry cannot be reached.
const LONG: Duration = Duration::from_secs(1);
/// A registry that cannot be reached is not waited for again so long by tasks whose image is there.
const UNREACHED: Duration = Duration::from_secs(60);

/// Until when an image is not asked for upstream again, locked while it is being asked for.
type Asked = Arc<Mutex<Option<Instant>>>;

/// The engine's images.
#[derive(Clone)]
pub(super) struct Images {
    connection: Connection,
    /// Until when each image is not asked for again; the inner lock makes others wait for a pull.
    asked: Arc<Mutex<HashMap<String, Asked>>>,
}

impl Images {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            asked: Arc::default(),
        }
    }

    /// Makes sure that `image` is there, newest first, and says what it runs.
    pub(super) async fn ensure(&self, image: &str, auth: &str) -> Result<ImageFacts, Failure> {
        let held = self.look(image).await?;
        if let Some(held) = &held
            && is_pinned(image, held)
        {
            return Ok(facts(held));
        }
        let asked = {
            let mut all = self.asked.lock().await;
            Arc::clone(all.entry(image.to_owned()).or_default())
        };
        let mut rests_until = asked.lock().await;
        let begun = Instant::now();
        if held.is_some() && rests_until.is_some_and(|until| begun < until) {
            drop(rests_until);
        } else {
            let pulled = self.pull(image, auth, held.is_some()).await;
            *rests_until = Some(Instant::now() + rest(pulled.is_err(), begun.elapsed()));
            drop(rests_until);
            if let Err(reason) = pulled {
                tracing::debug!(image, %reason, "cannot pull");
                let held = self.look(image).await?;
                return held.as_ref().map(facts).ok_or(reason);
            }
        }
        let held = self.look(image).await?;
        held.as_ref()
            .map(facts)
            .ok_or_else(|| Failure::lasting(format!("No such image: {image}")))
    }

    async fn look(&self, image: &str) -> Result<Option<ImageInspect>, Failure> {
        let docker = self.connection.docker().await?;
        match docker.inspect_image(image).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(status(&error), Some(400 | 404)) => Ok(None),
            Err(error) => Err(failure("inspect image", image, &error)),
        }
    }

    async fn pull(&self, image: &str, auth: &str, held: bool) -> Result<(), Failure> {
        let docker = self.connection.docker().await?;
        let options = CreateImageOptions {
            from_image: Some(tagged(image)),
            ..CreateImageOptions::default()
        };
        let silence = if held { SILENCE_WITH_IMAGE } else { SILENCE };
        let mut progress = docker.create_image(Some(options), None, credentials(auth));
        loop {
            let Ok(step) = timeout(silence, progress.next()).await else {
                return Err(Failure::lasting(format!(
                    "No such image: {image}: the registry was silent for {} s",
                    silence.as_secs()
                )));
            };
            match step {
                None => return Ok(()),
                Some(Err(error)) => {
                    let said = failure("pull", image, &error);
                    // What `service ps` shows for an image that nobody has.
                    let mut reason = format!("No such image: {image}");
                    if said.passing {
                        reason = said.reason;
                    } else {
                        tracing::info!(image, reason = said.reason, "pull refused");
                    }
                    return Err(Failure { reason, ..said });
                }
                Some(Ok(step)) => {
                    if let Some(error) = step.error_detail {
                        let message = error.message.unwrap_or_default();
                        tracing::info!(image, message, "pull failed");
                        return Err(Failure::lasting(format!("No such image: {image}")));
                    }
                }
            }
        }
    }
}

/// How long an image that is there is not asked for again, after a pull that took so long.
fn rest(in_vain: bool, took: Duration) -> Duration {
    if in_vain && took >= LONG {
        UNREACHED
    } else {
        FRESH
    }
}

/// Without a tag the engine would pull all of them.
fn tagged(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || image.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// Whether the reference can mean no other image than `held`: a digest, or the image's own id.
fn is_pinned(image: &str, held: &ImageInspect) -> bool {
    let id = held.id.as_deref().unwrap_or_default();
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    image.contains('@') || image == id || (image.len() >= 12 && digits.starts_with(image))
}

fn facts(image: &ImageInspect) -> ImageFacts {
    let config = image.config.clone().unwrap_or_default();
    ImageFacts {
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
    }
}

/// Credentials as `X-Registry-Auth` carries them: JSON in base64, of either alphabet.
fn credentials(auth: &str) -> Option<DockerCredentials> {
    let standard: String = auth
        .trim_end_matches('=')
        .chars()
        .map(|digit| match digit {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    let padding = "=".repeat((4 - standard.len() % 4) % 4);
    let text = serde_json::Value::String(format!("{standard}{padding}"));
    let bytes: Base64 = serde_json::from_value(text).ok()?;
    serde_json::from_slice(&bytes.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_cannot_be_reached_is_waited_for_once_a_minute() {
        let long = [SILENCE_WITH_IMAGE, LONG];
        for took in long {
            assert_eq!(rest(true, took), UNREACHED, "in vain after {took:?}");
            assert_eq!(rest(false, took), FRESH, "pulled in {took:?}");
        }
        // A refusal at once costs nobody anything, and the image may be pushed any moment.
        assert_eq!(rest(true, Duration::from_millis(50)), FRESH);
    }
}
