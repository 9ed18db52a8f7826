//! Serving lines of tasks' logs.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use weft_proto::{LogItem, LogLine, LogSelector, dispatcher::NodeMessage};
use weft_types::{Labels, NodeId, ServiceId, TaskId};

use super::{Input, Runtime};
use crate::executor::{Executor, LogEntry, LogQuery};

/// Lines in one message.
const LINES: usize = 128;
/// How long a line may wait for others to travel with.
const GATHER: Duration = Duration::from_millis(20);

/// One task's log, to be read.
struct Source {
    node: NodeId,
    service: Option<ServiceId>,
    task: TaskId,
    container: String,
}

impl Runtime {
    /// Answers a request with the lines of those of its tasks that are here.
    pub(super) fn serve_log(&mut self, request: u64, selector: &LogSelector) {
        let Some(outbox) = self.outbox.clone() else {
            return;
        };
        let sources: Vec<Source> = self
            .worker
            .machines()
            .filter(|(id, _)| selector.tasks.contains(id))
            .filter_map(|(id, machine)| {
                Some(Source {
                    node: self.config.node,
                    service: machine.task().service_id,
                    task: *id,
                    container: machine.container()?.to_owned(),
                })
            })
            .collect();
        let query = LogQuery {
            stdout: selector.stdout,
            stderr: selector.stderr,
            follow: selector.follow,
            tail: selector.tail,
            since: selector.since,
        };
        let (executor, inputs) = (Arc::clone(&self.config.executor), self.inputs.clone());
        let work = tokio::spawn(async move {
            serve(executor, request, sources, query, outbox).await;
            // The loop has ended: nobody wants to know.
            let _sent = inputs.send(Input::LogEnded(request)).await;
        });
        if let Some(older) = self.logs.insert(request, work.abort_handle()) {
            older.abort();
        }
    }
}

async fn serve(
    executor: Arc<dyn Executor>,
    request: u64,
    sources: Vec<Source>,
    query: LogQuery,
    outbox: mpsc::Sender<NodeMessage>,
) {
    let (items, mut gathered) = mpsc::channel::<LogItem>(LINES);
    let mut readers = tokio::task::JoinSet::new();
    for source in sources {
        readers.spawn(read(Arc::clone(&executor), source, query, items.clone()));
    }
    drop(items);
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
    query: LogQuery,
    items: mpsc::Sender<LogItem>,
) {
    let mut entries = match executor.logs(&source.container, query).await {
        Ok(entries) => entries,
        Err(failure) => {
            // A container of history may be gone by hand: the others' lines are still wished.
            let warning = format!("task {}: {failure}", source.task);
            let _sent = items.send(LogItem::Warning(warning)).await;
            return;
        }
    };
    while let Some(LogEntry { stream, at, line }) = entries.recv().await {
        let item = LogItem::Line(LogLine {
            node: source.node,
            service: source.service,
            task: source.task,
            stream,
            at,
            attributes: Labels::new(),
            line,
        });
        if items.send(item).await.is_err() {
            return;
        }
    }
}
