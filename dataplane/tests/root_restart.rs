//! The data plane without its process, after it came back, when the kernel drifted, and when it is
//! gone for good. Needs root.

mod lan;

use std::collections::BTreeSet;

use anyhow::Result;
use lan::{CLIENT4, Lan, host4, run};
use weft_types::TaskId;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_outlive_the_process_and_its_return() -> Result<()> {
    let mut lan = Lan::published(2, 2).await?;
    let (mut stream, _) = lan.within("c", || lan::greeted((host4(1), 8000).into()))?;
    lan::echo(&mut stream, b"before")?;

    lan.hosts.clear();
    lan::echo(&mut stream, b"nobody home")?;
    assert_eq!(lan.ask_tcp("c", (host4(1), 8000))?, format!("t1 {CLIENT4}"));

    for host in [1, 2] {
        lan.start(host).await?;
        lan::echo(&mut stream, b"started")?;
    }
    // The task is known before anybody names it again.
    lan.apply().await?;
    lan::echo(&mut stream, b"applied")?;
    assert_eq!(lan.ask_tcp("c", (host4(1), 8000))?, format!("t1 {CLIENT4}"));
    lan.create_sandbox(1, 2).await?;
    lan.hosts[&2]
        .retain_sandboxes(BTreeSet::from([TaskId::numbered(1)]))
        .await?;
    lan.hosts[&1].retain_sandboxes(BTreeSet::new()).await?;
    lan.apply().await?;
    lan::echo(&mut stream, b"as ever")?;
    assert_eq!(lan.hosts[&2].status().await.repairs.total(), 0);
    assert_eq!(lan.hosts[&2].status().await.sandboxes, 1);
    Ok(())
}

/// Managers miss a node's agent within seconds; its host goes on as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_agent_is_down_is_no_dead_host() -> Result<()> {
    for node in [1, 2] {
        let mut lan = Lan::published(3, node).await?;
        let other = 3 - node;
        let (mut stream, _) = lan.within("c", move || lan::greeted((host4(other), 8000).into()))?;
        lan::echo(&mut stream, b"before")?;
        drop(lan.hosts.remove(&2));
        let lost = lan.state.nodes.values_mut().find(|known| known.index == 2);
        lost.expect("n2").alive = false;
        lan.apply().await?;
        lan::echo(&mut stream, b"after")?;
        let says = format!("t1 {CLIENT4}");
        if node == 1 {
            assert_eq!(
                lan.ask_tcp("c", (host4(2), 8000))?,
                says,
                "by the lost node"
            );
        } else {
            let refused = lan
                .ask_tcp("c", (host4(3), 8000))
                .expect_err("no task is left");
            assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_drifts_is_mended_and_counted() -> Result<()> {
    let mut lan = Lan::published(2, 2).await?;
    lan.ask_tcp("c", (host4(1), 8000))?;
    let host = lan.namespace("n1");
    run(&format!(
        "ip -n {host} link del weft0 && ip netns exec {host} nft delete table inet weft"
    ))?;
    run(&format!(
        "ip -n {} route del 10.0.0.5/32",
        lan.namespace("n2")
    ))?;
    lan.apply().await?;
    assert_eq!(lan.ask_tcp("c", (host4(1), 8000))?, format!("t1 {CLIENT4}"));
    assert!(run(&format!("ip -n {} route", lan.namespace("n2")))?.contains("10.0.0.5"));
    let repairs = lan.hosts[&1].status().await.repairs;
    assert_eq!((repairs.links, repairs.firewall), (1, 1), "{repairs:?}");
    assert_eq!(lan.hosts[&2].status().await.repairs.links, 1);
    lan.apply().await?;
    assert_eq!(lan.hosts[&1].status().await.repairs, repairs, "mended once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_sandbox_takes_its_interfaces_and_rows_with_it() -> Result<()> {
    let mut lan = Lan::published(2, 2).await?;
    lan.hosts[&2].remove_sandbox(TaskId::numbered(1)).await?;
    let links = run(&format!("ip -n {} -o link", lan.namespace("n2")))?;
    assert!(!links.contains("wv"), "{links}");
    lan.state.endpoints.clear();
    lan.apply().await?;
    let error = lan
        .ask_tcp("c", (host4(1), 8000))
        .expect_err("nobody is left");
    assert!(
        format!("{error:#}").contains("refused"),
        "silence instead of a reset: {error:#}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uninstall_leaves_nothing() -> Result<()> {
    let mut lan = Lan::new(2)?;
    let name = lan.namespace("n2");
    let look = || -> Result<String> {
        run(&format!(
            "ip -n {name} -o link | sed 's/state .*//' && ip -n {name} route && ip -n {name} -6 route && \
             ip -n {name} neigh show nud permanent && ip netns exec {name} nft list tables && \
             nsenter --net=/run/netns/{name} sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding \
             net.ipv6.conf.eth0.accept_ra net.ipv4.ip_local_reserved_ports"
        ))
    };
    let before = look()?;
    lan.start_all().await?;
    lan.publish(2).await?;
    lan.add_task(2, None, 2, &[]).await?;
    lan.apply().await?;
    let during = look()?;
    assert_ne!(during, before);
    // The kernel chooses no published port for a process of the host.
    assert!(during.contains("reserved_ports = 8000"), "{during}");
    // A second life knows the first one's beginning.
    drop(lan.hosts.remove(&2));
    lan.start(2).await?;
    lan.apply().await?;
    let host = lan.hosts.remove(&2).expect("it was started");
    host.uninstall().await?;
    assert_eq!(look()?, before);
    assert_eq!(std::fs::read_dir(lan.pin_dir(2))?.count(), 0);
    Ok(())
}

/// An upgrade that changes the layout of tables: what remembers connections is taken over, the rest is
/// made anew and filled before any packet sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_outlive_a_change_of_layout() -> Result<()> {
    let mut lan = Lan::published(2, 2).await?;
    let (mut stream, _) = lan.within("c", || lan::greeted((host4(1), 8000).into()))?;
    lan::echo(&mut stream, b"before")?;

    lan.hosts.clear();
    for host in [1, 2] {
        // As the first layout left it.
        let dir = lan.pin_dir(host).display().to_string();
        run(&format!("mv {dir}/maps-* {dir}/maps-1-00000000"))?;
        lan.start(host).await?;
        lan::echo(&mut stream, b"started")?;
        // Nothing was applied: the older programs work on, for new connections too.
        assert_eq!(
            lan.ask_tcp("c", (host4(host), 8000))?,
            format!("t1 {CLIENT4}")
        );
    }
    lan.apply().await?;
    lan::echo(&mut stream, b"applied")?;
    for host in [1, 2] {
        assert_eq!(
            lan.ask_tcp("c", (host4(host), 8000))?,
            format!("t1 {CLIENT4}")
        );
        let dir = lan.pin_dir(host).display().to_string();
        let left = run(&format!("ls {dir}"))?;
        assert!(
            !left.contains("maps-1-00000000"),
            "old tables are left: {left}"
        );
    }
    let flows = lan.hosts[&2].flow_rows().await?;
    assert!(
        flows
            .iter()
            .any(|flow| Ok(flow.client) == stream.local_addr().map_err(drop)),
        "the connection's flow is not among {flows:?}"
    );
    Ok(())
}
