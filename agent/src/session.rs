//! A node's talk with the managers: whom to turn to, what is not stored yet, which network is held.
//!
//! PURE. The session outlives its connections: [`Session::lost`] and [`Session::established`] tell
//! it of them. Reports are sent again until stored, newest status only.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use weft_proto::dispatcher::NodeMessage;
use weft_types::{
    NodeId, TaskId,
    netstate::{DeltaGapError, NetDelta, NetState},
    task::TaskStatus,
};

/// First pause after a connection was lost or refused.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between two dials. A leader that begins counts nodes as down that have not come to it within five
/// seconds or so: whoever waited longer here would lose its tasks when managers are back.
const PAUSE_LAST: Duration = Duration::from_secs(2);
/// Tasks in one report.
const REPORT_TASKS: usize = 500;

/// A talk with the managers.
#[derive(Debug, Default)]
pub struct Session {
    managers: Vec<(Option<NodeId>, SocketAddr)>,
    /// Which manager is next, counted over all dials.
    turn: usize,
    pause: Option<Duration>,
    /// Where a manager said the leader is.
    lead: Option<SocketAddr>,
    /// Who was dialled last.
    dialled: Option<SocketAddr>,
    is_up: bool,
    unsent: BTreeMap<TaskId, TaskStatus>,
    unstored: BTreeMap<u64, BTreeMap<TaskId, TaskStatus>>,
    sequence: u64,
    net: NetState,
}

/// Whom to dial, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// Which manager.
    pub addr: SocketAddr,
    /// Not before so long.
    pub pause: Duration,
}

impl Session {
    /// A talk with `managers`, by a node whose last known network is `net`.
    #[must_use]
    pub fn new(managers: Vec<(Option<NodeId>, SocketAddr)>, net: NetState) -> Self {
        Self {
            managers,
            net,
            ..Self::default()
        }
    }

    /// Managers known.
    #[must_use]
    pub fn managers(&self) -> &[(Option<NodeId>, SocketAddr)] {
        &self.managers
    }

    /// Takes the list that a manager gave, its entries of the form `ip:port`, the leader first. An
    /// empty one is not believed: it would strand the node.
    pub fn set_managers(&mut self, managers: &[(NodeId, String)]) {
        let parsed = managers
            .iter()
            .filter_map(|(id, addr)| Some((Some(*id), addr.parse().ok()?)));
        let parsed: Vec<_> = parsed.collect();
        if !parsed.is_empty() && parsed != self.managers {
            self.managers = parsed;
            self.turn = 0;
        }
    }

    /// Whom to dial next: the leader if a manager named it, else each manager in turn.
    pub fn dial(&mut self) -> Option<Dial> {
        let pause = self.pause.unwrap_or_default();
        self.pause = Some((pause * 2 + PAUSE_FIRST).min(PAUSE_LAST));
        let addr = match self.lead.take() {
            Some(lead) => lead,
            None => {
                let at = self.turn % self.managers.len().max(1);
                self.turn += 1;
                self.managers.get(at)?.1
            }
        };
        self.dialled = Some(addr);
        Some(Dial { addr, pause })
    }

    /// A manager has welcomed the node.
    pub fn established(&mut self) {
        self.is_up = true;
        self.pause = None;
    }

    /// Whether a manager has welcomed the node and the connection stands.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// The connection is gone: what was not stored must be sent again.
    pub fn lost(&mut self) {
        if self.is_up {
            // Who is gone is asked last: a host that vanished keeps a dial waiting for as long as it may take.
            let mut managers = self.managers.iter();
            let lost = managers.position(|(_, addr)| Some(*addr) == self.dialled);
            self.turn = lost.map_or(0, |at| at + 1);
        }
        self.is_up = false;
        self.sequence = 0;
        for (_, updates) in std::mem::take(&mut self.unstored).into_iter().rev() {
            for (task, status) in updates {
                self.unsent.entry(task).or_insert(status);
            }
        }
    }

    /// The connection is given up for a new one to the same manager, if it stood: the node calls with
    /// another certificate from now on.
    pub fn renewed(&mut self) {
        let same = self.dialled.filter(|_| self.is_up);
        self.lost();
        self.lead = same;
    }

    /// The manager at hand does not lead.
    pub fn redirected(&mut self, lead: Option<&str>) {
        self.lead = lead.and_then(|addr| addr.parse().ok());
    }

    /// A task was seen here.
    pub fn report(&mut self, task: TaskId, status: TaskStatus) {
        self.unsent.insert(task, status);
    }

    /// The next report to send, if there is one and somebody listens.
    pub fn take_report(&mut self) -> Option<NodeMessage> {
        if !self.is_up || self.unsent.is_empty() {
            return None;
        }
        let rest = match self.unsent.keys().nth(REPORT_TASKS).copied() {
            Some(first_left) => self.unsent.split_off(&first_left),
            None => BTreeMap::new(),
        };
        let updates = std::mem::replace(&mut self.unsent, rest);
        self.sequence += 1;
        let message = NodeMessage::Status {
            sequence: self.sequence,
            updates: updates
                .iter()
                .map(|(id, status)| (*id, status.clone()))
                .collect(),
        };
        self.unstored.insert(self.sequence, updates);
        Some(message)
    }

    /// Reports up to `sequence` are stored.
    pub fn stored(&mut self, sequence: u64) {
        self.unstored.retain(|number, _| *number > sequence);
    }

    /// The network as last told.
    #[must_use]
    pub fn net(&self) -> &NetState {
        &self.net
    }

    /// Takes a step of the network.
    ///
    /// # Errors
    /// When steps are missing; the network held is unchanged and a snapshot must be asked for.
    pub fn net_step(&mut self, delta: NetDelta) -> Result<(), DeltaGapError> {
        self.net.apply(delta)
    }
}
