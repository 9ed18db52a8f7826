//! A VNI, a published port and a backend number have one owner.

use std::collections::BTreeSet;

use weft_types::service::PublishMode;

use super::Broken;
use crate::store::View;

const SENTENCE: &str = "a VNI, a published port and a backend number have one owner";

pub(super) fn check(view: &View) -> Result<(), Broken> {
    let twice = |what: String| Err(Broken::new(SENTENCE, format!("{what} has two")));
    let mut vnis = BTreeSet::new();
    for vni in view.networks().filter_map(|network| network.vni) {
        if !vnis.insert(vni) {
            return twice(format!("VNI {vni}"));
        }
    }
    let mut ports = BTreeSet::new();
    for service in view.services() {
        for port in &service.endpoint.ports {
            let meshed = port.published_port != 0 && port.publish_mode == PublishMode::Ingress;
            if meshed && !ports.insert((port.protocol, port.published_port)) {
                return twice(format!("port {}", port.published_port));
            }
        }
    }
    let mut backends = BTreeSet::new();
    for task in view.tasks() {
        for attachment in &task.networks_attachments {
            if !backends.insert(attachment.backend) {
                return twice(format!("{:?}", attachment.backend));
            }
        }
    }
    Ok(())
}
