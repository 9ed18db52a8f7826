//! What must hold after every commit.

use std::collections::{BTreeMap, BTreeSet};

use weft_types::TaskState;

use crate::store::{Store, View};

pub(super) fn check(before: &View, after: &View) {
    addresses_have_one_owner(after);
    vnis_and_ports_have_one_owner(after);
    tasks_stay_and_states_rise(before, after);
    slots_hold_one_task_meant_to_run(before, after);
    no_task_waits_in_silence(after);
    snapshots_say_everything(after);
}

fn addresses_have_one_owner(view: &View) {
    let mut owners = BTreeMap::new();
    for task in view.tasks().filter(|task| !task.status.state.is_terminal()) {
        for attachment in &task.networks_attachments {
            for address in &attachment.addresses {
                let place = (attachment.network_id, address.ip());
                let other = owners.insert(place, task.name.clone());
                assert_eq!(other, None, "{address} is {}'s too", task.name);
            }
        }
    }
    for service in view.services() {
        for vip in &service.endpoint.virtual_ips {
            let place = (vip.network_id, vip.addr.ip());
            let other = owners.insert(place, service.spec.name.clone());
            assert_eq!(other, None, "{} is {}'s too", vip.addr, service.spec.name);
        }
    }
    let mut backends = BTreeSet::new();
    for task in view.tasks() {
        for attachment in &task.networks_attachments {
            assert!(
                backends.insert(attachment.backend),
                "{:?} twice",
                attachment.backend
            );
        }
    }
}

fn vnis_and_ports_have_one_owner(view: &View) {
    let mut vnis = BTreeSet::new();
    for vni in view.networks().filter_map(|network| network.vni) {
        assert!(vnis.insert(vni), "VNI {vni} twice");
    }
    let mut ports = BTreeSet::new();
    for service in view.services() {
        for port in &service.endpoint.ports {
            if port.published_port != 0
                && port.publish_mode == weft_types::service::PublishMode::Ingress
            {
                let port = (port.protocol, port.published_port);
                assert!(ports.insert(port), "port {port:?} twice");
            }
        }
    }
}

fn tasks_stay_and_states_rise(before: &View, after: &View) {
    for old in before.tasks() {
        let Some(new) = after.task(old.id) else {
            continue;
        };
        assert!(
            new.status.state >= old.status.state,
            "{} fell back",
            new.name
        );
        assert!(
            new.desired_state >= old.desired_state,
            "{} is wished back",
            new.name
        );
        assert!(
            old.node_id.is_none() || new.node_id == old.node_id,
            "{} moved",
            new.name
        );
    }
}

fn slots_hold_one_task_meant_to_run(before: &View, after: &View) {
    for service in after.services() {
        let config = service.spec.update_config.as_ref();
        if config.is_some_and(|config| config.order == "start-first")
            || service.spec.mode.replicated.is_none()
        {
            continue;
        }
        let old = meant_twice(before, service.id);
        for slot in meant_twice(after, service.id) {
            // An update of the other order may have left such a pair behind.
            let name = &service.spec.name;
            assert!(
                old.contains(&slot),
                "two tasks are now meant to run in {name}.{slot}"
            );
        }
    }
}

fn meant_twice(view: &View, service: weft_types::ServiceId) -> BTreeSet<u64> {
    let meant = |task: &&std::sync::Arc<weft_types::task::Task>| // A move is two tasks for a while, on purpose.
        task.desired_state <= TaskState::Running && task.labels.is_empty();
    let mut seen = BTreeSet::new();
    let tasks = view.tasks_of(service).filter(meant);
    tasks
        .map(|task| task.slot)
        .filter(|slot| !seen.insert(*slot))
        .collect()
}

fn no_task_waits_in_silence(view: &View) {
    // Checked only of tasks that the loops have looked at, which is after one commit.
    for task in view.tasks() {
        let looked_at = task.meta.version.index < view.index();
        let waits =
            task.status.state < TaskState::Assigned && task.desired_state <= TaskState::Running;
        assert!(
            !(looked_at && waits && task.status.err.is_empty()),
            "{} waits and does not say why: {:?}",
            task.name,
            task.status
        );
    }
}

fn snapshots_say_everything(view: &View) {
    // Costly: now and then.
    if !view.index().is_multiple_of(37) {
        return;
    }
    let bytes = view.snapshot().unwrap();
    let restored = Store::restore(&bytes).unwrap().view();
    assert_eq!(restored.index(), view.index());
    assert!(restored.objects().eq(view.objects()));
    assert_eq!(restored.snapshot().unwrap(), bytes);
}
