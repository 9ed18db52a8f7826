//! Serving lines of tasks' logs.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use weft_proto::{LogItem, LogLine, LogSelector, dispatcher::NodeMessage};
use weft_types::{NodeId, ServiceId, TaskId};

use super::{Input, Runtime};
use crate::{
    executor::{Executor, LogQuery},
    task::Failure,
};

/// Lines in one message.
const LINES: usize = 128;
/// How long a line may wait for others to travel with.
const GATHER: Duration = Duration::from_millis(20);

/// One task's log, to be read.
struct Source {
    node: NodeId,
    service: Option<ServiceId>,
    task: TaskId,
}

/// A task whose log is followed before it has a container.
pub(super) struct Awaited {
    request: u64,
    source: Source,
    query: LogQuery,
    items: mpsc::Sender<LogItem>,
}

impl Runtime {
    /// Answers a request with the lines of those of its tasks that are here, beside what is read for it
    /// already.
    pub(super) fn serve_log(&mut self, request: u64, selector: &LogSelector) {
        let Some(outbox) = self.outbox.clone() else {
            return;
        };
        self.logs_begun += 1;
        let part = self.logs_begun;
        let query = LogQuery {
            stdout: selector.stdout,
            stderr: selector.stderr,
            follow: selector.follow,
            tail: selector.tail,
            since: selector.since,
        };
        let (items, gathered) = mpsc::channel::<LogItem>(LINES);
        let inputs = self.inputs.clone();
        let work = tokio::spawn(async move {
            hand_on(request, gathered, outbox).await;
            // The loop has ended: nobody wants to know.
            let _sent = inputs.send(Input::LogEnded(request, part)).await;
        });
        self.logs.insert((request, part), work.abort_handle());
        for (id, machine) in self.worker.machines() {
            if !selector.tasks.contains(id) {
                continue;
            }
            let source = Source {
                node: self.config.node,
                service: machine.task().service_id,
                task: *id,
            };
            let (items, request) = (items.clone(), request);
            self.awaited.push(Awaited {
                request,
                source,
                query,
                items,
            });
        }
        drop(items);
        self.read_awaited();
    }

    /// Begins to read the logs of tasks that have a container now. Those that will have one are
    /// waited for by who follows.
    pub(super) fn read_awaited(&mut self) {
        for awaited in std::mem::take(&mut self.awaited) {
            let machine = self.worker.machine(&awaited.source.task);
            let Some(machine) = machine else { continue };
            let executor = Arc::clone(&self.config.executor);
            if let Some(container) = machine.container().map(ToOwned::to_owned) {
                let Awaited {
                    source,
                    query,
                    items,
                    ..
                } = awaited;
                tokio::spawn(read(executor, source, container, query, items));
            } else if awaited.query.follow && !machine.status().state.is_terminal() {
                self.awaited.push(awaited);
            }
        }
    }

    /// Nobody listens to this request any more.
    pub(super) fn end_log(&mut self, request: u64) {
        self.awaited.retain(|awaited| awaited.request != request);
        self.logs.retain(|(of, _), log| {
            let ends = *of == request;
            if ends {
                log.abort();
            }
            !ends
        });
    }
}

/// Sends items on in batches until nobody makes any; readers end when this does.
async fn hand_on(
    request: u64,
    mut gathered: mpsc::Receiver<LogItem>,
    outbox: mpsc::Sender<NodeMessage>,
) {
    while let Some(first) = gathered.recv().await {
        let mut batch = vec![first];
        while batch.len() < LINES
            && let Ok(Some(next)) = timeout(GATHER, gathered.recv()).await
        {
            batch.push(next);
        }
        let message = NodeMessage::Logs {
            request,
            items: batch,
            end: false,
        };
        if outbox.send(message).await.is_err() {
            return;
        }
    }
    let last = NodeMessage::Logs {
        request,
        items: Vec::new(),
        end: true,
    };
    // The connection is gone, and with it whoever asked.
    let _sent = outbox.send(last).await;
}

async fn read(
    executor: Arc<dyn Executor>,
    source: Source,
    container: String,
    query: LogQuery,
    items: mpsc::Sender<LogItem>,
) {
    // A log may be missing or end too early: the others' lines are still wished.
    let warn = |failure: &Failure| LogItem::Warning(format!("task {}: {failure}", source.task));
    let opened = tokio::select! {
        opened = executor.logs(&container, query) => opened,
        () = items.closed() => return,
    };
    let mut entries = match opened {
        Ok(entries) => entries,
        Err(failure) => {
            let _sent = items.send(warn(&failure)).await;
            return;
        }
    };
    loop {
        let entry = tokio::select! {
            entry = entries.recv() => entry,
            () = items.closed() => return,
        };
        let item = match entry {
            None => return,
            Some(Err(failure)) => warn(&failure),
            Some(Ok(entry)) => LogItem::Line(LogLine {
                node: source.node,
                service: source.service,
                task: source.task,
                stream: entry.stream,
                at: entry.at,
                attributes: entry.attributes,
                line: entry.line,
            }),
        };
        if items.send(item).await.is_err() {
            return;
        }
    }
}
