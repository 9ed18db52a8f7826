//! The firewall's part: task packets to the world are masqueraded and let through.
//!
//! Only packets that the programs passed to the host's stack come here. Two things are needed: a
//! table `weft` of our own that masquerades, and, where a filter of others drops what is forwarded
//! (Docker's `FORWARD` policy), a rule in *their* chain, because one verdict `accept` does not
//! overrule another table's `drop`.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use ipnetwork::IpNetwork;

use super::error::DataplaneError;

/// Ports for masqueraded connections. Published ports chosen by the cluster are 30000–32767, and
/// clients of this host use up to 60999; replies to these must not be taken for calls of a service.
const PORTS: &str = "61000-65535";

/// What the firewall must do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Firewall {
    /// Prefixes of tasks.
    pub(crate) sources: Vec<IpNetwork>,
    /// UDP port of VXLAN, which must reach the stack.
    pub(crate) vxlan_port: u16,
    /// UDP port of WireGuard, which must reach the stack too; none while nothing is encrypted.
    pub(crate) wireguard_port: Option<u16>,
}

/// Marks our rules in others' chains.
const MARK: &str = "weft";

impl Firewall {
    /// The ruleset as `nft` reads it: atomic, and the same whatever was there before.
    fn ruleset(&self) -> String {
        let set = |v4: bool| {
            let sources = self.sources.iter().filter(|source| source.is_ipv4() == v4);
            sources
                .map(|source| format!("{}/{}", source.network(), source.prefix()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (v4, v6) = (set(true), set(false));
        let ports = [Some(self.vxlan_port), self.wireguard_port];
        let ports: Vec<String> = ports.iter().flatten().map(u16::to_string).collect();
        // Only what this host's own stack made may enter the encrypted underlay: a task that got in
        // could forge packets of any network.
        let elements = |list: &str| {
            if list.is_empty() {
                String::new()
            } else {
                format!("elements = {{ {list} }};")
            }
        };
        format!(
            "table inet weft {{}}\ndelete table inet weft\n\
             table inet weft {{\n\
             \tset tasks4 {{ type ipv4_addr; flags interval; auto-merge; {} }}\n\
             \tset tasks6 {{ type ipv6_addr; flags interval; auto-merge; {} }}\n\
             \tchain postrouting {{\n\
             \t\ttype nat hook postrouting priority srcnat - 5; policy accept;\n\
             \t\toifname {{ \"weft0\", \"lo\" }} return\n\
             \t\toifname \"wv*\" return\n\
             \t\toifname \"we*\" return\n\
             \t\tiifname {{ \"wv*\", \"we*\" }} meta l4proto {{ tcp, udp }} ip saddr @tasks4 masquerade to :{PORTS}\n\
             \t\tiifname {{ \"wv*\", \"we*\" }} meta l4proto {{ tcp, udp }} ip6 saddr @tasks6 masquerade to :{PORTS}\n\
             \t\tiifname {{ \"wv*\", \"we*\" }} ip saddr @tasks4 masquerade\n\
             \t\tiifname {{ \"wv*\", \"we*\" }} ip6 saddr @tasks6 masquerade\n\
             \t}}\n\
             \tchain input {{\n\
             \t\ttype filter hook input priority filter - 5; policy accept;\n\
             \t\tudp dport {{ {} }} accept\n\
             \t}}\n\
             \tchain forward {{\n\
             \t\ttype filter hook forward priority filter - 5; policy accept;\n\
             \t\toifname \"weft-wg\" counter drop\n\
             \t}}\n\
             }}\n",
            elements(&v4),
            elements(&v6),
            ports.join(", "),
        )
    }

    /// Writes our table.
    pub(crate) fn write(&self) -> Result<(), DataplaneError> {
        nft(&["-f", "-"], &self.ruleset()).map(drop)
    }
}

/// Whether our table is there.
pub(crate) fn is_there() -> Result<bool, DataplaneError> {
    Ok(nft(&["list", "tables"], "")?
        .lines()
        .any(|line| line.trim() == "table inet weft"))
}

/// Where others drop what is forwarded, the place in which they ask for exceptions.
const FORWARD_CHAINS: [(&str, &str); 2] = [("ip", "DOCKER-USER"), ("ip6", "DOCKER-USER")];

/// Sees to it that forwarded task packets pass others' filters, where there are any. True when a
/// rule had to be added.
pub(crate) fn open_forward() -> Result<bool, DataplaneError> {
    let mut added = false;
    for (family, user_chain) in FORWARD_CHAINS {
        let Ok(forward) = nft(&["-a", "list", "chain", family, "filter", "FORWARD"], "") else {
            continue;
        };
        let drops = forward.contains("policy drop");
        let user = nft(&["-a", "list", "chain", family, "filter", user_chain], "");
        let (chain, text) = match user {
            // Only a chain that something jumps to has a say.
            Ok(text) if forward.contains(user_chain) => (user_chain, text),
            _ if drops => ("FORWARD", forward),
            _ => continue,
        };
        for (direction, prefix) in [
            ("iifname", "wv*"),
            ("oifname", "wv*"),
            ("iifname", "we*"),
            ("oifname", "we*"),
        ] {
            let rule = format!("{direction} \"{prefix}\"");
            if text
                .lines()
                .any(|line| line.contains(&rule) && line.contains("accept"))
            {
                continue;
            }
            let insert = format!(
                "insert rule {family} filter {chain} {rule} counter accept comment \"{MARK}\"\n"
            );
            nft(&["-f", "-"], &insert)?;
            added = true;
        }
    }
    Ok(added)
}

/// Removes our table and our rules in others' chains.
pub(crate) fn remove() -> Result<(), DataplaneError> {
    nft(&["-f", "-"], "table inet weft {}\ndelete table inet weft\n")?;
    for (family, user_chain) in FORWARD_CHAINS {
        for chain in [user_chain, "FORWARD"] {
            let Ok(text) = nft(&["-a", "list", "chain", family, "filter", chain], "") else {
                continue;
            };
            for line in text
                .lines()
                .filter(|line| line.contains("\"wv*\"") || line.contains("\"we*\""))
            {
                if let Some((_, handle)) = line.rsplit_once("# handle ") {
                    let delete = format!(
                        "delete rule {family} filter {chain} handle {}\n",
                        handle.trim()
                    );
                    nft(&["-f", "-"], &delete)?;
                }
            }
        }
    }
    Ok(())
}

/// Runs `nft` in the calling thread's namespace.
fn nft(arguments: &[&str], input: &str) -> Result<String, DataplaneError> {
    let run = || {
        let mut child = Command::new("nft")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run()
        .map_err(|error| DataplaneError::Firewall(format!("{}: {error}", arguments.join(" "))))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(DataplaneError::Firewall(format!(
        "{}: {}",
        arguments.join(" "),
        said.trim()
    )))
}
