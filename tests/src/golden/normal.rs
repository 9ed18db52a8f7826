//! What differs from run to run, by a name that does not.

use std::sync::OnceLock;

use regex::{Captures, Regex};

use super::names::Names;

/// Patterns of what is never twice the same, and what stands for it.
const PATTERNS: &[(&str, &str)] = &[
    (
        r"(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(\\n|\n)?",
        "<pem>",
    ),
    (r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", "<token>"),
    (r"SWMKEY-1-[A-Za-z0-9+/]+=*", "<key>"),
    (
        r"(?i)\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d| \+0000 UTC)",
        "<time>",
    ),
    (
        r"(?i)(less than a second|about an? [a-z]+|\d+ [a-z]+) ago",
        "<ago>",
    ),
    (r#""Index": ?\d+"#, r#""Index": <index>"#),
    (
        r#""(PID|MemoryBytes)": ?(\d{10,}|[1-9]\d{0,6}\b)"#,
        r#""$1": <number>"#,
    ),
    // Whole processors are the machine's; what services ask for is less.
    (r#""NanoCPUs": ?[1-9]\d*0{9}\b"#, r#""NanoCPUs": <number>"#),
    (r"(Memory:\s+)[0-9.]+GiB", "$1<number>"),
    (
        r"(?i)network revision \d+ of \d+",
        "network revision <index>",
    ),
    (r#"(vxlanid_list": ?)"\d+""#, r#"$1"<vni>""#),
    (r"\b\d+: (eth\d+)@if\d+", "<link>: $1@<link>"),
    (
        r#"("CertIssuer(?:Subject|PublicKey)": ?)"[^"]*""#,
        r#"$1"<base64>""#,
    ),
    (
        r"(Issuer (?:Subject|Public Key):[ \t]+)[A-Za-z0-9+/=]+",
        "$1<base64>",
    ),
    (r"\b02(:[0-9a-f]{2}){5}\b", "<mac>"),
    (
        r"\b2[0-9]\.[0-9]{1,2}\.[0-9]{1,2}(\+[a-z0-9]+)?(~[a-z0-9.]+)?([^.0-9]|$)",
        "<engine>$3",
    ),
    (r"\b[0-9a-f]{64}\b", "<hash>"),
    (r#""Name": ?"[0-9a-f]{12}""#, r#""Name": "<peer>""#),
    (r"\b192\.0\.2\.1([0-9])\b", "<n$1>"),
    (r"\bfd[0-9a-f]{2}(:[0-9a-f]{0,4}){2,7}", "<ula>"),
    (
        r"verify: Service (<[^>]*>|\S+) converged",
        "verify: Service converged",
    ),
    (r"[\r\x1b]\[[0-9;]*[A-Za-z]|\r", ""),
];

fn patterns() -> &'static [(Regex, &'static str)] {
    static PARSED: OnceLock<Vec<(Regex, &'static str)>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let parsed = PATTERNS.iter().filter_map(|(pattern, name)| {
            let regex = Regex::new(pattern);
            debug_assert!(regex.is_ok(), "{pattern}");
            Some((regex.ok()?, *name))
        });
        parsed.collect()
    })
}

/// The text with ids, times, addresses and keys by name; runs of blanks as two, trailing ones gone.
#[must_use]
pub fn normal(text: &str, names: &Names) -> String {
    let mut text = names.put_in(text);
    for (pattern, name) in patterns() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    let lines: Vec<String> = text.lines().map(squeeze).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// Node names gone, lines sorted.
#[must_use]
pub fn anywhere(text: &str) -> String {
    static NODE: OnceLock<Option<Regex>> = OnceLock::new();
    let node = NODE.get_or_init(|| Regex::new(r"\bn[1-9]\b").ok());
    let text = match node {
        Some(node) => node.replace_all(text, |_: &Captures<'_>| "<node>"),
        None => text.into(),
    };
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Indentation stays, columns lose their width.
fn squeeze(line: &str) -> String {
    let body = line.trim_start_matches(' ');
    let mut squeezed = line[..line.len() - body.len()].to_owned();
    let mut blanks = 0;
    for letter in body.trim_end().chars() {
        if letter == ' ' {
            blanks += 1;
            continue;
        }
        if letter == '\t' {
            blanks += 2;
            continue;
        }
        squeezed.push_str(match blanks {
            0 => "",
            1 => " ",
            _ => "  ",
        });
        blanks = 0;
        squeezed.push(letter);
    }
    squeezed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_has_a_name() {
        let mut names = Names::default();
        names.learn("v0f5t4j6pq3k3r5s8w1m2x9yz", "node n1");
        let seen = "v0f5t4j6pq3k3r5s8w1m2x9yz *   n1\tReady   3 seconds ago \n\"Index\": 17, 192.0.2.11:2377 2026-01-02T03:04:05.678Z v0f5t4j6pq3k 20.10.24+dfsg1";
        assert_eq!(
            normal(seen, &names),
            "<node n1> *  n1  Ready  <ago>\n\"Index\": <index>, <n1>:2377 <time> <node n1> <engine>"
        );
        assert_eq!(anywhere("web.2 n3\nweb.1 n1"), "web.1 <node>\nweb.2 <node>");
    }

    #[test]
    fn addresses_are_no_versions() {
        let names = Names::default();
        assert_eq!(
            normal("20.10.24.5 10.0.1.2/24", &names),
            "20.10.24.5 10.0.1.2/24"
        );
    }
}
