//! What a machine must have: looked for by its files, installed by the machine's package manager.
//!
//! Nothing that a package brings is started: the project runs its own daemons, in namespaces of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::ebpf;
use crate::rights::require_root;
use crate::run::{find_program, run};

/// Something needed, and Debian's packages that bring it.
struct Need {
    /// For people.
    what: &'static str,
    is_met: fn() -> bool,
    packages: &'static [&'static str],
}

const NEEDS: [Need; 19] = [
    Need {
        what: "Docker Engine",
        is_met: || has("dockerd") && has("containerd"),
        packages: &["docker.io"],
    },
    Need {
        what: "the docker CLI",
        is_met: || has("docker"),
        packages: &[CLI],
    },
    Need {
        what: "iptables, for the engine",
        is_met: || has("iptables"),
        packages: &["iptables"],
    },
    Need {
        what: "ip and bridge",
        is_met: || has("ip"),
        packages: &["iproute2"],
    },
    Need {
        what: "nft",
        is_met: || has("nft"),
        packages: &["nftables"],
    },
    Need {
        what: "nsenter, unshare and setsid",
        is_met: || has("nsenter") && has("unshare") && has("setsid"),
        packages: &["util-linux"],
    },
    Need {
        what: "hostname and sysctl",
        is_met: || has("hostname") && has("sysctl"),
        packages: &["hostname", "procps"],
    },
    Need {
        what: "a static busybox",
        is_met: || has("busybox") && is_static("busybox"),
        packages: &["busybox-static"],
    },
    Need {
        what: "tcpdump",
        is_met: || has("tcpdump"),
        packages: &["tcpdump"],
    },
    Need {
        what: "bpftool",
        is_met: || has("bpftool"),
        packages: &["bpftool"],
    },
    Need {
        what: "ethtool",
        is_met: || has("ethtool"),
        packages: &["ethtool"],
    },
    Need {
        what: "curl",
        is_met: || has("curl"),
        packages: &["curl"],
    },
    Need {
        what: "iperf3",
        is_met: || has("iperf3"),
        packages: &["iperf3"],
    },
    Need {
        what: "dig",
        is_met: || has("dig"),
        packages: &["bind9-dnsutils"],
    },
    Need {
        what: "wrk",
        is_met: || has("wrk"),
        packages: &["wrk"],
    },
    Need {
        what: "socat",
        is_met: || has("socat"),
        packages: &["socat"],
    },
    Need {
        what: "redis-server",
        is_met: || has("redis-server"),
        packages: &["redis-server"],
    },
    Need {
        what: "docker-registry",
        is_met: || has("docker-registry"),
        packages: &["docker-registry"],
    },
    Need {
        what: "a C compiler and the static C library",
        is_met: || has("cc") && has_static_libc(),
        packages: &["gcc", "libc6-dev"],
    },
];

/// Names what the machine lacks, then installs it. Quick when nothing is missing.
///
/// # Errors
/// When something is missing and we are not root, or this is no machine of Debian's kind; the message is the list.
pub(crate) fn setup() -> Result<()> {
    let mut lacks: Vec<(String, Vec<String>)> = NEEDS
        .iter()
        .filter(|need| !(need.is_met)())
        .map(|need| {
            (
                need.what.to_owned(),
                need.packages
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect(),
            )
        })
        .collect();
    lacks.extend(lacking_for_ebpf());
    if lacks.is_empty() {
        return Ok(());
    }
    println!("this machine lacks:");
    for (what, packages) in &lacks {
        println!("  {what}  ({})", packages.join(" "));
    }
    let mut packages: Vec<String> = lacks
        .into_iter()
        .flat_map(|(_, packages)| packages)
        .collect();
    packages.sort();
    packages.dedup();
    if find_program("apt-get").is_none() {
        bail!(
            "there is no apt-get here; install the list above with this machine's package manager, then run this again"
        );
    }
    require_root("setup")?;
    install(&packages)?;
    if let Some(need) = NEEDS.iter().find(|need| !(need.is_met)()) {
        bail!(
            "{} is still missing after its packages were installed: {}",
            need.what,
            need.packages.join(" ")
        );
    }
    ebpf::compiler().map(drop)
}

/// What building the eBPF object still needs: a compiler with sources, and LLVM of that compiler's major version.
fn lacking_for_ebpf() -> Vec<(String, Vec<String>)> {
    match ebpf::compiler() {
        Ok(compiler) if ebpf::llvm_config(compiler.llvm).is_some() => Vec::new(),
        Ok(compiler) => vec![(
            format!("LLVM {} development files", compiler.llvm),
            vec![format!("llvm-{}-dev", compiler.llvm)],
        )],
        Err(_) => {
            let compiler = (
                "a compiler with the sources of its core library".to_owned(),
                vec!["rustc-web".to_owned(), "rust-web-src".to_owned()],
            );
            // Which LLVM goes with it is the package's to say; it is asked after the lists are fresh.
            vec![
                compiler,
                (
                    "LLVM development files that match it".to_owned(),
                    vec![MATCHING_LLVM.to_owned()],
                ),
            ]
        }
    }
}

/// Stands for `llvm-N-dev` until the package lists have said which N the compiler is built with.
const MATCHING_LLVM: &str = "llvm-…-dev";

/// Stands for the package with the docker CLI: Debian 12 has it with the engine, later ones by itself.
const CLI: &str = "docker-cli or docker.io";

fn is_offered(package: &str) -> bool {
    run("apt-cache policy")
        .arg(package)
        .read()
        .is_ok_and(|policy| policy.contains("Candidate: ") && !policy.contains("Candidate: (none)"))
}

fn install(packages: &[String]) -> Result<()> {
    println!("installing: {}", packages.join(" "));
    let _quiet = NoServices::hold()?;
    apt("update -q")?;
    let mut names = packages.to_vec();
    for name in &mut names {
        match name.as_str() {
            MATCHING_LLVM => *name = matching_llvm()?,
            CLI => {
                *name = if is_offered("docker-cli") {
                    "docker-cli".into()
                } else {
                    "docker.io".into()
                }
            }
            _ => {}
        }
    }
    run("apt-get install -q -y --no-install-recommends")
        .args(&names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .show()
        .with_context(|| {
            format!(
                "cannot install packages; install these by hand, then run this again: {}",
                names.join(" ")
            )
        })
}

fn apt(words: &str) -> Result<()> {
    run(&format!("apt-get {words}"))
        .env("DEBIAN_FRONTEND", "noninteractive")
        .show()
}

/// `rustc-web` depends on `libllvm22`: so `llvm-22-dev`.
fn matching_llvm() -> Result<String> {
    let depends = run(
        "apt-cache depends --recurse --no-suggests --no-recommends rustc-web libstd-rust-web-dev",
    )
    .read()?;
    let majors = depends.lines().filter_map(|line| {
        line.trim()
            .trim_start_matches("Depends: ")
            .strip_prefix("libllvm")
    });
    let major = majors.filter_map(|rest| rest.parse::<u32>().ok()).max();
    let major = major.context(
        "cannot tell which LLVM rustc-web is built with; install its llvm-N-dev by hand",
    )?;
    Ok(format!("llvm-{major}-dev"))
}

/// Keeps package scripts from starting daemons, by the file Debian asks for leave; removed again, even on failure.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn hold() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(NoServices { ours: false });
        }
        fs::write(
            POLICY,
            "#!/bin/sh\n# weft's setup installs programs, it starts no services.\nexit 101\n",
        )
        .with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(NoServices { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
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
