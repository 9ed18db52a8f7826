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

use super::{error::DataplaneError, switches::reserved::Run};
use crate::cipher::DEVICES;

/// Ports for masqueraded connections. Published ports chosen by the cluster are 30000–32767, and
/// clients of this host use up to 60999; replies to these must not be taken for calls of a service.
const PORTS: Run = (61_000, 65_535);
/// Where published ports leave fewer than [`ENOUGH`] of those: replies are told apart by what the programs know.
const MORE_PORTS: Run = (32_768, 65_535);
/// Fewest ports for masqueraded connections to one address.
const ENOUGH: u16 = 1_024;

/// The longest run of ports within another that nobody publishes.
fn free(within: Run, published: &[Run]) -> Option<Run> {
    let near = |(first, last): &&Run| *last >= within.0 && *first <= within.1;
    let published: Vec<&Run> = published.iter().filter(near).collect();
    let mut best: Option<Run> = None;
    let mut run: Option<Run> = None;
    for port in within.0..=within.1 {
        if published
            .iter()
            .any(|(first, last)| (first..=last).contains(&&port))
        {
            run = None;
            continue;
        }
        let now = (run.map_or(port, |(first, _)| first), port);
        run = Some(now);
        if best.is_none_or(|best| now.1 - now.0 > best.1 - best.0) {
            best = run;
        }
    }
    best
}

/// What the firewall must do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Firewall {
    /// Prefixes of tasks.
    pub(crate) sources: Vec<IpNetwork>,
    /// UDP port of VXLAN, which must reach the stack.
    pub(crate) vxlan_port: u16,
    /// UDP ports of WireGuard, which must reach the stack too; none while nothing is encrypted.
    pub(crate) wireguard_ports: Vec<u16>,
    /// Published ports, which no masqueraded connection may have.
    pub(crate) published: Vec<Run>,
}

/// Marks our rules in others' chains.
const MARK: &str = "weft";

impl Firewall {
    /// Ports for masqueraded connections.
    fn masquerade(&self) -> Run {
        free(PORTS, &self.published)
            .filter(|(from, to)| to - from >= ENOUGH)
            .or_else(|| free(MORE_PORTS, &self.published))
            .unwrap_or(MORE_PORTS)
    }

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
        let (from, to) = self.masquerade();
        let ports = [self.vxlan_port].into_iter();
        let ports = ports.chain(self.wireguard_ports.iter().copied());
        let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
        let [even, odd] = DEVICES;
        // Each connection inside has a source port of its own outside: tracked, it would be a connection more on
        // both hosts, of those that the whole host may have.
        let vxlan = self.vxlan_port;
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
             \tchain untracked_in {{\n\
             \t\ttype filter hook prerouting priority raw; policy accept;\n\
             \t\tudp dport {vxlan} notrack\n\
             \t}}\n\
             \tchain untracked_out {{\n\
             \t\ttype filter hook output priority raw; policy accept;\n\
             \t\tudp dport {vxlan} notrack\n\
             \t}}\n\
             \tchain postrouting {{\n\
             \t\ttype nat hook postrouting priority srcnat - 5; policy accept;\n\
             \t\toifname {{ \"weft0\", \"lo\" }} return\n\
             \t\toifname \"wv*\" return\n\
             \t\toifname \"we*\" return\n\
             \t\tiifname {{ \"wv*\", \"we*\" }} meta l4proto {{ tcp, udp }} ip saddr @tasks4 masquerade to :{from}-{to}\n\
             \t\tiifname {{ \"wv*\", \"we*\" }} meta l4proto {{ tcp, udp }} ip6 saddr @tasks6 masquerade to :{from}-{to}\n\
             \t\tiifname {{ \"wv*\", \"we*\" }} ip saddr @tasks4 masquerade\n\
             \t\tiifname {{ \"wv*\", \"we*\" }} ip6 saddr @tasks6 masquerade\n\
             \t}}\n\
             \tchain input {{\n\
             \t\ttype filter hook input priority filter - 5; policy accept;\n\
             \t\tudp dport {{ {} }} accept\n\
             \t}}\n\
             \tchain forward {{\n\
             \t\ttype filter hook forward priority filter - 5; policy accept;\n\
             \t\toifname {{ \"{even}\", \"{odd}\" }} counter drop\n\
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
pub(super) fn nft(arguments: &[&str], input: &str) -> Result<String, DataplaneError> {
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
    let output = run().map_err(|error| {
        DataplaneError::Firewall(match error.kind() {
            std::io::ErrorKind::NotFound => {
                "there is no such program: install the package nftables".to_owned()
            }
            _ => format!("{}: {error}", arguments.join(" ")),
        })
    })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masqueraded_connections_keep_away_from_published_ports() {
        let with = |published: &[Run]| {
            let firewall = Firewall {
                published: published.to_vec(),
                ..Firewall::default()
            };
            firewall.masquerade()
        };
        assert_eq!(with(&[(8000, 8000)]), PORTS);
        assert_eq!(with(&[(62_000, 62_000)]), (62_001, 65_535));
        assert_eq!(
            with(&[(64_000, 64_009), (61_000, 61_000)]),
            (61_001, 63_999)
        );
        assert_eq!(with(&[(65_535, 65_535)]), (61_000, 65_534));
        assert_eq!(with(&[(61_000, 65_535)]), (32_768, 60_999));
        assert_eq!(with(&[(55_536, 65_535)]), (32_768, 55_535));
        assert_eq!(with(&[(1, 65_535)]), MORE_PORTS, "there is no better");
    }
}
