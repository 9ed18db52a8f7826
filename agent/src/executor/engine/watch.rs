//! The engine's events, as far as they are about containers of tasks.

use bollard::models::EventMessage;
use tokio::sync::mpsc;
use weft_types::TaskId;

use super::{
    Engine, TASK_ID_LABEL, TASK_LABEL,
    stream::{Wished, follow},
};
use crate::{
    executor::{Change, Executor},
    task::{Health, Observation},
};

/// Follows the events until the receiver is dropped.
pub(super) fn spawn(engine: Engine) -> mpsc::Receiver<Change> {
    let wished = Wished {
        label: Some(TASK_LABEL),
        events: &["die", "destroy", "health_status"],
    };
    follow(engine, wished, Change::Resync, change)
}

async fn change(engine: Engine, event: EventMessage) -> Option<Change> {
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
