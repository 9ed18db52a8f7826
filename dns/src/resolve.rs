//! What a name means to the one who asks.
//!
//! # Who owns a name
//!
//! The asker's networks are looked through in the order given (user overlays first, the ingress
//! network, which has no names, last). The whole name is tried on every network, then the name is
//! split from the right, `a.b.c` as `a.b` on network `c`, then `a` on network `b.c`. The first
//! network that owns the name answers for both families and all types: a second network with the
//! same name never adds an address, so that `A` and `AAAA` cannot lead to two different services.
//!
//! An owned name is never forwarded. A type that it does not have is [`Answer::NoData`], also where
//! Docker would ask outside (`SRV`, `TXT`): the outside cannot know.
//!
//! # Names that nobody owns, but a network could
//!
//! | Name | Answer | Why |
//! |---|---|---|
//! | one label | forward | Docker does, and search domains and the hosts of a LAN need it |
//! | one label, A or AAAA, the user set `ndots` above 0 | no data | the client comes back with its search domain |
//! | `tasks.<label>` | no such name | only we give that name; outside, strangers have answered it |
//! | `<name>.<network of the asker>` | no such name | unless the network is called like a public top-level domain (`dev`, `app`, any two letters): a network called `app` must not take all of `*.app` away |
//! | `<owned name>.<digits>` | no such name | a slot; no public name ends in digits |
//! | `<label>.<label>.<25 characters id>` | no such name | a task that is gone |
//! | anything else | forward | |
//!
//! # Reverse names
//!
//! The address of a task or container answers `<container>.<network>.`. Any other address in a
//! subnet of the asker's networks, so also a virtual one, is "no such name": Docker asks the host's
//! resolvers, which cannot know it and should not see it. Addresses elsewhere are forwarded.

mod public;

use std::net::{IpAddr, SocketAddr};

use weft_types::NetworkId;

use crate::zone::{Entry, Zone, Zones};

/// Seconds that a client may keep one of our answers.
///
/// Docker says 600, and clients that believe it knock at dead tasks for ten minutes. The answer is
/// a hash lookup in the same host, so asking again is cheap; a few seconds still spare a busy client.
pub const TTL_SECS: u32 = 5;

/// Who asks: known from the socket that the question arrived on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asker {
    /// Networks of the sandbox, in order of precedence: user overlays, then ingress.
    pub networks: Vec<NetworkId>,
    /// Resolvers to forward to instead of the host's (`--dns`). Empty: the host's.
    pub servers: Vec<SocketAddr>,
    /// The user set `ndots` above 0 (`--dns-option`), so the search list is used for single labels.
    pub searches_single_labels: bool,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// IPv4 addresses.
    V4,
    /// IPv6 addresses.
    V6,
    /// Everything.
    Any,
    /// The name of this address; the question's name is its whole reverse name.
    Pointer(IpAddr),
    /// Any other type: we own none.
    Other,
}

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name in lower case, labels joined by dots, without the last dot.
    pub name: &'a [u8],
    /// What is wanted of it.
    pub wanted: Wanted,
}

/// One record's content. Its name is the question's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An `A` or `AAAA` record.
    Address(IpAddr),
    /// A `PTR` record, without the last dot.
    Pointer(String),
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The name is ours and means this; never empty.
    Records(Vec<Fact>),
    /// The name is ours and has nothing of the wanted type.
    NoData,
    /// The name could only be ours, and is not.
    NxDomain,
    /// Not ours: ask the host's resolvers.
    Forward,
}

/// The answer to `question` for `asker`. Several addresses come in an order drawn from `seed`.
#[must_use]
pub fn resolve(question: &Question<'_>, asker: &Asker, zones: &Zones, seed: u64) -> Answer {
    if let Wanted::Pointer(address) = question.wanted {
        return pointer(address, asker, zones);
    }
    if question.name.is_empty() {
        return Answer::Forward;
    }
    match owned(question.name, asker, zones) {
        Some(entry) => facts(entry, question.wanted, seed),
        None => unowned(question, asker, zones),
    }
}

fn shared<'z>(asker: &Asker, zones: &'z Zones) -> impl Iterator<Item = &'z Zone> {
    asker
        .networks
        .iter()
        .filter_map(|network| zones.networks.get(network).map(AsRef::as_ref))
}

fn pointer(address: IpAddr, asker: &Asker, zones: &Zones) -> Answer {
    let mut ours = false;
    for zone in shared(asker, zones) {
        if let Some(container) = zone.pointer(address) {
            return Answer::Records(vec![Fact::Pointer(format!("{container}.{}", zone.name()))]);
        }
        ours |= zone.covers(address);
    }
    if ours {
        Answer::NxDomain
    } else {
        Answer::Forward
    }
}

fn owned<'z>(name: &[u8], asker: &Asker, zones: &'z Zones) -> Option<Entry<'z>> {
    if let Some(entry) = shared(asker, zones).find_map(|zone| zone.entry(name)) {
        return Some(entry);
    }
    splits(name).find_map(|(name, network)| {
        shared(asker, zones)
            .filter(|zone| zone.is_named(network))
            .find_map(|zone| zone.entry(name))
    })
}

/// `a.b.c` as (`a.b`, `c`), then (`a`, `b.c`).
fn splits(name: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    (0..name.len())
        .rev()
        .filter(|at| name[*at] == b'.')
        .map(|at| (&name[..at], &name[at + 1..]))
}

fn facts(entry: Entry<'_>, wanted: Wanted, seed: u64) -> Answer {
    let v4 = entry.v4().map(|address| Fact::Address(address.into()));
    let v6 = entry.v6().map(|address| Fact::Address(address.into()));
    let mut facts: Vec<Fact> = match wanted {
        Wanted::V4 => v4.collect(),
        Wanted::V6 => v6.collect(),
        Wanted::Any => v4.chain(v6).collect(),
        Wanted::Pointer(_) | Wanted::Other => Vec::new(),
    };
    if facts.is_empty() {
        return Answer::NoData;
    }
    shuffle(&mut facts, seed);
    Answer::Records(facts)
}

fn unowned(question: &Question<'_>, asker: &Asker, zones: &Zones) -> Answer {
    let labels: Vec<&[u8]> = question.name.split(|byte| *byte == b'.').collect();
    let addresses = matches!(question.wanted, Wanted::V4 | Wanted::V6);
    let only_ours = match labels[..] {
        [_] if asker.searches_single_labels && addresses => return Answer::NoData,
        [_] => false,
        [b"tasks", _] => true,
        [service, slot] if slot.iter().all(u8::is_ascii_digit) => {
            shared(asker, zones).any(|zone| zone.entry(service).is_some())
        }
        [_, _, task] if is_id(task) => true,
        _ => false,
    };
    let under_network = || {
        splits(question.name).any(|(_, network)| {
            !public::could_be_public(network)
                && shared(asker, zones).any(|zone| zone.is_named(network))
        })
    };
    if only_ours || under_network() {
        Answer::NxDomain
    } else {
        Answer::Forward
    }
}

fn is_id(label: &[u8]) -> bool {
    label.len() == 25
        && label
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Fisher and Yates, drawing from the splitmix64 sequence that starts at `seed`.
fn shuffle(facts: &mut [Fact], seed: u64) {
    let mut state = seed;
    for last in (1..facts.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = state;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^= drawn >> 31;
        facts.swap(last, (drawn % (last as u64 + 1)) as usize);
    }
}
