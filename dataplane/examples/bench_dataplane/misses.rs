//! Where a goal was missed: where the time goes, and what was tried.

use std::fmt::Write as _;

use crate::{gauge::Kind, goals, record::Record};

/// Shares of a connection's processor time: samples of `perf` by the nearest function of each kind, of the build before
/// what is told beside it was tried, while other work ran.
const SHARES: &str = "Of the processor time of a connection to a published port with a remote task (client, both hosts and server in \
one kernel; by `perf`, the nearest function of each kind in 4,200 call chains): TCP, IP and sockets 29 %; threads and their memory, \
which the bench then made for each connection, 14 %; the programs with the tables that they look into 10 %; veth and the receive \
path 10 %; the bridge between the hosts 6 %; netfilter's tracking 5 %; VXLAN and UDP around it 4 %; the scheduler 3 %; the rest is \
entering the kernel, copying, locks. Of nftables DNAT over the same hosts: 32, 16, 0, 11, 10, 7, 4 and 3 %. By themselves \
(`programs.md`) the programs take 0.7 to 0.8 µs for a packet's whole way.";

/// As [`SHARES`], of a stream; while other work ran.
const STREAM: &str = "Of the processor time of a stream to a published port with a remote task (client, both hosts and server in \
one kernel; by `perf`, the nearest function of each kind in 870 call chains): copying bytes and their pages 45 %; TCP, IP and sockets \
24 %; the programs with the tables that they look into 9 %; veth and the receive path 8 %; the bridge between the hosts 4 %; VXLAN and \
UDP around it 2 %; netfilter's tracking 1 %. Of bridge + VXLAN from task to task: 45, 24, 0, 8, 7, 4 and 5 %.";

/// What one missed goal is owed.
struct Miss {
    /// Beginning of the goals' names that it is about.
    goals: &'static [&'static str],
    text: fn(&Record) -> String,
}

const MISSES: [Miss; 8] = [
    Miss {
        goals: &["connections beside HAProxy"],
        text: haproxy,
    },
    Miss {
        goals: &[
            "connections beside",
            "service address beside task address, connections",
        ],
        text: |_| {
            format!(
                "{SHARES} Tried: netfilter no longer tracks the tunnel's packets, which was a connection more on either host for each \
                 one inside; the bench no longer makes a thread and a buffer for each connection."
            )
        },
    },
    Miss {
        goals: &[
            "remote published port beside bridge + VXLAN, Gbit/s",
            "remote published port beside bridge + VXLAN, down",
            "remote published port beside nftables DNAT, Gbit/s",
            "task to task beside bridge + VXLAN, Gbit/s",
            "task to task beside bridge + VXLAN, down",
            "local published port beside kernel forwarding",
        ],
        text: |_| {
            format!(
                "{STREAM} Segments as long as the kernel makes them pass the programs whole, so these cost per segment and not per \
                 packet. Tried: netfilter no longer tracks the tunnel's packets; a choice is looked up once for each packet, not \
                 three times."
            )
        },
    },
    Miss {
        goals: &[
            "service address beside task address, Gbit/s",
            "service address beside task address, questions",
            "100 services beside one",
            "10,000 services beside one",
            "10,000 backends beside one",
        ],
        text: |_| {
            "Both ways are the same program and the same look-ups: a socket at a service's address is led once, when it connects, and \
             its packets are those of a task's address; tables are looked into by hash, and nothing walks them. What differs is where \
             their entries lie in the processor's caches, and how far turns lie apart, which the table says. Tried: turns that are short \
             and close to each other, backwards every second time; medians of the ratios within a turn."
                .to_owned()
        },
    },
    Miss {
        goals: &["task to task beside bridge + VXLAN, p99"],
        text: |record| {
            let half = |name: &str| record.middle(name, Kind::Ask).p50;
            format!(
                "Both ways cross the same two hosts. The middle of a question is {:.0} µs beside {:.0} µs: what is slow in a hundredth of \
                 them is probably what interrupts client and server on two processors, not the way. How far turns lie apart is in the table.",
                half(goals::DIRECT),
                half(goals::BRIDGE),
            )
        },
    },
    Miss {
        goals: &[
            "remote published port beside bridge + VXLAN, p99",
            "remote published port beside nftables DNAT, p99",
        ],
        text: |record| {
            let half = |name: &str| record.middle(name, Kind::Ask).p50;
            format!(
                "A question to a remote published port crosses a host more than task to task over a bridge does: client, host, host. \
                 Its middle is {:.0} µs beside {:.0} µs, and {:.0} µs of nftables DNAT over the same hosts. Direct return would spare the \
                 answer that host, see `programs.md`.",
                half(goals::REMOTE),
                half(goals::BRIDGE),
                half(goals::DNAT_REMOTE)
            )
        },
    },
    Miss {
        goals: &["encrypted beside wireguard-go"],
        text: |_| {
            "Both encrypt in user space on the same two processors, ours with the VXLAN header inside; see decision 0011 and \
             what it says of offloads."
                .to_owned()
        },
    },
    Miss {
        goals: &["names beside Docker's resolver", "100,000 names"],
        text: |_| {
            "Of the resolver's time by `perf`, asked for 100,000 names, 45 % is the kernel's (11 % receiving, 7 % waiting, the rest \
             mostly sending), 18 % the C library's, 37 % its own: reading the question and writing the answer, 10 % looking the name up. \
             Tried: names packed so that a look-up touches two places in memory instead of four; looking for more questions once before \
             sleeping; answers to one client that are ready together go out in one send, which took the resolver's time for a query from \
             7.3 to 3.8 µs and the asker's from 6.6 to 4.2 µs (decision 0010). Since then a look-up among many names is a greater part \
             of what is left."
                .to_owned()
        },
    },
];

fn haproxy(record: &Record) -> String {
    let rate = |name: &str| record.middle(name, Kind::Connect).rate;
    let mut text = String::new();
    for (haproxy, ours, dnat) in [
        (goals::HAPROXY_LOCAL, goals::LOCAL, goals::DNAT_LOCAL),
        (goals::HAPROXY_REMOTE, goals::REMOTE, goals::DNAT_REMOTE),
    ] {
        let cheaper = |way| record.cheaper(way, haproxy, goals::VETH).unwrap_or(0.0);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{haproxy}: plain veth, with nothing between client and server, opens {:.2} times its connections. Beyond what plain veth \
             takes, a connection of ours takes {:.1} times less processor time than its, one of nftables DNAT {:.1} times less. ",
            rate(goals::VETH) / rate(haproxy),
            cheaper(ours),
            cheaper(dnat),
        );
    }
    format!(
        "The goal was set for machines of their own. Here client, hosts and server share two processors, and what each connection \
         costs in the client's and the server's stack is in both figures. {}",
        text.trim_end()
    )
}

/// A paragraph for each group of goals of which one was missed.
pub(crate) fn told(record: &Record, missed: &[String]) -> String {
    let mut text = String::new();
    for miss in MISSES {
        let of: Vec<&str> = missed
            .iter()
            .filter(|goal| miss.goals.iter().any(|about| goal.starts_with(about)))
            .map(String::as_str)
            .collect();
        if !of.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "**{}**: {}\n", of.join("; "), (miss.text)(record));
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("## Where a goal was missed\n\n{text}")
    }
}
