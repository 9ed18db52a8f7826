//! Namespaces that go when the test goes.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Runs a command line, split at spaces.
pub(crate) fn sh(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let out = Command::new(words.next().context("empty command")?)
        .args(words)
        .output()?;
    if !out.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Labs of one process run beside each other, one per thread: each has its own names.
fn prefix() -> String {
    format!("weft-w{}-{}-", std::process::id(), LAB.with(|n| *n))
}

static LABS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static LAB: u32 = LABS.fetch_add(1, Ordering::Relaxed);
}

/// A namespace that goes when this goes.
pub(crate) struct Netns(pub(crate) String);

impl Netns {
    /// Makes it, loopback up.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let name = format!("{}{name}", prefix());
        sh(&format!("ip netns add {name}"))?;
        let ns = Self(name);
        ns.ip("link set lo up")?;
        // A stack answers six of one peer's packets with errors, then one a second: walks send more.
        ns.sysctl("net.ipv4.icmp_ratelimit", "0")?;
        ns.sysctl("net.ipv6.icmp.ratelimit", "0")?;
        Ok(ns)
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, args: &str) -> Result<()> {
        sh(&format!("ip -n {} {args}", self.0))
    }

    /// `ethtool` inside.
    pub(crate) fn ethtool(&self, args: &str) -> Result<()> {
        sh(&format!(
            "nsenter --net=/run/netns/{} ethtool {args}",
            self.0
        ))
    }

    /// Writes a setting of the kernel inside.
    pub(crate) fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.inside(|| std::fs::write(&path, value).with_context(|| format!("write {path}")))
    }

    /// Runs `f` on a thread inside.
    pub(crate) fn inside<R: Send>(&self, f: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(format!("/run/netns/{}", self.0))?;
                    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
                    f()
                })
                .join()
                .map_err(|_| anyhow::anyhow!("a thread inside {} panicked", self.0))?
        })
    }

    /// Its cookie, by which socket hooks know it.
    pub(crate) fn cookie(&self) -> Result<u64> {
        self.inside(|| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            let mut cookie = 0u64;
            let mut len = size_of::<u64>() as libc::socklen_t;
            // SAFETY: a live socket, and room for the eight bytes that the option has.
            let code = unsafe {
                libc::getsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    71, // SO_NETNS_COOKIE
                    (&raw mut cookie).cast(),
                    &mut len,
                )
            };
            if code != 0 {
                bail!("SO_NETNS_COOKIE: {}", std::io::Error::last_os_error());
            }
            Ok(cookie)
        })
    }

    /// Hardware address of one of its interfaces.
    pub(crate) fn mac(&self, name: &str) -> Result<[u8; 6]> {
        let out = Command::new("ip")
            .args(["-n", &self.0, "-o", "link", "show", name])
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let mut words = text
            .split_whitespace()
            .skip_while(|w| *w != "link/ether")
            .skip(1);
        let mut mac = [0; 6];
        for (byte, hex) in mac
            .iter_mut()
            .zip(words.next().context("no hardware address")?.split(':'))
        {
            *byte = u8::from_str_radix(hex, 16)?;
        }
        Ok(mac)
    }

    /// Index of one of its interfaces.
    pub(crate) fn index(&self, name: &str) -> Result<u32> {
        self.inside(|| Ok(nix::net::if_::if_nametoindex(name)?))
    }
}

impl std::ops::Drop for Netns {
    fn drop(&mut self) {
        let _ = sh(&format!("ip netns del {}", self.0));
    }
}

/// Waits until no IPv6 address is tentative in any of our namespaces.
pub(crate) fn wait_for_links() -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let out = Command::new("ip")
            .args([
                "-all",
                "netns",
                "exec",
                "ip",
                "-6",
                "-o",
                "addr",
                "show",
                "tentative",
            ])
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        let mine = prefix();
        let mut ours = false;
        let mut waiting = 0;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("netns: ") {
                ours = name.starts_with(&mine);
            } else if ours && !line.trim().is_empty() {
                waiting += 1;
            }
        }
        if waiting == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{waiting} IPv6 addresses are still tentative after 30 s");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
