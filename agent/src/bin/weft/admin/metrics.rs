//! Figures of this node in the text form that Prometheus reads.

use std::fmt::Write as _;

use weft_agent::Glance;
use weft_dataplane::{DropCount, FlowPair, Status};
use weft_docker::LocalState;

/// What the figures are taken from.
pub(super) struct Taken {
    pub(super) state: LocalState,
    pub(super) engine_answers: bool,
    pub(super) manages: bool,
    pub(super) glance: Glance,
    pub(super) plane: Status,
    pub(super) drops: Vec<DropCount>,
    pub(super) pairs: Vec<FlowPair>,
}

/// One line for each figure, under the line that says what kind it is.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                format!("{key}=\"{}\"", value.replace('\n', "\\n"))
            })
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            some => format!("{{{}}}", some.join(",")),
        };
        let _infallible = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }
}

/// The whole page.
pub(super) fn page(taken: &Taken) -> String {
    let mut page = Page(String::new());
    let glance = &taken.glance;
    let state = taken.state.as_str();
    page.head(
        "weft_swarm_state",
        "gauge",
        "Membership of this node; 1 for the state at hand.",
    );
    page.line("weft_swarm_state", &[("state", state)], 1);
    page.one(
        "weft_manager",
        "gauge",
        "Whether a manager runs here.",
        u8::from(taken.manages),
    );
    page.one(
        "weft_engine_up",
        "gauge",
        "Whether the container engine below answers.",
        u8::from(taken.engine_answers),
    );
    page.one(
        "weft_session_up",
        "gauge",
        "Whether a manager has welcomed this node and the connection stands.",
        u8::from(glance.is_connected),
    );
    page.head(
        "weft_network_revision",
        "gauge",
        "Network revision that this node was told, and that its kernel holds.",
    );
    let revision = [
        ("told", glance.net.revision),
        ("kernel", glance.applied_revision),
    ];
    for (place, revision) in revision {
        page.line("weft_network_revision", &[("place", place)], revision);
    }
    page.one(
        "weft_tasks",
        "gauge",
        "Tasks with a container in its network.",
        glance.containers.len(),
    );
    page.one(
        "weft_sandboxes",
        "gauge",
        "Sandboxes of this node.",
        taken.plane.sandboxes,
    );
    page.one(
        "weft_flows",
        "gauge",
        "Flows that tasks of this node have accepted.",
        taken.plane.flows,
    );
    page.one(
        "weft_container_mtu_bytes",
        "gauge",
        "MTU of containers.",
        taken.plane.mtu_bytes,
    );
    page.one(
        "weft_underlay_faults",
        "gauge",
        "Faults of the underlay; weft status names them.",
        taken.plane.faults.len(),
    );
    let repairs = taken.plane.repairs;
    page.head(
        "weft_repairs_total",
        "counter",
        "What was mended in the kernel because something else had changed it.",
    );
    let kinds = [
        ("links", repairs.links),
        ("entries", repairs.entries),
        ("programs", repairs.programs),
        ("firewall", repairs.firewall),
    ];
    for (kind, count) in kinds {
        page.line("weft_repairs_total", &[("kind", kind)], count);
    }
    page.head(
        "weft_dropped_packets_total",
        "counter",
        "Packets dropped, by program and reason.",
    );
    for drop in &taken.drops {
        let labels = [("program", drop.program), ("reason", drop.reason)];
        page.line("weft_dropped_packets_total", &labels, drop.packets);
    }
    for (name, help) in [
        (
            "weft_pair_flows",
            "Live flows from a client service to a service.",
        ),
        (
            "weft_pair_bytes",
            "Bytes of live flows from a client service to a service, both ways.",
        ),
    ] {
        page.head(name, "gauge", help);
        for pair in &taken.pairs {
            let client = pair.client.as_deref().unwrap_or_default();
            let service = pair.service.as_deref().unwrap_or_default();
            let labels = [("client", client), ("service", service)];
            if name.ends_with("flows") {
                page.line(name, &labels, pair.flows);
            } else {
                page.line(name, &labels, pair.bytes);
            }
        }
    }
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_its_kind_and_labels_are_escaped() {
        let mut glance = Glance {
            applied_revision: 7,
            ..Glance::default()
        };
        std::sync::Arc::make_mut(&mut glance.net).revision = 9;
        let text = page(&Taken {
            state: LocalState::Active,
            engine_answers: false,
            manages: true,
            glance,
            plane: Status::default(),
            drops: vec![DropCount {
                reason: "say \"no\"",
                program: "task_in",
                packets: 3,
                bytes: 180,
                sample: None,
            }],
            pairs: vec![],
        });
        for line in [
            "weft_swarm_state{state=\"active\"} 1",
            "weft_engine_up 0",
            "weft_network_revision{place=\"told\"} 9",
            "weft_network_revision{place=\"kernel\"} 7",
            "weft_dropped_packets_total{program=\"task_in\",reason=\"say \\\"no\\\"\"} 3",
        ] {
            assert!(
                text.lines().any(|held| held == line),
                "{line} is not in\n{text}"
            );
        }
        for name in text.lines().filter(|line| !line.starts_with('#')) {
            let name = name.split(['{', ' ']).next().expect("a name");
            assert!(
                text.contains(&format!("# TYPE {name} ")),
                "{name} has no kind"
            );
        }
    }
}
