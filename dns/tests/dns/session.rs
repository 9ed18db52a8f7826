//! The session recorded from a real swarm, question by question.

use weft_dns::{Answer, Zones, resolve::Wanted};

use crate::world::{addresses, ask, ask_back, n1, n2, named, on, recorded, sorted, task};

#[test]
fn the_recorded_session_is_answered_as_docker_does() {
    let zones = Zones::from_netstate(&recorded());
    let asker = on(&[n1()]);
    let container = format!("t_a.1.{}", task(3));
    let rows: Vec<(&str, Answer)> = vec![
        ("t_a", addresses(&["10.0.4.2"])),
        ("tasks.t_a", addresses(&["10.0.4.3", "10.0.4.4"])),
        ("alia", addresses(&["10.0.4.2"])),
        ("tasks.alia", addresses(&["10.0.4.3", "10.0.4.4"])),
        ("t_b", addresses(&["10.0.4.5", "10.0.4.6"])),
        ("tasks.t_b", addresses(&["10.0.4.5", "10.0.4.6"])),
        ("T_A", addresses(&["10.0.4.2"])),
        ("t_a.t_n1", addresses(&["10.0.4.2"])),
        ("tasks.t_a.t_n1", addresses(&["10.0.4.3", "10.0.4.4"])),
        ("t_a.1", Answer::NxDomain),
        (&container, addresses(&["10.0.4.3"])),
        ("aaaaaaaaaa03", addresses(&["10.0.4.3"])),
        ("h-1-vm", addresses(&["10.0.4.3"])),
        ("t_ctr", addresses(&["10.0.4.7"])),
        ("ctral", addresses(&["10.0.4.7"])),
        ("t_ctr.t_n1", addresses(&["10.0.4.7"])),
        ("t_c", Answer::Forward),
        ("t_c.t_n2", Answer::Forward),
    ];
    for (name, expected) in rows {
        assert_eq!(
            sorted(ask(&zones, &asker, name, Wanted::V4)),
            expected,
            "A {name}"
        );
    }
    assert_eq!(
        ask_back(&zones, &asker, "10.0.4.3"),
        named(format!("{container}.t_n1"))
    );
    assert_eq!(
        ask_back(&zones, &asker, "10.0.4.7"),
        named("t_ctr.t_n1".to_owned())
    );
}

#[test]
fn a_name_with_its_network_is_answered_only_to_those_on_it() {
    let zones = Zones::from_netstate(&recorded());
    assert_eq!(
        ask(&zones, &on(&[n2()]), "t_c.t_n2", Wanted::V4),
        addresses(&["10.0.5.2"])
    );
    assert_eq!(
        ask(&zones, &on(&[n1(), n2()]), "t_c.t_n2", Wanted::V4),
        addresses(&["10.0.5.2"])
    );
    assert_eq!(
        ask(&zones, &on(&[n1(), n2()]), "t_c.t_n1", Wanted::V4),
        Answer::NxDomain
    );
    assert_eq!(
        ask(&zones, &on(&[]), "t_c.t_n2", Wanted::V4),
        Answer::Forward
    );
}
