//! What `explain` and `flows` say of a live data plane. Needs root.

mod lan;

use std::{io::Read as _, net::TcpStream};

use anyhow::{Context as _, Result};
use lan::{CLIENT4, CLIENT6, Lan, eventually, host4, host6};
use weft_dataplane::{FlowState, Question, Step, flow_pairs};
use weft_types::{BackendId, NetworkId, service::Protocol};

/// A service published at 8000 with one task, on n2, and a network with a task on each host.
async fn two_hosts() -> Result<Lan> {
    let mut lan = Lan::published(2, 2).await?;
    let red = NetworkId::numbered(2);
    lan.add_network(red, 4097, &["10.0.1.0/24"], false);
    lan.add_task(2, None, 1, &[(red, &["10.0.1.2/24"])]).await?;
    lan.add_task(3, None, 2, &[(red, &["10.0.1.3/24"])]).await?;
    lan.apply().await?;
    Ok(lan)
}

async fn explain(lan: &Lan, host: u32, client: &str, server: &str) -> Result<Vec<Step>> {
    let question = Question {
        client: client.parse()?,
        server: server.parse()?,
        protocol: Protocol::Tcp,
    };
    Ok(lan.hosts[&host].explain(question).await?)
}

/// Drops so far of packets that somebody sent to host 1; its own neighbour discovery counts too, elsewhere.
async fn judged(lan: &Lan) -> Result<u64> {
    let drops = lan.hosts[&1].drops().await?;
    let counted = drops.iter().filter(|drop| drop.program == "uplink_in");
    Ok(counted.map(|drop| drop.packets).sum())
}

fn says(step: &Step, words: &str) {
    assert!(
        step.why.iter().any(|why| why.contains(words)),
        "nothing says {words:?}: {step:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_of_a_packet_is_told_on_each_host_it_passes() -> Result<()> {
    let lan = two_hosts().await?;
    for (client, server) in [
        (format!("{CLIENT4}:4711"), format!("{}:8000", host4(1))),
        (format!("[{CLIENT6}]:4711"), format!("[{}]:8000", host6(1))),
    ] {
        let before = judged(&lan).await?;
        let steps = explain(&lan, 1, &client, &server).await?;
        let [step] = steps.as_slice() else {
            anyhow::bail!("{steps:#?}")
        };
        assert_eq!(
            (step.program.as_str(), step.place.as_str()),
            ("uplink_in", "eth0")
        );
        assert_eq!(step.decision, "tunnelled to the chosen backend's node");
        assert_eq!(
            step.packet,
            format!("{client} -> {server}/tcp"),
            "not translated yet"
        );
        says(
            step,
            "port 8000/tcp is published by service svc1, its tasks listen at 80",
        );
        says(step, "of 256 in its ring names t1 (backend 10) on n2");
        says(step, "goes on at n2 (192.0.2.12), ask there");

        let steps = explain(&lan, 2, &client, &server).await?;
        assert_eq!(steps[0].program, "overlay_in");
        assert_eq!(
            steps[0].decision,
            "translated and delivered to a local task"
        );
        let task = if client.starts_with('[') {
            "[fd00:1::5]:80"
        } else {
            "10.0.0.5:80"
        };
        assert_eq!(steps[0].packet, format!("{client} -> {task}/tcp"));
        says(&steps[0], "the client comes in by n1");
        says(&steps[0], "delivered to t1 (backend 10)");
        // Nothing was changed, nothing was counted.
        assert_eq!(judged(&lan).await?, before);
        assert!(lan.hosts[&2].flow_rows().await?.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_with_their_reason() -> Result<()> {
    let mut lan = two_hosts().await?;
    let client = format!("{CLIENT4}:4711");
    let steps = explain(&lan, 1, &client, &format!("{}:81", host4(1))).await?;
    assert_eq!(steps[0].decision, "not ours: left to the host's stack");
    says(&steps[0], "nothing is published at port 81/tcp");
    let steps = explain(&lan, 1, "10.0.1.77:1", &format!("{}:8000", host4(1))).await?;
    assert!(steps[0].dropped);
    assert_eq!(
        steps[0].decision,
        "source inside an overlay network, on an uplink"
    );
    // From a task: on its network, and to one it is not on.
    let steps = explain(&lan, 1, "10.0.1.2:4711", "10.0.1.3:80").await?;
    assert_eq!(steps[0].program, "task_in");
    assert_eq!(steps[0].decision, "tunnelled to the task's node");
    says(&steps[0], "goes on at n2");
    let steps = explain(&lan, 1, "10.0.1.2:4711", "10.0.0.5:80").await?;
    assert!(steps[0].dropped, "{steps:#?}");
    // From a process of the host.
    let steps = explain(&lan, 1, "127.0.0.1:4711", "127.0.0.1:8000").await?;
    assert_eq!(steps[0].decision, "socket led to a backend");
    says(&steps[0], "t1 (backend 10) on n2");
    let steps = explain(&lan, 1, &format!("{}:1", host4(1)), "10.0.1.3:80").await?;
    assert_eq!(steps[0].program, "host_out");
    assert_eq!(steps[0].decision, "tunnelled to the task's node");
    let error = explain(&lan, 1, &client, "[2001:db8::11]:8000").await;
    assert!(format!("{error:#?}").contains("different families"));
    // And a service nobody serves.
    lan.state.endpoints.remove(&BackendId(10));
    lan.apply().await?;
    let steps = explain(&lan, 1, &client, &format!("{}:8000", host4(1))).await?;
    assert_eq!(steps[0].decision, "no backend: refused at once");
    says(&steps[0], "its ring is empty");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_connection_is_listed_and_explained_both_ways() -> Result<()> {
    let lan = two_hosts().await?;
    let mut stream = lan.within("c", || Ok(TcpStream::connect((host4(1), 8000))?))?;
    let client = stream.local_addr()?;
    stream.read_exact(&mut [0; 4])?;
    let host = lan.hosts[&2].clone();
    let mut rows = Vec::new();
    eventually("the flow to be open", async || {
        rows = host.flow_rows().await?;
        Ok(rows.iter().any(|row| row.state == FlowState::Open))
    })
    .await?;
    let row = rows.first().context("one flow")?;
    assert_eq!((row.client, row.protocol.as_str()), (client, "tcp"));
    assert_eq!(row.service.as_deref(), Some("svc1"));
    assert_eq!(row.task_name.as_deref(), Some("t1"));
    assert_eq!(row.asked, (host4(1), 8000).into());
    assert_eq!(row.ingress, Some(host4(1).into()));
    assert!(row.to_task.0 >= 2 && row.to_client.0 >= 2, "{row:?}");
    let pairs = flow_pairs(&rows);
    assert_eq!((pairs.len(), pairs[0].flows), (1, 1));

    let server = format!("{}:8000", host4(1));
    let steps = explain(&lan, 2, &client.to_string(), &server).await?;
    assert_eq!(steps.len(), 2, "{steps:#?}");
    says(&steps[0], "the flow is known, of backend 10");
    assert_eq!(
        steps[1].decision,
        "answer tunnelled to the node the client came in by"
    );
    assert_eq!(steps[1].packet, format!("{server} -> {client}/tcp"));
    says(&steps[1], "through n1 (192.0.2.11)");
    drop(stream);
    eventually("the flow to be closed or forgotten", async || {
        let rows = host.flow_rows().await?;
        Ok(rows.iter().all(|row| row.state >= FlowState::Closing))
    })
    .await
}
