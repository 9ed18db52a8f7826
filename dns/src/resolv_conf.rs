//! The `resolv.conf` of the host, read, and that of a sandbox, written.

use std::{fmt::Write, net::IpAddr};

/// Where a sandbox asks.
pub const SANDBOX_RESOLVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));

/// Resolvers used at most, as in libc.
const SERVERS_MAX: usize = 3;

/// What a `resolv.conf` says. Lines that are not understood are skipped, as libc does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Resolvers in order, at most three, our own [`SANDBOX_RESOLVER`] left out.
    pub servers: Vec<IpAddr>,
    /// Domains to try after a name; the last `search` or `domain` line wins.
    pub search: Vec<String>,
    /// Options as written (`ndots:2`, `timeout:1`).
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads the text of a `resolv.conf`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(
                    words
                        .next()
                        .and_then(|word| word.parse().ok())
                        .filter(|server: &IpAddr| *server != SANDBOX_RESOLVER),
                ),
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf.servers.truncate(SERVERS_MAX);
        conf
    }

    /// What a sandbox on this host is given: our resolver alone, the user's search domains and
    /// options where there are any, else the host's.
    ///
    /// Without an `ndots` of the user's own it is 0, as in Docker: a service's name is complete.
    /// A search list of `.` alone means none.
    #[must_use]
    pub fn for_sandbox(&self, search: &[String], options: &[String]) -> String {
        let search = if search.is_empty() {
            &self.search[..]
        } else {
            search
        };
        let options = if options.is_empty() {
            &self.options[..]
        } else {
            options
        };
        let mut text = format!("nameserver {SANDBOX_RESOLVER}\n");
        let search: Vec<&str> = search
            .iter()
            .map(String::as_str)
            .filter(|domain| *domain != ".")
            .collect();
        if !search.is_empty() {
            let _infallible = writeln!(text, "search {}", search.join(" "));
        }
        let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0");
        }
        let _infallible = writeln!(text, "options {}", options.join(" "));
        text
    }
}

/// Whether these options make the client use its search list for single labels, so that it asks
/// again with a domain: [`crate::Asker::searches_single_labels`].
#[must_use]
pub fn searches_single_labels(options: &[String]) -> bool {
    let mut ndots = options
        .iter()
        .filter_map(|option| option.strip_prefix("ndots:")?.parse::<u32>().ok());
    ndots.next_back().is_some_and(|ndots| ndots > 0)
}
