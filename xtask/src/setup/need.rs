//! What a machine must have, looked for by its files.

use std::path::Path;

use super::packages::Package;
use crate::ebpf;
use crate::run::{find_program, run};

/// Something that this machine does not have, and what brings it.
pub(super) struct Lack {
    /// For people.
    pub(super) what: String,
    pub(super) packages: Vec<Package>,
}

/// Something needed, and Debian's packages that bring it.
struct Need {
    /// For people.
    what: &'static str,
    is_met: fn() -> bool,
    packages: &'static [Package],
}

const NEEDS: [Need; 20] = [
    Need {
        what: "Docker Engine",
        is_met: || has("dockerd") && has("containerd"),
        packages: &[Package::Named("docker.io")],
    },
    Need {
        what: "the docker CLI",
        is_met: || has("docker"),
        packages: &[Package::Cli],
    },
    Need {
        what: "iptables, for the engine",
        is_met: || has("iptables"),
        packages: &[Package::Named("iptables")],
    },
    Need {
        what: "ip and bridge",
        is_met: || has("ip"),
        packages: &[Package::Named("iproute2")],
    },
    Need {
        what: "nft",
        is_met: || has("nft"),
        packages: &[Package::Named("nftables")],
    },
    Need {
        what: "nsenter, unshare and setsid",
        is_met: || has("nsenter") && has("unshare") && has("setsid"),
        packages: &[Package::Named("util-linux")],
    },
    Need {
        what: "hostname and sysctl",
        is_met: || has("hostname") && has("sysctl"),
        packages: &[Package::Named("hostname"), Package::Named("procps")],
    },
    Need {
        what: "a static busybox",
        is_met: || has("busybox") && is_static("busybox"),
        packages: &[Package::Named("busybox-static")],
    },
    Need {
        what: "tcpdump",
        is_met: || has("tcpdump"),
        packages: &[Package::Named("tcpdump")],
    },
    Need {
        what: "bpftool",
        is_met: || has("bpftool"),
        packages: &[Package::Named("bpftool")],
    },
    Need {
        what: "ethtool",
        is_met: || has("ethtool"),
        packages: &[Package::Named("ethtool")],
    },
    Need {
        what: "curl",
        is_met: || has("curl"),
        packages: &[Package::Named("curl")],
    },
    Need {
        what: "iperf3",
        is_met: || has("iperf3"),
        packages: &[Package::Named("iperf3")],
    },
    Need {
        what: "dig",
        is_met: || has("dig"),
        packages: &[Package::Named("bind9-dnsutils")],
    },
    Need {
        what: "wrk",
        is_met: || has("wrk"),
        packages: &[Package::Named("wrk")],
    },
    Need {
        what: "socat",
        is_met: || has("socat"),
        packages: &[Package::Named("socat")],
    },
    Need {
        what: "wg and wireguard-go",
        is_met: || has("wg") && has("wireguard-go"),
        packages: &[
            Package::Named("wireguard-tools"),
            Package::Named("wireguard-go"),
        ],
    },
    Need {
        what: "redis-server",
        is_met: || has("redis-server"),
        packages: &[Package::Named("redis-server")],
    },
    Need {
        what: "docker-registry",
        is_met: || has("docker-registry"),
        packages: &[Package::Named("docker-registry")],
    },
    Need {
        what: "a C compiler and the static C library",
        is_met: || has("cc") && has_static_libc(),
        packages: &[Package::Named("gcc"), Package::Named("libc6-dev")],
    },
];

/// What benches alone need: peers, and who asks.
const PEERS: [Need; 2] = [
    Need {
        what: "haproxy",
        is_met: || has("haproxy"),
        packages: &[Package::Named("haproxy")],
    },
    Need {
        what: "dnsperf",
        is_met: || has("dnsperf"),
        packages: &[Package::Named("dnsperf")],
    },
];

/// Everything that is missing here, in the order of the table; the compiler for the eBPF object last.
pub(super) fn lacking() -> Vec<Lack> {
    let mut lacks = missing(&NEEDS);
    lacks.extend(lacking_for_ebpf());
    lacks
}

/// Everything that is missing here to measure beside peers.
pub(super) fn lacking_with_peers() -> Vec<Lack> {
    let mut lacks = lacking();
    lacks.extend(missing(&PEERS));
    lacks
}

fn missing(needs: &[Need]) -> Vec<Lack> {
    let needs = needs.iter().filter(|need| !(need.is_met)());
    needs
        .map(|need| Lack {
            what: need.what.to_owned(),
            packages: need.packages.to_vec(),
        })
        .collect()
}

/// What building the eBPF object still needs: a compiler with sources, and LLVM of that compiler's major version.
fn lacking_for_ebpf() -> Vec<Lack> {
    match ebpf::compiler() {
        Ok(compiler) if ebpf::llvm_config(compiler.llvm).is_some() => Vec::new(),
        Ok(compiler) => vec![Lack {
            what: format!("LLVM {} development files", compiler.llvm),
            packages: vec![Package::Llvm(compiler.llvm)],
        }],
        Err(_) => vec![
            Lack {
                what: "a compiler with the sources of its core library".to_owned(),
                packages: vec![Package::Named("rustc-web"), Package::Named("rust-web-src")],
            },
            Lack {
                what: "LLVM development files that match it".to_owned(),
                packages: vec![Package::MatchingLlvm],
            },
        ],
    }
}

fn has(program: &str) -> bool {
    find_program(program).is_some()
}

fn is_static(program: &str) -> bool {
    find_program(program).is_some_and(|path| !run("ldd").arg(path).succeeds())
}

fn has_static_libc() -> bool {
    let arch = std::env::consts::ARCH;
    ["/usr/lib", "/usr/lib64"].iter().any(|dir| {
        Path::new(&format!("{dir}/{arch}-linux-gnu/libc.a")).exists()
            || Path::new(&format!("{dir}/libc.a")).exists()
    })
}
