//! The engine's events, as far as they are about containers of tasks.

use std::{collections::HashMap, time::Duration};

use bollard::{models::EventMessage, query_parameters::EventsOptions};
use futures::StreamExt;
use tokio::{sync::mpsc, time::sleep};
use weft_types::TaskId;

use super::{Engine, TASK_ID_LABEL, TASK_LABEL};
use crate::{
    executor::{Change, Executor},
    task::{Health, Observation},
};

/// Between two tries to hear an engine that does not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Changes waiting to be taken.
const WAITING: usize = 256;

/// Follows the events until the receiver is dropped.
pub(super) fn spawn(engine: Engine) -> mpsc::Receiver<Change> {
    let (changes, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while !changes.is_closed() {
            follow(&engine, &changes).await;
            sleep(PAUSE).await;
        }
    });
    receiver
}

/// Follows one stream of events until it breaks.
async fn follow(engine: &Engine, changes: &mpsc::Sender<Change>) {
    let Ok(docker) = engine.docker().await else {
        return;
    };
    // A stream towards an engine that is down ends only when it is read.
    if docker.ping().await.is_err() {
        return;
    }
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("label".to_owned(), vec![TASK_LABEL.to_owned()]),
        (
            "event".to_owned(),
            ["die", "destroy", "health_status"]
                .map(str::to_owned)
                .to_vec(),
        ),
    ]);
    let options = EventsOptions {
        filters: Some(filters),
        ..EventsOptions::default()
    };
    let mut events = docker.events(Some(options));
    // The stream is opened when it is first polled: poll it beside the look at everything, so
    // that nothing falls between the two.
    let mut resynced = Box::pin(async {
        sleep(Duration::from_millis(50)).await;
        changes.send(Change::Resync).await
    });
    let mut is_resynced = false;
    loop {
        tokio::select! {
            sent = &mut resynced, if !is_resynced => {
                is_resynced = true;
                if sent.is_err() {
                    return;
                }
            }
            () = changes.closed() => return,
            event = events.next() => {
                let Some(Ok(event)) = event else {
                    return;
                };
                if let Some(change) = change(engine, event).await
                    && changes.send(change).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

async fn change(engine: &Engine, event: EventMessage) -> Option<Change> {
    let actor = event.actor?;
    let task: TaskId = actor
        .attributes
        .as_ref()?
        .get(TASK_ID_LABEL)?
        .parse()
        .ok()?;
    let container = actor.id?;
    let action = event.action?;
    let observation = match action.as_str() {
        "destroy" => Observation::Missing,
        "health_status: healthy" | "health_status: unhealthy" => Observation::Running {
            pid: 0,
            health: if action.ends_with(" healthy") {
                Health::Healthy
            } else {
                Health::Unhealthy
            },
        },
        // The event has the status but not the engine's reason, nor whether memory ran out.
        "die" => match engine.inspect(&container).await {
            Ok(observation @ Observation::Exited { .. }) => observation,
            _ => {
                let code = actor.attributes.as_ref()?.get("exitCode");
                Observation::Exited {
                    code: code.and_then(|code| code.parse().ok()).unwrap_or_default(),
                    error: String::new(),
                }
            }
        },
        _ => return None,
    };
    Some(Change::Container(task, observation))
}
