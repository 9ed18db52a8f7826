//! What clients hear of a task that is gone, when they say nothing themselves. Needs root.

mod lan;

use std::{
    io::{ErrorKind, Read as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use lan::{Lan, PATIENCE, eventually, hear, host4, host6, ingress};
use nix::sys::socket::{setsockopt, sockopt};
use weft_types::{TaskId, service::Protocol};

/// Where a process of this very program is to take connections instead of testing.
const SERVE_IN: &str = "WEFT_SERVE_IN";

/// A task's process: the kernel ends its connections when it is killed.
struct Process(Child);

impl Process {
    async fn start(lan: &Lan, name: &str) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", "serves_where_it_is_asked_to"])
            .env(SERVE_IN, lan.netns_path(name))
            .stdout(Stdio::null())
            .spawn()
            .context("start a task's process")?;
        let process = Self(child);
        eventually("the task's process to listen", async || {
            Ok(lan
                .within(name, || Ok(TcpStream::connect("127.0.0.1:80")?))
                .is_ok())
        })
        .await?;
        Ok(process)
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// No test: what [`Process`] starts. Takes connections, says one byte on each and keeps them.
#[test]
fn serves_where_it_is_asked_to() -> Result<()> {
    use std::io::Write as _;
    let Some(netns) = std::env::var_os(SERVE_IN) else {
        return Ok(());
    };
    nix::sched::setns(
        std::fs::File::open(netns)?,
        nix::sched::CloneFlags::CLONE_NEWNET,
    )?;
    let mut held = Vec::new();
    for stream in TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80))?.incoming() {
        let mut stream = stream?;
        stream.write_all(b"!")?;
        held.push(stream);
    }
    Ok(())
}

/// A connection on which its task has spoken, from a client that will say nothing.
fn hold(lan: &Lan, to: SocketAddr) -> Result<TcpStream> {
    lan.within("c", move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    })
    .with_context(|| format!("connect to {to}"))
}

/// Connections by both hosts and families to a service whose one task is on host 2.
async fn held() -> Result<(Lan, Process, Vec<(SocketAddr, TcpStream)>)> {
    let mut lan = Lan::new(2)?;
    lan.start_all().await?;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80)]);
    let addresses: &[&str] = &["10.0.0.5/24", "fd00:1::5/64"];
    lan.add_task(1, Some(web), 2, &[(ingress(), addresses)])
        .await?;
    lan.apply().await?;
    let process = Process::start(&lan, "t1").await?;
    let mut held = Vec::new();
    for host in [1, 2] {
        for to in [
            SocketAddr::from((host4(host), 8000)),
            (host6(host), 8000).into(),
        ] {
            held.push((to, hold(&lan, to)?));
        }
    }
    Ok((lan, process, held))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_tasks_connections_end_though_their_clients_say_nothing() -> Result<()> {
    let (lan, mut process, held) = held().await?;
    process.kill();
    // The interface goes after its task, as when a container has ended.
    lan.hosts[&2].remove_sandbox(TaskId::numbered(1)).await?;
    for (to, mut stream) in held {
        match hear(|| stream.read(&mut [0])) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => anyhow::bail!("through {to}: {other:?}\n{}", lan.report()),
        }
    }
    Ok(())
}

/// Its own stack could not say that it ended: the kernels' keep-alives alone ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vanished_tasks_connections_are_reset_when_their_clients_kernel_asks() -> Result<()> {
    for survivor in [false, true] {
        let (mut lan, _process, held) = held().await?;
        for (_, stream) in &held {
            setsockopt(stream, sockopt::KeepAlive, &true)?;
            setsockopt(stream, sockopt::TcpKeepIdle, &1)?;
            setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
        }
        lan.hosts[&2].remove_sandbox(TaskId::numbered(1)).await?;
        lan.state.endpoints.clear();
        if survivor {
            let web = lan.state.services.keys().next().copied();
            let addresses: &[&str] = &["10.0.0.6/24", "fd00:1::6/64"];
            lan.add_task(2, web, 1, &[(ingress(), addresses)]).await?;
        }
        lan.apply().await?;
        for (to, mut stream) in held {
            let read = hear(|| stream.read(&mut [0]));
            ensure!(
                read.as_ref()
                    .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
                "through {to}, another task serves: {survivor}: {read:?}\n{}",
                lan.report()
            );
        }
    }
    Ok(())
}
