//! Managers die and come back, again and again, while somebody writes: what was acknowledged is
//! never lost, and all managers agree in the end.

mod cluster;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::*;
use weft_control::runtime::Manager;
use weft_proto::{ControlApi, ControlReply, ControlRequest};
use weft_types::secret::{Base64, ConfigSpec};

/// Deaths, one after the other, of each manager in turn.
const DEATHS: usize = 6;

type Seats = Arc<Mutex<Vec<Option<Arc<Manager>>>>>;

fn config(name: &str) -> ControlRequest {
    ControlRequest::CreateConfig(Box::new(ConfigSpec {
        name: name.to_owned(),
        data: Base64(b"text".to_vec()),
        ..ConfigSpec::default()
    }))
}

async fn configs(manager: &Manager) -> Option<BTreeSet<String>> {
    match manager.call(ControlRequest::ListConfigs).await {
        Ok(ControlReply::Configs(configs)) => {
            Some(configs.into_iter().map(|config| config.spec.name).collect())
        }
        _ => None,
    }
}

/// Writes through one manager after the other until told to stop; what was acknowledged.
async fn write(seats: Seats, stop: Arc<AtomicBool>, written: Arc<AtomicUsize>) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let manager = {
            let seats = seats.lock().expect("seats");
            seats[number % seats.len()].clone()
        };
        let Some(manager) = manager else {
            tokio::task::yield_now().await;
            continue;
        };
        let name = format!("c{number}");
        // A refusal says nothing: the write may have been done.
        if let Ok(ControlReply::Created(_)) = manager.call(config(&name)).await {
            acknowledged.insert(name);
            written.fetch_add(1, Ordering::Relaxed);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_while_managers_die_in_turn() {
    log_to_stderr();
    let hosts = [Host::new(), Host::new(), Host::new()];
    let first = hosts[0].init().await;
    let token = cluster_of(&first).await.join_tokens.manager;
    let second = hosts[1].join_manager(hosts[0].addr, &token).await;
    let third = hosts[2].join_manager(hosts[0].addr, &token).await;
    let seats: Seats = Arc::new(Mutex::new(vec![Some(first), Some(second), Some(third)]));
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn(write(
        Arc::clone(&seats),
        Arc::clone(&stop),
        Arc::clone(&written),
    ));

    for death in 0..DEATHS {
        let victim = death % hosts.len();
        let dead = seats.lock().expect("seats")[victim].take();
        dead.expect("it lives").shutdown().await;
        // The other two go on without it.
        let before = written.load(Ordering::Relaxed);
        eventually("writes without the dead manager", || async {
            (written.load(Ordering::Relaxed) > before + 3).then_some(())
        })
        .await;
        let back = hosts[victim].restart().await;
        // The next one dies only when this one is of use again: two must always be left.
        eventually("the manager that was dead to know its leader", || async {
            back.standing().await.leader.map(|_| ())
        })
        .await;
        seats.lock().expect("seats")[victim] = Some(back);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.await.expect("the writer");
    assert!(acknowledged.len() > DEATHS, "hardly anything was written");

    let managers: Vec<Arc<Manager>> = {
        let mut seats = seats.lock().expect("seats");
        seats.iter_mut().filter_map(Option::take).collect()
    };
    for manager in &managers {
        let known = eventually("a manager to answer", || configs(manager)).await;
        let lost: Vec<_> = acknowledged.difference(&known).collect();
        assert!(lost.is_empty(), "acknowledged writes are lost: {lost:?}");
    }
    for manager in managers {
        manager.shutdown().await;
    }
}
