//! Lines of tasks' logs, gathered from the nodes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use weft_proto::{ControlError, LogItem, LogLine, LogSelector, dispatcher::ManagerMessage};
use weft_types::{NodeId, SessionId, TaskId, TaskState, Timestamp};

use super::{Manager, propose::ProposeError};
use crate::store::View;

/// How long a node may be silent before its lines count as missing.
const NODE_LIMIT: Duration = Duration::from_secs(5);

/// Items waiting for a slow reader.
const BUFFER: usize = 256;

/// How long a node's session waits for a slow reader. One who reads on makes room by then; for one who does
/// not, nothing else that the node says may have to wait.
const ROOM_LIMIT: Duration = Duration::from_secs(1);

/// How often new tasks and new sessions are looked for while following.
const LOOK: Duration = Duration::from_millis(250);

/// What a node answered to one request.
#[derive(Debug)]
struct Answer {
    node: NodeId,
    items: Vec<LogItem>,
    end: bool,
    /// Lines before these that found no room.
    missed: usize,
}

/// What a node said that found no room.
#[derive(Debug, Default, Clone, Copy)]
struct Missed {
    lines: usize,
    /// Its last word was among it.
    end: bool,
}

/// Who waits for the answers to one request.
#[derive(Debug)]
struct Waiting {
    sender: mpsc::Sender<Answer>,
    /// What of each node the reader is not told of yet.
    missed: BTreeMap<NodeId, Missed>,
}

/// Who waits for the answers to which request.
#[derive(Debug, Default)]
pub(crate) struct LogHub {
    waiting: Mutex<HashMap<u64, Waiting>>,
    last: AtomicU64,
}

impl LogHub {
    fn open(&self) -> (u64, mpsc::Receiver<Answer>) {
        let request = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answers) = mpsc::channel(BUFFER);
        let missed = BTreeMap::new();
        self.waiting().insert(request, Waiting { sender, missed });
        (request, answers)
    }

    fn close(&self, request: u64) {
        self.waiting().remove(&request);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What found no room until now, once.
    fn missed(&self, request: u64) -> BTreeMap<NodeId, Missed> {
        let mut waiting = self.waiting();
        let waiting = waiting.get_mut(&request);
        waiting.map_or_else(BTreeMap::new, |waiting| mem::take(&mut waiting.missed))
    }

    /// Hands lines of `node` to whoever asked; drops them if nobody does any more, or if who does reads no
    /// further.
    pub(crate) async fn take(&self, node: NodeId, request: u64, items: Vec<LogItem>, end: bool) {
        let known = self.waiting().get_mut(&request).map(|waiting| {
            let missed = waiting.missed.remove(&node).unwrap_or_default();
            (waiting.sender.clone(), missed.lines)
        });
        let Some((sender, missed)) = known else {
            return;
        };
        let lines = missed + items.len();
        // Who did not make room the last time is not waited for again.
        let limit = if missed == 0 {
            ROOM_LIMIT
        } else {
            Duration::ZERO
        };
        let Ok(room) = timeout(limit, sender.reserve()).await else {
            if let Some(waiting) = self.waiting().get_mut(&request) {
                waiting.missed.insert(node, Missed { lines, end });
            }
            return;
        };
        // The reader has gone when there is no room at all.
        if let Ok(room) = room {
            room.send(Answer {
                node,
                items,
                end,
                missed,
            });
        }
    }
}

/// The tasks whose lines are wished, by node. Tasks that never had a node have no lines.
fn tasks(view: &View, selector: &LogSelector) -> BTreeMap<NodeId, BTreeSet<TaskId>> {
    let mut by_node: BTreeMap<NodeId, BTreeSet<TaskId>> = BTreeMap::new();
    let of_services = selector
        .services
        .iter()
        .flat_map(|service| view.tasks_of(*service));
    let named = selector.tasks.iter().filter_map(|task| view.task(*task));
    for task in of_services.chain(named) {
        let has_lines = task.status.state >= TaskState::Accepted;
        if let (Some(node), true) = (task.node_id, has_lines) {
            by_node.entry(node).or_default().insert(task.id);
        }
    }
    by_node
}

/// A node that was asked.
#[derive(Debug, Default)]
struct Asked {
    /// For these.
    tasks: BTreeSet<TaskId>,
    /// In this session, if it had one.
    session: Option<SessionId>,
    /// What was read of its tasks before it was asked again.
    read: BTreeMap<TaskId, Timestamp>,
}

/// One running request.
struct Gathering {
    manager: Arc<Manager>,
    selector: LogSelector,
    request: u64,
    asked: BTreeMap<NodeId, Asked>,
    /// The time of the last line of each task.
    heard: BTreeMap<TaskId, Timestamp>,
    /// Nodes that have not ended yet, and when they count as lost.
    open: BTreeMap<NodeId, Instant>,
    reader: mpsc::Sender<LogItem>,
}

impl Manager {
    /// Starts gathering lines; only on the leader.
    pub(crate) async fn gather(
        self: &Arc<Self>,
        selector: LogSelector,
    ) -> Result<mpsc::Receiver<LogItem>, ProposeError> {
        let view = self.fresh_view().await?;
        for service in &selector.services {
            if view.service(*service).is_none() {
                return Err(ControlError::not_found(format!("service {service} not found")).into());
            }
        }
        for task in &selector.tasks {
            if view.task(*task).is_none() {
                return Err(ControlError::not_found(format!("task {task} not found")).into());
            }
        }
        let (request, answers) = self.logs.open();
        let (reader, lines) = mpsc::channel(BUFFER);
        let gathering = Gathering {
            manager: Arc::clone(self),
            selector,
            request,
            asked: BTreeMap::new(),
            heard: BTreeMap::new(),
            open: BTreeMap::new(),
            reader,
        };
        tokio::spawn(gathering.run(view, answers));
        Ok(lines)
    }
}

impl Gathering {
    async fn run(mut self, view: View, mut answers: mpsc::Receiver<Answer>) {
        let stop = self.manager.stop.clone();
        let reader = self.reader.clone();
        tokio::select! {
            () = self.gather(view, &mut answers) => {}
            () = stop.cancelled() => {}
            () = reader.closed() => {}
        }
        self.manager.logs.close(self.request);
        for node in self.asked.keys() {
            if let Some(session) = self.manager.sessions.get(*node) {
                // A node whose outbox is full finds out by itself that nobody listens.
                let _ = session
                    .outbox
                    .try_send(Ok(ManagerMessage::LogCancel(self.request)));
            }
        }
    }

    async fn gather(&mut self, view: View, answers: &mut mpsc::Receiver<Answer>) {
        self.ask(&view, true).await;
        let mut look_at = Instant::now() + LOOK;
        loop {
            if answers.is_empty() {
                self.tell_missed().await;
            }
            if self.open.is_empty() && !self.selector.follow {
                return;
            }
            let due = self.open.values().min().copied();
            let due = due.unwrap_or_else(|| Instant::now() + NODE_LIMIT);
            tokio::select! {
                answer = answers.recv() => match answer {
                    Some(answer) => {
                        if answer.missed > 0 {
                            self.miss_lines(answer.node, answer.missed).await;
                        }
                        for item in answer.items {
                            if let LogItem::Line(line) = &item
                                && !self.is_new(answer.node, line)
                            {
                                continue;
                            }
                            if self.reader.send(item).await.is_err() {
                                return;
                            }
                        }
                        // Who follows may be silent for as long as there is nothing to say.
                        if answer.end || self.selector.follow {
                            self.open.remove(&answer.node);
                        } else {
                            self.open.insert(answer.node, Instant::now() + NODE_LIMIT);
                        }
                    }
                    None => return,
                },
                () = sleep_until(due), if !self.open.is_empty() => self.give_up().await,
                // Also while there is always a line to read.
                () = sleep_until(look_at), if self.selector.follow => {
                    let view = self.manager.replica.view();
                    self.ask(&view, false).await;
                    look_at = Instant::now() + LOOK;
                }
            }
        }
    }

    /// Notes a line; whether it was not read in an earlier session of its node.
    fn is_new(&mut self, node: NodeId, line: &LogLine) -> bool {
        let heard = self.heard.entry(line.task).or_insert(line.at);
        *heard = line.at.max(*heard);
        let read = self.asked.get(&node);
        let read = read.and_then(|asked| asked.read.get(&line.task));
        read.is_none_or(|read| line.at > *read)
    }

    /// Asks the nodes of tasks that have not been asked for yet, and those again that ended what they
    /// were asked with their last session.
    async fn ask(&mut self, view: &View, first: bool) {
        for (node, wanted) in tasks(view, &self.selector) {
            let session = self.manager.sessions.get(node);
            let asked = self.asked.entry(node).or_default();
            let at_hand = session.as_ref().map(|session| session.id);
            let is_another = !asked.tasks.is_empty() && asked.session != at_hand;
            asked.session = at_hand;
            let (old, new): (Vec<_>, Vec<_>) = wanted
                .into_iter()
                .partition(|task| asked.tasks.contains(task));
            let mut requests = Vec::new();
            if is_another {
                let (known, silent): (Vec<_>, Vec<_>) = old
                    .into_iter()
                    .partition(|task| self.heard.contains_key(task));
                let last = |task: &TaskId| Some((*task, *self.heard.get(task)?));
                asked.read = known.iter().filter_map(last).collect();
                let since = asked.read.values().min().copied();
                requests.push((known, None, since));
                requests.push((silent, self.selector.tail, None));
            }
            asked.tasks.extend(&new);
            // Tasks that appear while following are wished from their first line on.
            requests.push((new, self.selector.tail.filter(|_| first), None));
            requests.retain(|(tasks, ..)| !tasks.is_empty());
            if requests.is_empty() {
                continue;
            }
            let all_sent = session.is_some_and(|session| {
                requests.into_iter().all(|(tasks, tail, since)| {
                    let selector = LogSelector {
                        services: Vec::new(),
                        tasks,
                        tail,
                        since: since.unwrap_or(self.selector.since),
                        ..self.selector.clone()
                    };
                    let request = self.request;
                    let message = ManagerMessage::LogRequest { request, selector };
                    session.outbox.try_send(Ok(message)).is_ok()
                })
            });
            if all_sent {
                self.open.insert(node, Instant::now() + NODE_LIMIT);
            } else {
                self.miss(node, "is not available").await;
            }
        }
    }

    /// Tells of lines behind which no others came.
    async fn tell_missed(&mut self) {
        for (node, missed) in self.manager.logs.missed(self.request) {
            self.miss_lines(node, missed.lines).await;
            if missed.end {
                self.open.remove(&node);
            }
        }
    }

    /// Gives up on the nodes whose time is over.
    async fn give_up(&mut self) {
        self.tell_missed().await;
        let now = Instant::now();
        let late: Vec<NodeId> = self
            .open
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            self.open.remove(&node);
            // A follower that is silent from the start has nothing to say yet.
            if !self.selector.follow {
                self.miss(node, "did not answer in time").await;
            }
        }
    }

    async fn miss_lines(&self, node: NodeId, lines: usize) {
        let why = format!("said {lines} lines faster than they were read");
        self.miss(node, &why).await;
    }

    async fn miss(&self, node: NodeId, why: &str) {
        let text = format!(
            "incomplete log stream. some logs could not be retrieved for the following reasons: node {node} {why}"
        );
        let _ = self.reader.send(LogItem::Warning(text)).await;
    }
}
