//! `explain`: where a packet would enter this node, and what each program does with it.

mod texts;

use std::net::{IpAddr, SocketAddr};

use weft_abi::{
    Addr, Be16, Done, Endpoint, FlowKey, Front, FrontKey, GATEWAY_MAC, Leg, Mac, RangeKey, flow,
    task_mac, task_of_mac, wire_mac,
};

use super::Keeper;
use crate::{
    DataplaneError, Desired, Question, Step, cipher,
    explain::{self, Outcome, Rehearsal, Rehearsed, Tuple, frame, macs},
    kernel::door::Kernel,
};

/// Where a packet meets this node's first program.
enum Entry {
    /// A process of this host asks: its socket is led before there is a packet.
    Socket,
    /// A process of this host sends to a task's address.
    HostOut,
    /// A task of this node sends.
    Task(Endpoint),
    /// It comes in on a link to the world.
    Uplink(u32),
    /// It came in at this other node, which tunnels it here.
    Tunnel(u32),
}

impl<K: Kernel> Keeper<K> {
    pub(crate) fn desired(&self) -> Option<&Desired> {
        self.desired.as_ref()
    }

    /// See [`crate::Dataplane::explain`].
    pub(crate) fn explain(&self, question: &Question) -> Result<Vec<Step>, DataplaneError> {
        let tuple = Tuple::of(question);
        if tuple.src.is_ipv4() != tuple.dst.is_ipv4() {
            return Err(DataplaneError::Refused(format!(
                "client {} and server {} are of different families: no packet can be from one to the other",
                tuple.src, tuple.dst
            )));
        }
        let Some(desired) = &self.desired else {
            return Err(DataplaneError::Refused(
                "this node has not been told the cluster's network yet".to_owned(),
            ));
        };
        match self.entry(desired, &tuple) {
            Entry::Socket => Ok(vec![self.socket(desired, &tuple)?]),
            Entry::HostOut => self.host_out(desired, &tuple),
            Entry::Task(endpoint) => self.by_task(desired, &tuple, &endpoint),
            Entry::Uplink(link) => self.by_uplink(desired, &tuple, link),
            Entry::Tunnel(node) => self.by_tunnel(desired, &tuple, node),
        }
    }

    fn entry(&self, desired: &Desired, tuple: &Tuple) -> Entry {
        let (client, server) = (tuple.src.ip(), tuple.dst.ip());
        let is_own = |addr: IpAddr| {
            addr.is_loopback()
                || addr.is_unspecified()
                || self.surroundings.addresses.contains_key(&addr)
        };
        let subnet = |addr: IpAddr| desired.subnets.keys().find(|subnet| subnet.contains(addr));
        let mut sending: Vec<Endpoint> = self
            .interfaces()
            .into_iter()
            .filter(|endpoint| crate::links::addresses(endpoint).any(|addr| addr == client))
            .collect();
        // Of two networks with the same address, the one that the server is on.
        sending.sort_by_key(|endpoint| {
            let net = subnet(server).and_then(|subnet| desired.subnets.get(subnet));
            net != Some(&endpoint.net)
        });
        if let Some(endpoint) = sending.first() {
            return Entry::Task(*endpoint);
        }
        if is_own(client) {
            return if subnet(server).is_some() {
                Entry::HostOut
            } else {
                Entry::Socket
            };
        }
        if let Some(link) = self.surroundings.addresses.get(&server) {
            return Entry::Uplink(*link);
        }
        let others = desired
            .nodes
            .iter()
            .filter(|(index, _)| **index != desired.node);
        let holds =
            |node: &crate::desired::Node| node.addr == server || node.addresses.contains(&server);
        if let Some((index, _)) = others.into_iter().find(|(_, node)| holds(node)) {
            return Entry::Tunnel(*index);
        }
        let uplink = self.surroundings.data_link(self.config.data_path_addr);
        Entry::Uplink(uplink.map_or(0, |link| link.index))
    }

    fn by_uplink(
        &self,
        desired: &Desired,
        tuple: &Tuple,
        link: u32,
    ) -> Result<Vec<Step>, DataplaneError> {
        let mac = self.surroundings.links.get(&link).map(|link| &link.mac);
        let to: Mac = mac
            .and_then(|mac| mac.as_slice().try_into().ok())
            .unwrap_or([0; 6]);
        let front = self.published(tuple)?;
        let mut why = vec![self.front_text(desired, tuple, front.as_ref())];
        let opening = self.remembered(desired.mesh, tuple, &mut why)?;
        if let Some(front) = &front {
            self.ring_text(desired, tuple, front, &mut why)?;
        }
        let rehearsal = Rehearsal {
            program: "uplink_in",
            link,
            received: true,
            tunnel: None,
            frame: self.frame(tuple, to, [2, 0xff, 0, 0, 0, 1], opening)?,
        };
        self.follow(desired, tuple, rehearsal, why)
    }

    fn by_task(
        &self,
        desired: &Desired,
        tuple: &Tuple,
        endpoint: &Endpoint,
    ) -> Result<Vec<Step>, DataplaneError> {
        let mut why = vec![format!(
            "the client is {} of this node",
            self.task_text(desired, endpoint.id)
        )];
        let vip = self.kernel.front(&vip_key(endpoint.net, tuple.dst.ip()))?;
        let front = match vip {
            Some(front) => Some(front),
            None => self.published(tuple)?,
        };
        if let Some(front) = &front {
            why.push(self.front_text(desired, tuple, Some(front)));
            why.push(
                "a socket of the task's own is led by the socket hook, before there is a packet; \
                 this is what happens to a packet that was not"
                    .to_owned(),
            );
        }
        let opening = self.remembered(endpoint.net, tuple, &mut why)?;
        if let Some(front) = &front {
            self.ring_text(desired, tuple, front, &mut why)?;
        }
        let rehearsal = Rehearsal {
            program: "task_in",
            link: endpoint.ifindex,
            received: true,
            tunnel: None,
            frame: self.frame(tuple, GATEWAY_MAC, endpoint.mac, opening)?,
        };
        self.follow(desired, tuple, rehearsal, why)
    }

    fn by_tunnel(
        &self,
        desired: &Desired,
        tuple: &Tuple,
        node: u32,
    ) -> Result<Vec<Step>, DataplaneError> {
        let front = self.carried(tuple)?;
        let mut why = vec![
            format!("the client comes in by {}", self.node_text(desired, node)),
            self.front_text(desired, tuple, front.as_ref()),
        ];
        let opening = self.remembered(desired.mesh, tuple, &mut why)?;
        let Some(front) = front else {
            return Ok(vec![elsewhere(tuple, why)]);
        };
        let chosen = self.ring_text(desired, tuple, &front, &mut why)?;
        let key = wire_key(desired.mesh, tuple);
        let flow = self.kernel.track(&key)?;
        let here = flow.flow.or(flow.embryo).map(|flow| flow.backend);
        let Some(backend) = here.or(chosen) else {
            return Ok(vec![elsewhere(tuple, why)]);
        };
        let runs_on = self.kernel.backend(backend)?.map(|backend| backend.node);
        if runs_on != Some(desired.node) {
            if let Some(other) = runs_on {
                why.push(format!(
                    "it goes on at {}: ask there",
                    self.node_text(desired, other)
                ));
            }
            return Ok(vec![elsewhere(tuple, why)]);
        }
        let outer = if desired.ciphered.contains(&desired.mesh) {
            cipher::addresses(node).next().map(IpAddr::V4)
        } else {
            desired.nodes.get(&node).map(|node| node.addr)
        };
        let Some(IpAddr::V4(from)) = outer else {
            why.push("an arrival over an IPv6 underlay cannot be rehearsed".to_owned());
            return Ok(vec![elsewhere(tuple, why)]);
        };
        let rehearsal = Rehearsal {
            program: "overlay_in",
            link: self.overlay,
            received: true,
            tunnel: Some((desired.mesh, from)),
            frame: self.frame(tuple, task_mac(backend), wire_mac(Leg::Mesh, 0), opening)?,
        };
        self.follow(desired, tuple, rehearsal, why)
    }

    fn host_out(&self, desired: &Desired, tuple: &Tuple) -> Result<Vec<Step>, DataplaneError> {
        let why = vec!["the client is a process of this host".to_owned()];
        let rehearsal = Rehearsal {
            program: "host_out",
            link: self.overlay,
            received: false,
            tunnel: None,
            frame: self.frame(tuple, [2, 0xff, 0, 0, 0, 1], [2, 0xff, 0, 0, 0, 2], true)?,
        };
        self.follow(desired, tuple, rehearsal, why)
    }

    /// A process of this host at a published port: decided per socket, with no packet to rehearse.
    fn socket(&self, desired: &Desired, tuple: &Tuple) -> Result<Step, DataplaneError> {
        let front = self.published(tuple)?;
        let mut why = vec![
            "the client is a process of this host".to_owned(),
            self.front_text(desired, tuple, front.as_ref()),
        ];
        let mut backends = Vec::new();
        if let Some(front) = &front {
            let slots = self.kernel.ring(front.service)?;
            let ids: std::collections::BTreeSet<u32> =
                slots.iter().copied().filter(|id| *id != 0).collect();
            backends.extend(ids.into_iter().map(|id| self.backend_text(desired, id)));
        }
        let done = match (&front, backends.is_empty()) {
            (None, _) => Done::NotOurs,
            (Some(_), true) => Done::Refused,
            (Some(_), false) => {
                why.push(format!(
                    "one of these is chosen once, when the socket connects: {}",
                    backends.join("; ")
                ));
                Done::SocketLed
            }
        };
        Ok(Step {
            program: if tuple.dst.is_ipv4() {
                "connect4"
            } else {
                "connect6"
            }
            .to_owned(),
            place: "sockets".to_owned(),
            decision: done.text().to_owned(),
            dropped: false,
            why,
            packet: tuple.to_string(),
        })
    }

    fn frame(
        &self,
        tuple: &Tuple,
        to: Mac,
        from: Mac,
        opening: bool,
    ) -> Result<Vec<u8>, DataplaneError> {
        frame(tuple, to, from, opening).ok_or_else(|| {
            DataplaneError::Refused(format!("{tuple} is no packet: two families of addresses"))
        })
    }

    /// Runs the program and, where the packet reaches a task that has answered before, the way back.
    fn follow(
        &self,
        desired: &Desired,
        tuple: &Tuple,
        rehearsal: Rehearsal,
        why: Vec<String>,
    ) -> Result<Vec<Step>, DataplaneError> {
        let said = self.kernel.rehearse(&rehearsal)?;
        let mut steps = vec![self.step(desired, &rehearsal, &said, why)?];
        let delivered = matches!(said.outcome(), Some(Outcome::Done(Done::ToTaskTranslated)));
        let task = self
            .interfaces()
            .into_iter()
            .find(|known| known.ifindex == said.place);
        if let (true, Some(task), Some(seen)) = (delivered, task, explain::tuple(&said.frame)) {
            let answer = seen.turned();
            let key = FlowKey {
                side: flow::REPLY,
                ..wire_key(task.net, &answer)
            };
            let track = self.kernel.track(&key)?;
            if track.flow.or(track.embryo).is_none() {
                steps[0].why.push(format!(
                    "the answer is translated back to {} on this node, and leaves by the way the client came",
                    tuple.dst
                ));
                return Ok(steps);
            }
            let back = Rehearsal {
                program: "task_in",
                link: task.ifindex,
                received: true,
                tunnel: None,
                frame: self.frame(&answer, GATEWAY_MAC, task.mac, false)?,
            };
            let said = self.kernel.rehearse(&back)?;
            let why = vec!["the task's answer on this flow".to_owned()];
            steps.push(self.step(desired, &back, &said, why)?);
        }
        Ok(steps)
    }

    fn step(
        &self,
        desired: &Desired,
        rehearsal: &Rehearsal,
        said: &Rehearsed,
        mut why: Vec<String>,
    ) -> Result<Step, DataplaneError> {
        let outcome = said.outcome().ok_or_else(|| DataplaneError::Bpf {
            operation: "rehearse with",
            object: rehearsal.program.to_owned(),
            cause: format!(
                "it answers {}, which this binary does not know",
                said.reason
            ),
        })?;
        let to = macs(&said.frame).and_then(|(to, _)| task_of_mac(to));
        if let Outcome::Done(done) = outcome {
            why.extend(self.place_text(desired, done, said.place, to));
        }
        Ok(Step {
            program: rehearsal.program.to_owned(),
            place: self.link_text(rehearsal.link),
            decision: outcome.text().to_owned(),
            dropped: matches!(outcome, Outcome::Drop(_)),
            why,
            packet: explain::tuple(&said.frame)
                .map_or_else(|| "no packet".to_owned(), |tuple| tuple.to_string()),
        })
    }

    fn published(&self, tuple: &Tuple) -> Result<Option<Front>, DataplaneError> {
        self.front_at(tuple, tuple.dst.ip().into())
    }

    /// As [`Self::published`], for a packet that another node took in.
    fn carried(&self, tuple: &Tuple) -> Result<Option<Front>, DataplaneError> {
        self.front_at(tuple, FrontKey::CARRIED)
    }

    fn front_at(&self, tuple: &Tuple, own: Addr) -> Result<Option<Front>, DataplaneError> {
        let key = |addr| FrontKey {
            net: 0,
            addr,
            port: Be16::new(tuple.dst.port()),
            proto: tuple.proto,
            pad: 0,
        };
        let range = |addr| RangeKey {
            addr,
            proto: tuple.proto,
            pad: 0,
            port: Be16::new(tuple.dst.port()),
        };
        for addr in [own, Addr::ANY] {
            if let Some(front) = self.kernel.front(&key(addr))? {
                return Ok(Some(front));
            }
        }
        for addr in [own, Addr::ANY] {
            if let Some(front) = self.kernel.front_range(range(addr))? {
                return Ok(Some(front));
            }
        }
        Ok(None)
    }
}

fn vip_key(net: u32, addr: IpAddr) -> FrontKey {
    FrontKey {
        net,
        addr: addr.into(),
        ..FrontKey::default()
    }
}

fn wire_key(net: u32, tuple: &Tuple) -> FlowKey {
    let parts = |at: SocketAddr| (Addr::from(at.ip()), Be16::new(at.port()));
    let ((src, sport), (dst, dport)) = (parts(tuple.src), parts(tuple.dst));
    FlowKey {
        src,
        dst,
        net,
        sport,
        dport,
        proto: tuple.proto,
        side: flow::WIRE,
        pad: [0; 2],
    }
}

/// No program of this node sees the packet.
fn elsewhere(tuple: &Tuple, why: Vec<String>) -> Step {
    Step {
        program: "none".to_owned(),
        place: "another node".to_owned(),
        decision: "the packet does not pass this node".to_owned(),
        dropped: false,
        why,
        packet: tuple.to_string(),
    }
}
