//! What others do, built by hand as they do it.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{
    Way, gauge,
    lan::{Lan, run},
    way,
};

/// Programs that run beside; ended with the value.
#[derive(Default)]
pub(crate) struct Peers {
    children: Vec<Child>,
    sockets: Vec<String>,
    /// Which of them this machine cannot have, and why.
    pub(crate) left_out: Vec<(&'static str, anyhow::Error)>,
}

impl Drop for Peers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl Peers {
    fn spawn(&mut self, lan: &Lan, name: &str, program: &str, arguments: &[&str]) -> Result<()> {
        let child = Command::new("ip")
            .args(["netns", "exec", &lan.namespace(name), program])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        self.children.push(child);
        Ok(())
    }

    /// Whether all of `programs` are installed; otherwise `peer` is left out.
    fn can(&mut self, peer: &'static str, programs: &[&str]) -> bool {
        let missing = programs.iter().find(|program| !has(program));
        if let Some(program) = missing {
            self.left_out
                .push((peer, anyhow::anyhow!("{program} is not installed")));
        }
        missing.is_none()
    }

    /// Every peer that this machine can have.
    pub(crate) fn build(&mut self, lan: &mut Lan) -> Result<Vec<Way>> {
        let mut ways = Vec::new();
        ways.push(veth(lan)?);
        ways.push(forwarding(lan)?);
        ways.extend(bridges(lan)?);
        ways.extend(self.proxies(lan)?);
        ways.extend(self.wireguard(lan)?);
        Ok(ways)
    }

    /// HAProxy in TCP mode, and Docker's own userland proxy, on the first host with a bridge.
    fn proxies(&mut self, lan: &Lan) -> Result<Vec<Way>> {
        let mut ways = Vec::new();
        if self.can("HAProxy", &["haproxy"]) {
            let file = lan.dir.path().with_extension("haproxy");
            let text = "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
                        listen remote\n bind :8003\n server a 10.7.0.2:80\nlisten local\n bind :8004\n server a 10.7.0.1:80\n";
            std::fs::write(&file, text)?;
            let path = file.display().to_string();
            self.spawn(lan, "b1", "haproxy", &["-db", "-f", &path])?;
            self.sockets.push(path);
            ways.push(way(
                lan,
                "HAProxy (TCP), local task",
                "c",
                "192.0.2.41:8004",
            )?);
            ways.push(way(
                lan,
                "HAProxy (TCP), remote task",
                "c",
                "192.0.2.41:8003",
            )?);
        }
        if self.can("Docker's userland proxy", &["docker-proxy"]) {
            let arguments = [
                "-proto",
                "tcp",
                "-host-ip",
                "192.0.2.41",
                "-host-port",
                "8005",
                "-container-ip",
                "10.7.0.1",
                "-container-port",
                "80",
            ];
            // It tells whoever started it, at descriptor 3, that it is ready.
            let line = format!("exec docker-proxy {} 3>/dev/null", arguments.join(" "));
            self.spawn(lan, "b1", "sh", &["-c", &line])?;
            ways.push(way(
                lan,
                "Docker's userland proxy, local task",
                "c",
                "192.0.2.41:8005",
            )?);
        }
        ways.retain(|way| {
            let listens = listening(lan, way);
            let there = listens.is_ok();
            self.left_out
                .extend(listens.err().map(|error| ("a proxy", error)));
            there
        });
        Ok(ways)
    }

    /// wireguard-go between two hosts, host to host: no tunnel for networks inside it.
    fn wireguard(&mut self, lan: &mut Lan) -> Result<Vec<Way>> {
        if !self.can("wireguard-go", &["wireguard-go", "wg"]) {
            return Ok(Vec::new());
        }
        let device = |number: u8| format!("wb{number}-{}", std::process::id());
        let mut public = Vec::new();
        for number in [1, 2] {
            let name = format!("w{number}");
            host(lan, &name, 60 + number)?;
            self.spawn(lan, &name, "wireguard-go", &["-f", &device(number)])?;
            self.sockets
                .push(format!("/var/run/wireguard/{}.sock", device(number)));
            let key = lan.dir.path().with_extension(format!("key{number}"));
            run(&format!("umask 077; wg genkey > {}", key.display()))?;
            public.push(
                run(&format!("wg pubkey < {}", key.display()))?
                    .trim()
                    .to_owned(),
            );
            self.sockets.push(key.display().to_string());
        }
        for number in [1_u8, 2] {
            let (own, other) = (lan.namespace(&format!("w{number}")), 3 - number);
            let device = device(number);
            let key = lan.dir.path().with_extension(format!("key{number}"));
            patiently(&format!(
                "ip netns exec {own} wg set {device} listen-port 51000 private-key {} peer {} allowed-ips 10.6.0.{other}/32 \
                 endpoint 192.0.2.{}:51000",
                key.display(),
                public[usize::from(other) - 1],
                60 + other
            ))?;
            run(&format!(
                "ip -n {own} addr add 10.6.0.{number}/24 dev {device} && ip -n {own} link set {device} mtu 1440 up"
            ))?;
        }
        gauge::serve(&lan.netns_path("w2"), 80)?;
        Ok(vec![way(
            lan,
            "wireguard-go, host to host",
            "w1",
            "10.6.0.2:80",
        )?])
    }
}

pub(crate) fn has(program: &str) -> bool {
    run(&format!("command -v {program}")).is_ok()
}

/// Tries a command until it works, for 30 s.
pub(crate) fn patiently(command: &str) -> Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        match run(command) {
            Ok(_) => return Ok(()),
            Err(error) if std::time::Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
}

/// Waits until something listens.
fn listening(lan: &Lan, way: &Way) -> Result<()> {
    let name = lan.namespace("b1");
    let port = way.to.port();
    patiently(&format!(
        "ip netns exec {name} ss -Hltn 'sport = :{port}' | grep -q ."
    ))
    .with_context(|| format!("{} to listen", way.name))
}

/// A host at the switch with this last digit.
pub(crate) fn host(lan: &mut Lan, name: &str, last: u8) -> Result<String> {
    lan.add_host(
        name,
        &format!("192.0.2.{last}/24"),
        &format!("2001:db8::{last}/64"),
    )
}

/// A namespace behind a veth of a host: `addr` inside, the host's side configured by `outside`.
fn task(lan: &mut Lan, owner: &str, name: &str, addr: &str, mtu: u32, outside: &str) -> Result<()> {
    let owner = lan.namespace(owner);
    let task = lan.add_namespace(name)?;
    run(&format!(
        "ip -n {owner} link add v-{name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {task} && \
         ip -n {owner} link set v-{name} up && {} && \
         ip -n {task} addr add {addr} dev eth0 && ip -n {task} link set eth0 up",
        outside.replace("HOST", &owner).replace("LINK", &format!("v-{name}"))
    ))
    .map(drop)
}

/// The least that two namespaces can have between them.
fn veth(lan: &mut Lan) -> Result<Way> {
    lan.add_namespace("va")?;
    task(
        lan,
        "va",
        "vb",
        "10.5.0.2/24",
        1500,
        "ip -n HOST addr add 10.5.0.1/24 dev LINK",
    )?;
    gauge::serve(&lan.netns_path("vb"), 80)?;
    way(lan, "plain veth", "va", "10.5.0.2:80")
}

/// Client, switch, a host that forwards, a task.
fn forwarding(lan: &mut Lan) -> Result<Way> {
    let owner = host(lan, "f1", 31)?;
    run(&format!(
        "ip netns exec {owner} sysctl -qw net.ipv4.ip_forward=1"
    ))?;
    task(
        lan,
        "f1",
        "ft",
        "10.9.0.2/24",
        1500,
        "ip -n HOST addr add 10.9.0.1/24 dev LINK",
    )?;
    run(&format!(
        "ip -n {} route add default via 10.9.0.1 && ip -n {} route add 10.9.0.0/24 via 192.0.2.31",
        lan.namespace("ft"),
        lan.namespace("c")
    ))?;
    gauge::serve(&lan.netns_path("ft"), 80)?;
    way(lan, "kernel forwarding", "c", "10.9.0.2:80")
}

/// Two hosts with a bridge and a VXLAN device each, a task on each; on the first, published ports by
/// nft: DNAT and masquerade, as kube-proxy's nftables mode has it.
fn bridges(lan: &mut Lan) -> Result<Vec<Way>> {
    for number in [1_u8, 2] {
        let (name, other) = (format!("b{number}"), 3 - number);
        let owner = host(lan, &name, 40 + number)?;
        run(&format!(
            "ip -n {owner} link add br0 mtu 1450 type bridge && ip -n {owner} addr add 10.7.0.{}/24 dev br0 && \
             ip -n {owner} link set br0 up && \
             ip -n {owner} link add vx0 mtu 1450 type vxlan id 77 dstport 4799 local 192.0.2.{} remote 192.0.2.{} && \
             ip -n {owner} link set vx0 master br0 up",
            10 + number,
            40 + number,
            40 + other
        ))?;
        let addr = format!("10.7.0.{number}/24");
        task(
            lan,
            &name,
            &format!("bt{number}"),
            &addr,
            1450,
            "ip -n HOST link set LINK master br0",
        )?;
        run(&format!(
            "ip -n {} route add default via 10.7.0.{}",
            lan.namespace(&format!("bt{number}")),
            10 + number
        ))?;
        gauge::serve(&lan.netns_path(&format!("bt{number}")), 80)?;
    }
    let first = lan.namespace("b1");
    run(&format!(
        "ip netns exec {first} sysctl -qw net.ipv4.ip_forward=1 && ip netns exec {first} nft -f - <<'END'\n\
         table ip nat {{\n\
         map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; elements = {{ tcp . 8001 : 10.7.0.1 . 80, tcp . 8002 : 10.7.0.2 . 80 }} }}\n\
         chain prerouting {{ type nat hook prerouting priority -100; ip daddr 192.0.2.41 dnat ip addr . port to meta l4proto . th dport map @ports; }}\n\
         chain postrouting {{ type nat hook postrouting priority 100; oifname \"br0\" masquerade; }}\n\
         }}\nEND"
    ))?;
    Ok(vec![
        way(lan, "bridge + VXLAN, task to task", "bt1", "10.7.0.2:80")?,
        way(lan, "nftables DNAT, local task", "c", "192.0.2.41:8001")?,
        way(lan, "nftables DNAT, remote task", "c", "192.0.2.41:8002")?,
    ])
}
