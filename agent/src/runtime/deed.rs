//! Doing what tasks ask for.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use weft_types::{TaskId, TaskState};

use super::{Input, Runtime};
use crate::{
    executor::{Executor, Order},
    network::Wiring,
    task::{Action, Event, Failure, Observation},
};

/// How long a stop is given beyond its grace before the engine is asked again.
const STOP_MARGIN: Duration = Duration::from_secs(90);

impl Runtime {
    /// Begins an action; whatever is being done for the task is given up.
    pub(super) fn begin(&mut self, task: TaskId, action: Action) {
        if let Some((_, deed)) = self.deeds.remove(&task) {
            deed.abort();
        }
        let Some(machine) = self.worker.machine(&task) else {
            return;
        };
        tracing::debug!(%task, ?action, "doing");
        let container = machine.container().map(ToOwned::to_owned);
        let spec = machine.task().clone();
        let ran_before = machine.status().state >= TaskState::Running;
        let order = match action {
            Action::Prepare => self.shelf.files(&spec, &self.place).map(|files| Order {
                task: Some(Box::new(spec.clone())),
                place: self.place.clone(),
                files,
            }),
            _ => Ok(Order::default()),
        };
        let executor = Arc::clone(&self.config.executor);
        let wiring = Arc::clone(&self.config.wiring);
        let deed = async move {
            let held = container.as_deref();
            let id = held.ok_or_else(|| Failure::lasting("the task has no container"));
            let event = match action {
                Action::Abort => return None,
                Action::Prepare => Event::Prepared(match order {
                    Ok(order) => executor.prepare(order).await,
                    Err(failure) => Err(failure),
                }),
                Action::Start => Event::Started(match id {
                    Ok(id) => {
                        // A gate gives up after a minute, and the task with it.
                        if spec.spec.node_network().is_none() {
                            wiring.ready().await;
                        }
                        executor.start(id).await
                    }
                    Err(failure) => Err(failure),
                }),
                Action::Connect { pid } => Event::Connected(match id {
                    // A sandbox of ours in the node's own namespace would take the node's network
                    // away.
                    Ok(id) if spec.spec.node_network().is_some() => {
                        // No gate holds the program: it may have ended before its start was told.
                        match executor.inspect(id).await {
                            Ok(ended @ Observation::Exited { .. }) => {
                                return Some(Event::Observed(Ok(ended)));
                            }
                            _ => executor.await_program(id, pid).await,
                        }
                    }
                    Ok(id) => {
                        if ran_before {
                            wiring.answer_names(&spec, pid).await;
                        }
                        connect(&*executor, &*wiring, &spec, id, pid).await
                    }
                    Err(failure) => Err(failure),
                }),
                Action::Inspect => Event::Observed(match id {
                    Ok(id) => executor.inspect(id).await,
                    Err(failure) => Err(failure),
                }),
                Action::Stop { grace } => Event::Stopped(match id {
                    Ok(id) => {
                        match tokio::time::timeout(grace + STOP_MARGIN, executor.stop(id, grace))
                            .await
                        {
                            Ok(stopped) => stopped,
                            Err(_) => {
                                Err(Failure::passing("the engine does not stop the container"))
                            }
                        }
                    }
                    Err(_) => Ok(0),
                }),
                Action::Remove => Event::Removed(executor.remove(task, held).await),
            };
            Some(event)
        };
        self.deeds_begun += 1;
        let number = self.deeds_begun;
        let inputs = self.inputs.clone();
        let work = tokio::spawn(async move {
            if let Some(event) = deed.await {
                let input = Input::Deed {
                    task,
                    number,
                    event,
                };
                // The loop has ended: the journal knows where to go on.
                let _sent = inputs.send(input).await;
            }
        });
        self.deeds.insert(task, (number, work.abort_handle()));
    }
}

async fn connect(
    executor: &dyn Executor,
    wiring: &dyn Wiring,
    task: &weft_types::task::Task,
    container: &str,
    pid: i64,
) -> Result<crate::task::Health, Failure> {
    let mut tries = 0;
    loop {
        match wiring.connect(task, pid).await {
            Ok(()) => break,
            // The data plane may be busy with a revision; the gate is patient.
            Err(failure) if failure.passing && tries < 5 => {
                tries += 1;
                tracing::warn!(task = %task.id, %failure, tries, "cannot connect a task; trying again");
                sleep(Duration::from_millis(200) * tries).await;
            }
            Err(failure) => return Err(failure),
        }
    }
    executor.await_program(container, pid).await
}
