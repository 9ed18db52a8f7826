//! Transactions: whole or not at all.

use weft_types::{
    NetworkId, NodeId, ServiceId, TaskId, Timestamp, Version,
    network::IpamOptions,
    task::{Task, TaskSpec},
};

use super::{ApplyError, Change, Draft, Key, REST, RestoreError, Store, Transaction};
use crate::fixture;

fn apply(store: &mut Store, now: i64, changes: Vec<Change>) -> Result<(), ApplyError> {
    let transaction = Transaction {
        now: Timestamp(now),
        changes,
    };
    store.apply(store.index() + 1, &transaction).map(drop)
}

#[test]
fn a_write_replaces_only_the_version_its_writer_saw() {
    let mut store = Store::new();
    let service = fixture::service(1, "web", 1);
    apply(&mut store, 5, vec![Change::put(service.clone())]).unwrap();
    let stored = store.view().service(service.id).unwrap().as_ref().clone();
    assert_eq!(stored.meta.version, Version { index: 1 });
    assert_eq!(stored.meta.created_at, Timestamp(5));
    let error = apply(&mut store, 6, vec![Change::put(service.clone())]).unwrap_err();
    assert_eq!(error.to_string(), "update out of sequence");
    assert!(error.is_race());
    apply(&mut store, 7, vec![Change::put(stored.clone())]).unwrap();
    let again = store.view().service(service.id).unwrap().meta;
    assert_eq!(
        (again.version.index, again.created_at, again.updated_at),
        (3, Timestamp(5), Timestamp(7))
    );
    let late = Change::Delete {
        key: Key::Service(service.id),
        version: stored.meta.version,
    };
    assert!(apply(&mut store, 8, vec![late]).is_err());
}

#[test]
fn a_transaction_with_one_bad_change_does_nothing() {
    let mut store = Store::new();
    apply(
        &mut store,
        1,
        vec![Change::put(fixture::service(1, "web", 1))],
    )
    .unwrap();
    let changes = vec![
        Change::put(fixture::network(9, "back")),
        Change::put(fixture::service(2, "WEB", 1)),
    ];
    let error = apply(&mut store, 2, changes).unwrap_err();
    let taken = ApplyError::NameTaken {
        name: "WEB".into(),
        by: Key::Service(ServiceId::numbered(1)),
    };
    assert_eq!(error, taken);
    assert!(!error.is_race());
    assert!(store.view().network(NetworkId::numbered(9)).is_none());
    assert!(store.view().network_named("back").is_none());
}

#[test]
fn names_change_hands_within_one_transaction() {
    let mut store = Store::new();
    apply(
        &mut store,
        1,
        vec![Change::put(fixture::service(1, "web", 1))],
    )
    .unwrap();
    let old = store
        .view()
        .get(Key::Service(ServiceId::numbered(1)))
        .unwrap();
    // The taker stands before the giver: the order has no meaning.
    let changes = vec![
        Change::put(fixture::service(2, "web", 1)),
        Change::delete(&old),
    ];
    apply(&mut store, 2, changes).unwrap();
    assert_eq!(
        store.view().service_named("web").unwrap().id,
        ServiceId::numbered(2)
    );
}

#[test]
fn a_vni_has_one_owner() {
    let mut store = Store::new();
    let network = |number, name: &str| {
        let mut network = fixture::network(number, name);
        network.vni = Some(4097);
        network.ipam = Some(IpamOptions::default());
        network
    };
    apply(&mut store, 1, vec![Change::put(network(1, "one"))]).unwrap();
    let error = apply(&mut store, 2, vec![Change::put(network(2, "two"))]).unwrap_err();
    assert!(error.to_string().contains("VNI 4097"), "{error}");
}

#[test]
fn a_freed_address_rests_and_a_snapshot_remembers_it() {
    let mut store = Store::new();
    let net = NetworkId::numbered(1);
    let mut service = fixture::service(1, "web", 1);
    service.endpoint.virtual_ips = vec![weft_types::service::VirtualIp {
        network_id: net,
        addr: "10.0.1.2/24".parse().unwrap(),
    }];
    apply(
        &mut store,
        1,
        vec![
            Change::put(fixture::network(1, "back")),
            Change::put(service),
        ],
    )
    .unwrap();
    let address = "10.0.1.2".parse().unwrap();
    assert!(store.view().ledger().holder(net, address).is_some());
    let object = store
        .view()
        .get(Key::Service(ServiceId::numbered(1)))
        .unwrap();
    apply(&mut store, 1_000, vec![Change::delete(&object)]).unwrap();
    let mut store = Store::restore(&store.snapshot().unwrap()).unwrap();
    let view = store.view();
    assert_eq!(view.ledger().holder(net, address), None);
    assert_eq!(
        view.ledger().resting_since(net, address),
        Some(Timestamp(1_000))
    );
    assert_eq!(view.ledger().last_address(net, false), Some(address));
    let rested = Timestamp(1_000).after(REST).0;
    apply(&mut store, rested, vec![Change::put(fixture::node(1))]).unwrap();
    assert_eq!(store.view().ledger().resting_since(net, address), None);
}

#[test]
fn a_view_never_changes_under_its_reader() {
    let mut store = Store::new();
    apply(
        &mut store,
        1,
        vec![Change::put(fixture::service(1, "web", 1))],
    )
    .unwrap();
    let before = store.view();
    let object = before.get(Key::Service(ServiceId::numbered(1))).unwrap();
    apply(&mut store, 2, vec![Change::delete(&object)]).unwrap();
    assert!(before.service_named("web").is_some());
    assert!(store.view().service_named("web").is_none());
}

#[test]
fn a_draft_that_comes_back_to_where_it_was_changes_nothing() {
    let mut store = Store::new();
    apply(
        &mut store,
        1,
        vec![Change::put(fixture::service(1, "web", 1))],
    )
    .unwrap();
    let mut draft = Draft::new(&store.view(), Timestamp(2));
    let id = ServiceId::numbered(1);
    draft.edit_service(id, |service| service.allocation_error = "no".into());
    draft.edit_service(id, |service| service.allocation_error.clear());
    draft.put(fixture::service(2, "db", 1));
    draft.delete(Key::Service(ServiceId::numbered(2)));
    assert_eq!(draft.changes(), []);
}

#[test]
fn other_bytes_are_no_snapshot() {
    assert!(matches!(
        Store::restore(b"hello"),
        Err(RestoreError::Decode(_))
    ));
    let mut store = Store::new();
    apply(
        &mut store,
        1,
        vec![Change::put(fixture::service(1, "web", 1))],
    )
    .unwrap();
    let bytes = store.snapshot().unwrap();
    assert!(Store::restore(&bytes[..bytes.len() - 1]).is_err());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x55;
        // Never a panic; whether it is noticed is the seal's business (`raft::key`).
        let _ = Store::restore(&flipped);
    }
}

#[test]
fn the_tasks_of_a_service_hold_its_spec_once() {
    let mut store = Store::new();
    let service = fixture::service(1, "web", 3);
    apply(&mut store, 1, vec![Change::put(service.clone())]).unwrap();
    let task = |number: u64, image: &str| {
        let text = format!(
            r#"{{"ID":"{}","ServiceID":"{}","Slot":{number}}}"#,
            TaskId::numbered(u128::from(number)),
            service.id
        );
        let mut task: Task = serde_json::from_str(&text).unwrap();
        // As it comes out of the log: equal, and each its own.
        task.spec = TaskSpec {
            runtime: Some(image.to_owned()),
            ..TaskSpec::default()
        }
        .into();
        Change::put(task)
    };
    let tasks = vec![
        task(1, "old"),
        task(2, "old"),
        task(3, "new"),
        task(4, "old"),
    ];
    apply(&mut store, 2, tasks).unwrap();
    let once = |store: &Store| {
        let view = store.view();
        let tasks: Vec<_> = view.tasks_of(service.id).cloned().collect();
        assert!(tasks[0].spec.is_same(&tasks[1].spec));
        assert!(!tasks[1].spec.is_same(&tasks[2].spec));
        assert_ne!(tasks[1].spec, tasks[2].spec);
        tasks
    };
    // A new version of a task keeps what the last one had.
    let mut moved = Task::clone(&once(&store)[2]);
    moved.spec = TaskSpec::clone(&moved.spec).into();
    moved.node_id = Some(NodeId::numbered(1));
    let old = once(&store)[2].spec.clone();
    apply(&mut store, 3, vec![Change::put(moved)]).unwrap();
    assert!(once(&store)[2].spec.is_same(&old));
    let again = Store::restore(&store.snapshot().unwrap()).unwrap();
    once(&again);
}
