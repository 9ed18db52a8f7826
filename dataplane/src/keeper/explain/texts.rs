//! What tables and links hold, in words.

use std::net::IpAddr;

use weft_abi::{Addr, Be16, Done, Front, ring_hash, ring_slot};
use weft_types::BackendId;

use super::wire_key;

use super::super::Keeper;
use crate::{
    DataplaneError, Desired, cipher,
    desired::Frontend,
    explain::{self, Tuple},
    kernel::door::Kernel,
};

impl<K: Kernel> Keeper<K> {
    /// Where the packet goes next.
    pub(super) fn place_text(
        &self,
        desired: &Desired,
        done: Done,
        place: u32,
        to: Option<u32>,
    ) -> Option<String> {
        match done {
            Done::ToTask | Done::ToTaskTranslated | Done::AnswerToTask => Some(format!(
                "delivered to {} through {}",
                self.backend_text(desired, to?),
                self.link_text(place)
            )),
            Done::ToNode | Done::ToBackendNode | Done::SecondChance => {
                let node = desired
                    .endpoints
                    .get(&BackendId(to?))
                    .map(|task| task.node)?;
                Some(format!(
                    "for {}: it goes on at {}, ask there",
                    self.task_text(desired, to?),
                    self.node_text(desired, node)
                ))
            }
            Done::AnswerToNode => {
                let addr = IpAddr::from(Addr::from_v4_word(place));
                let mut nodes = desired.nodes.iter();
                let at = |index: u32, node: &crate::desired::Node| {
                    node.addr == addr || cipher::addresses(index).any(|inside| inside == addr)
                };
                let (index, _) = nodes.find(|(index, node)| at(**index, node))?;
                Some(format!("through {}", self.node_text(desired, *index)))
            }
            Done::AnswerToClient | Done::Refused if place != 0 => {
                Some(format!("out of {}", self.link_text(place)))
            }
            _ => None,
        }
    }

    pub(super) fn front_text(
        &self,
        desired: &Desired,
        tuple: &Tuple,
        front: Option<&Front>,
    ) -> String {
        let port = format!(
            "{}/{}",
            tuple.dst.port(),
            explain::protocol_name(tuple.proto)
        );
        let name_of = |ring: u32| {
            let name = desired.service_names.get(&ring);
            name.map_or_else(|| format!("ring {ring}"), Clone::clone)
        };
        let Some(front) = front else {
            let is_asked = |front: &&Frontend| front.takes(tuple.proto, tuple.dst.port());
            let elsewhere = desired.listens.keys().find(is_asked);
            return match elsewhere.and_then(|front| desired.fronts.get(front)) {
                Some(target) => format!(
                    "port {port} is published by service {}, but not at {}: its label weft.listen names where",
                    name_of(target.ring),
                    tuple.dst.ip()
                ),
                None => format!("nothing is published at port {port}"),
            };
        };
        let name = name_of(front.service);
        let asked = if desired
            .subnets
            .keys()
            .any(|subnet| subnet.contains(tuple.dst.ip()))
        {
            format!("{} is the address of service {name}", tuple.dst.ip())
        } else {
            format!("port {port} is published by service {name}")
        };
        if front.port.is_zero() {
            asked
        } else {
            let port = front.target(Be16::new(tuple.dst.port()));
            format!("{asked}, its tasks listen at {}", port.get())
        }
    }

    /// Adds what is remembered of the tuple. True when nothing is: then the packet opens a connection.
    pub(super) fn remembered(
        &self,
        net: u32,
        tuple: &Tuple,
        why: &mut Vec<String>,
    ) -> Result<bool, DataplaneError> {
        let track = self.kernel.track(&wire_key(net, tuple))?;
        if let Some(flow) = track.flow {
            why.push(format!("the flow is known, of backend {}", flow.backend));
        } else if let Some(flow) = track.embryo {
            why.push(format!(
                "the flow is known and not answered yet, of backend {}",
                flow.backend
            ));
        } else if let Some(pick) = track.pick {
            why.push(format!("backend {} was chosen before", pick.backend));
        } else {
            why.push(
                "nothing is remembered of it: taken for a connection's first packet".to_owned(),
            );
            return Ok(true);
        }
        Ok(false)
    }

    /// Adds what the ring says; the backend that it gives first.
    pub(super) fn ring_text(
        &self,
        desired: &Desired,
        tuple: &Tuple,
        front: &Front,
        why: &mut Vec<String>,
    ) -> Result<Option<u32>, DataplaneError> {
        let slots = self.kernel.ring(front.service)?;
        if slots.is_empty() {
            why.push("its ring is empty: no task can be chosen".to_owned());
            return Ok(None);
        }
        if front.affinity != 0 {
            why.push(format!(
                "a client stays with its task for {} s: its address alone chooses",
                front.affinity
            ));
            return Ok(None);
        }
        let hash = ring_hash(
            desired.ring_seed,
            &tuple.src.ip().into(),
            Be16::new(tuple.src.port()),
            &tuple.dst.ip().into(),
            Be16::new(tuple.dst.port()),
            tuple.proto,
            0,
        );
        let slot = ring_slot(hash, slots.len() as u32);
        let backend = slots.get(slot as usize).copied().unwrap_or(0);
        why.push(format!(
            "slot {slot} of {} in its ring names {}",
            slots.len(),
            self.backend_text(desired, backend)
        ));
        Ok(Some(backend).filter(|backend| *backend != 0))
    }

    pub(super) fn task_text(&self, desired: &Desired, backend: u32) -> String {
        let endpoint = desired.endpoints.get(&BackendId(backend));
        let name = endpoint.map_or("a task without network", |task| task.name.as_str());
        match (endpoint, backend) {
            (None, 1..) => format!("backend {backend}, a task that the cluster has forgotten"),
            (Some(_), _) => format!("{name} (backend {backend})"),
            (None, 0) => name.to_owned(),
        }
    }

    pub(super) fn backend_text(&self, desired: &Desired, backend: u32) -> String {
        let endpoint = desired.endpoints.get(&BackendId(backend));
        let text = self.task_text(desired, backend);
        endpoint.map_or_else(
            || text.clone(),
            |task| {
                let leaving = if task.draining { ", leaving" } else { "" };
                let node = self.node_text(desired, task.node);
                format!("{text} on {node}{leaving}")
            },
        )
    }

    pub(super) fn node_text(&self, desired: &Desired, index: u32) -> String {
        let Some(node) = desired.nodes.get(&index) else {
            return format!("node {index}, which is not known");
        };
        let own = if index == desired.node {
            ", this node"
        } else {
            ""
        };
        let dead = match (self.verdicts.dead.contains(&index), node.missed) {
            (true, _) if self.closed().any(|closed| closed == index) => {
                ", to which the tunnel is closed"
            }
            (true, _) => ", which does not answer",
            (false, true) => ", whose agent managers have lost",
            (false, false) => "",
        };
        format!("{} ({}{own}){dead}", node.name, node.addr)
    }

    pub(super) fn link_text(&self, index: u32) -> String {
        let link = self.surroundings.links.get(&index);
        link.map_or_else(|| format!("link {index}"), |link| link.name.clone())
    }
}
