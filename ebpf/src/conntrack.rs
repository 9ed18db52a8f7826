//! Flows at the backend's node: two tables, two entries each.
//!
//! `flow_new` may evict and so cannot be filled against us; `flow` never does, and only a segment from
//! the task itself moves a flow there.

use weft_abi::{Addr, Be16, Drop, Endpoint, Flow, FlowKey, flow, ring_hash, tcp};

use crate::least;
use crate::mesh::Ask;
use crate::packet::Packet;
use crate::parse::{Headers, TCP, tcp_flag};
use crate::tables::{Age, Inserted, Tables};
use crate::translate::Tuple;
use crate::work::Notes;

/// How many client ports are tried when tuples collide.
const TRIES: u32 = 8;

/// What a packet needs from the flow it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The other side's tuple: to the task for a wire packet, to the client for a reply.
    pub to: Tuple,
    /// Backend id.
    pub backend: u32,
    /// Node through which answers go.
    pub ingress: u32,
    /// Interface of the client, when it came in here.
    pub link: u32,
    /// VNI of the wire tuple.
    pub net: u32,
    /// Key of `services`.
    pub front: u32,
    /// See [`flow`].
    pub flags: u16,
    /// Which table knew it.
    pub age: Age,
    /// Whether it is time to promote it.
    pub ripe: bool,
    /// Bits of [`tcp`] that this direction showed.
    pub tcp: u8,
}

impl Hit {
    /// Nothing yet.
    pub const NONE: Self = Self {
        to: Tuple {
            src: Addr::ANY,
            dst: Addr::ANY,
            sport: Be16::new(0),
            dport: Be16::new(0),
        },
        backend: 0,
        ingress: 0,
        link: 0,
        net: 0,
        front: 0,
        flags: 0,
        age: Age::New,
        ripe: false,
        tcp: 0,
    };
}

/// Where a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Node through which answers go.
    pub ingress: u32,
    /// Interface, when that is this node.
    pub link: u32,
    /// See [`flow`].
    pub flags: u16,
}

#[inline(always)]
fn tcp_bits(ip: &Headers) -> u8 {
    if ip.proto != TCP {
        return 0;
    }
    let mut bits = 0;
    if ip.flags & tcp_flag::SYN != 0 {
        bits |= tcp::SYN;
    }
    if ip.flags & tcp_flag::FIN != 0 {
        bits |= tcp::FIN;
    }
    if ip.flags & tcp_flag::RST != 0 {
        bits |= tcp::RST;
    }
    if ip.flags & (tcp_flag::SYN | tcp_flag::RST) == 0 {
        bits |= tcp::DATA;
    }
    bits
}

#[inline(always)]
fn touch<P: Packet, T: Tables>(t: &T, f: &mut Flow, p: &P, ip: &Headers) {
    if t.is_dry() {
        return;
    }
    f.packets += 1;
    f.bytes += p.len() as u64;
    f.last = p.now();
    f.tcp |= tcp_bits(ip);
}

#[inline(always)]
fn note(hit: &mut Hit, f: &Flow, age: Age) {
    hit.backend = f.backend;
    hit.ingress = f.ingress;
    hit.link = f.link;
    hit.net = f.net;
    hit.front = f.front;
    hit.flags = f.flags;
    hit.age = age;
    hit.ripe = false;
    hit.tcp = f.tcp;
}

#[inline(always)]
fn to_task(hit: &mut Hit, f: &Flow, age: Age) {
    hit.to.src = f.seen;
    hit.to.dst = f.task;
    hit.to.sport = f.seen_port;
    hit.to.dport = f.task_port;
    note(hit, f, age);
}

#[inline(always)]
fn to_client(hit: &mut Hit, f: &Flow, age: Age) {
    hit.to.src = f.service;
    hit.to.dst = f.client;
    hit.to.sport = f.port;
    hit.to.dport = f.cport;
    note(hit, f, age);
}

/// Lets `f` see a flow's entry, in whichever table it is. False when it is in none.
#[inline(always)]
fn either<T: Tables>(
    t: &T,
    key: &FlowKey,
    hit: &mut Hit,
    f: impl Fn(&mut Hit, &mut Flow, Age),
) -> bool {
    let known = t.flow(Age::Established, key, |flow| f(hit, flow, Age::Established));
    known.is_some()
        || t.flow(Age::New, key, |flow| f(hit, flow, Age::New))
            .is_some()
}

/// The flow of a wire packet. Its entry is counted. False when there is none.
#[inline(always)]
pub fn wire<P: Packet, T: Tables>(
    p: &P,
    t: &T,
    ip: &Headers,
    key: &FlowKey,
    hit: &mut Hit,
) -> bool {
    either(t, key, hit, |hit, f, age| {
        touch(t, f, p, ip);
        to_task(hit, f, age);
    })
}

/// The flow of a packet that a task sends. Its entry is counted. False when there is none.
#[inline(always)]
pub fn reply<P: Packet, T: Tables>(
    p: &P,
    t: &T,
    ip: &Headers,
    key: &FlowKey,
    hit: &mut Hit,
) -> bool {
    either(t, key, hit, |hit, f, age| {
        touch(t, f, p, ip);
        to_client(hit, f, age);
        if matches!(age, Age::New) {
            // The task's own segment without SYN and RST proves the handshake; the entry began with the
            // client's first packet, so a UDP flow proves itself by the task's second.
            hit.ripe = if ip.proto == TCP {
                ip.flags & (tcp_flag::SYN | tcp_flag::RST) == 0
            } else {
                f.packets >= 3
            };
        }
    })
}

/// Like [`wire`] or [`reply`], for an ICMP error about a packet: nothing is counted.
#[inline(always)]
pub fn about<T: Tables>(t: &T, key: &FlowKey, hit: &mut Hit) -> bool {
    let wire = key.side == flow::WIRE;
    either(t, key, hit, |hit, f, age| {
        if wire {
            to_task(hit, f, age);
        } else {
            to_client(hit, f, age);
        }
    })
}

/// Writes the key that packets of the other direction have, from the tuple that this direction gets.
#[inline(always)]
pub fn other_side(back: &mut FlowKey, net: u32, to: &Tuple, proto: u8, side: u8) {
    back.src = to.dst;
    back.dst = to.src;
    back.net = net;
    back.sport = to.dport;
    back.dport = to.sport;
    back.proto = proto;
    back.side = side;
    back.pad = [0; 2];
}

/// Whether an answers' entry is of this wire tuple: another may have the task's port for the same client.
#[inline(always)]
fn is_of(f: &Flow, key: &FlowKey) -> bool {
    f.client.same(&key.src)
        && f.service.same(&key.dst)
        && f.cport == key.sport
        && f.port == key.dport
        && f.net == key.net
}

/// Records another way back, when the client now comes in elsewhere, and writes the answers' entry of a new flow
/// again when it was evicted: without it, what the task says next would leave as if nobody had asked. An entry that
/// is another's now stays as it is.
#[inline(always)]
pub fn refresh<T: Tables>(t: &T, ask: &Ask, task_net: u32, notes: &mut Notes) {
    let origin = ask.origin;
    let moved = notes.hit.ingress != origin.ingress || notes.hit.link != origin.link;
    let age = notes.hit.age;
    if t.is_dry() || (!moved && matches!(age, Age::Established)) {
        return;
    }
    other_side(
        &mut notes.back,
        task_net,
        &notes.hit.to,
        ask.key.proto,
        flow::REPLY,
    );
    let new = &mut notes.new;
    let known = t.flow(age, &ask.key, |f| {
        f.ingress = origin.ingress;
        f.link = origin.link;
        *new = *f;
    });
    let turn = |f: &mut Flow| {
        if is_of(f, &ask.key) {
            f.ingress = origin.ingress;
            f.link = origin.link;
        }
    };
    // The client's entry may be new again where the answers' is established.
    if t.flow(Age::Established, &notes.back, turn).is_none()
        && t.flow(Age::New, &notes.back, turn).is_none()
        && matches!(age, Age::New)
        // Promoted or evicted since it was hit, it told nothing that could be written.
        && known.is_some()
    {
        // As when it began: nothing of what the client said since was said by the task.
        notes.new.packets = 1;
        notes.new.tcp &= tcp::SYN;
        let _ = t.begin_flow(&notes.back, &notes.new);
    }
}

/// Moves both entries of a flow to the table that never evicts. When that is full they stay: worse, but alive.
#[inline(always)]
pub fn promote<P: Packet, T: Tables>(p: &P, t: &T, reply: &FlowKey, notes: &mut Notes) {
    other_side(
        &mut notes.back,
        notes.hit.net,
        &notes.hit.to,
        reply.proto,
        flow::WIRE,
    );
    if matches!(t.promote_flow(reply), Inserted::Full)
        || matches!(t.promote_flow(&notes.back), Inserted::Full)
    {
        t.count(notes.hit.front, |c| c.unpromoted += 1);
    }
    if notes.hit.flags & flow::COUNTED != 0 && !t.is_dry() {
        least::add(t, notes.hit.backend, p.now());
    }
}

/// Whether the client of a flow has no part in it any more, so that a SYN of its opens another one: it closed it, or
/// the task reset it. So does the SYN of one whose answers' entry is gone, for nothing that its task says could come
/// back: who sends a SYN again must be answered then.
#[inline(always)]
pub fn is_left<T: Tables>(t: &T, key: &FlowKey, task_net: u32, notes: &mut Notes) -> bool {
    let Notes {
        back, hit, taken, ..
    } = notes;
    other_side(back, task_net, &hit.to, key.proto, flow::REPLY);
    taken.set(tcp::RST as u32);
    let _ = t.flow(hit.age, back, |f| {
        if is_of(f, key) {
            taken.set(f.tcp as u32);
        }
    });
    hit.tcp & (tcp::FIN | tcp::RST) != 0 || taken.get() as u8 & tcp::RST != 0
}

/// Forgets both entries of the flow that was hit, the answers' only if it is this flow's.
#[inline(always)]
pub fn forget<T: Tables>(t: &T, key: &FlowKey, task_net: u32, notes: &mut Notes) {
    other_side(
        &mut notes.back,
        task_net,
        &notes.hit.to,
        key.proto,
        flow::REPLY,
    );
    if matches!(
        t.flow(notes.hit.age, &notes.back, |f| is_of(f, key)),
        Some(true)
    ) {
        t.end_flow(notes.hit.age, &notes.back);
    }
    t.end_flow(notes.hit.age, key);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Free,
    Ours,
    Theirs,
}

/// Nanoseconds after which a flow that its task never accepted, or one of datagrams, may be taken over.
const IDLE: u64 = 180_000_000_000;
/// What is noted of a reply entry beside its bits of [`tcp`]: it is of the same wire tuple.
const OURS: u32 = 1 << 8;
/// The same: it was idle for [`IDLE`].
const IS_IDLE: u32 = 1 << 9;

/// Whether the reply entry of `notes.new` is free. One of another connection that is over makes room.
#[inline(always)]
fn taken<T: Tables>(t: &T, age: Age, syn: bool, key: &FlowKey, notes: &mut Notes) -> Taken {
    let Notes {
        back,
        lost,
        new,
        taken,
        asked,
        ..
    } = notes;
    let found = t.flow(age, back, |f| {
        let ours = is_of(f, key);
        let idle =
            new.since.saturating_sub(f.last) > IDLE && (matches!(age, Age::New) || f.proto != TCP);
        taken.set(f.tcp as u32 | (ours as u32 * OURS) | (idle as u32 * IS_IDLE));
        lost.src = f.client;
        lost.dst = f.service;
        lost.net = f.net;
        lost.sport = f.cport;
        lost.dport = f.port;
        lost.proto = f.proto;
        lost.side = flow::WIRE;
        lost.pad = [0; 2];
    });
    if found.is_none() {
        return Taken::Free;
    }
    let mut over = false;
    if syn {
        // What the client said last stands in its own entry, which may be new still, or again, where the
        // answers' is established.
        // A client that opens anew and of whose own entry nothing is left, has said its last word on the old one.
        let ours = taken.get() & OURS != 0;
        asked.set(ours as u32 * tcp::FIN as u32);
        if t.flow(age, lost, |f| asked.set(f.tcp as u32)).is_none()
            && matches!(age, Age::Established)
        {
            let _ = t.flow(Age::New, lost, |f| asked.set(f.tcp as u32));
        }
        over = tcp::is_over(taken.get() as u8, asked.get() as u8);
    }
    let said = taken.get();
    if !over && said & OURS != 0 {
        return Taken::Ours;
    }
    if !over && said & IS_IDLE == 0 {
        return Taken::Theirs;
    }
    // Both entries, or the other would lead its client's next connection to a task that answers to another.
    t.end_flow(age, back);
    t.end_flow(age, lost);
    if matches!(age, Age::Established) {
        t.end_flow(Age::New, lost);
    }
    Taken::Free
}

/// Begins a flow from a wire tuple to a local task; `notes.hit` then says how to translate.
///
/// The task must be able to tell two clients apart that differ only in the address they asked for:
/// when the reply tuple is taken, another client *port* is shown to the task, never another address.
///
/// # Errors
/// When the task has no address of the family, or no reply tuple is free.
#[inline(always)]
pub fn begin<P: Packet, T: Tables>(
    p: &P,
    t: &T,
    ip: &Headers,
    ask: &Ask,
    task: &Endpoint,
    notes: &mut Notes,
) -> Result<(), Drop> {
    let key = &ask.key;
    let addr = if ip.v6 { task.addr6 } else { task.addr4 };
    if addr.is_any() {
        return Err(Drop::NoAddress);
    }
    let now = p.now();
    let new = &mut notes.new;
    new.client = key.src;
    new.service = key.dst;
    new.seen = key.src;
    new.task = addr;
    new.packets = 1;
    new.bytes = p.len() as u64;
    new.last = now;
    new.since = now;
    new.net = key.net;
    new.backend = task.id;
    new.ingress = ask.origin.ingress;
    new.link = ask.origin.link;
    new.front = ask.front.service;
    new.cport = key.sport;
    new.port = key.dport;
    new.seen_port = key.sport;
    new.task_port = ask.front.target(key.dport);
    new.flags = ask.origin.flags;
    new.tcp = tcp_bits(ip);
    new.proto = key.proto;
    if least::is_least(&ask.front, key.proto) {
        new.flags |= flow::COUNTED;
    }
    if key.src.same(&addr) {
        // A task that reached itself: its stack would refuse a packet from its own address. The address it
        // asked for is not its own, and its answer to that leaves by the interface it came in by.
        new.seen = key.dst;
        new.flags |= flow::HAIRPIN;
    }
    to_task(&mut notes.hit, &notes.new, Age::New);
    other_side(
        &mut notes.back,
        task.net,
        &notes.hit.to,
        key.proto,
        flow::REPLY,
    );
    let remapped = place(t, ip, key, notes)?;
    match t.begin_flow(key, &notes.new) {
        Inserted::Yes => {}
        Inserted::Exists if t.is_dry() => {}
        Inserted::Exists => {
            let _ = t.flow(Age::New, key, |f| *f = notes.new);
        }
        Inserted::Full => return Err(Drop::FlowTableFull),
    }
    t.count(ask.front.service, |c| {
        c.flows += 1;
        c.remapped += remapped as u64;
    });
    Ok(())
}

/// The same wire tuple, perhaps by another way in: its answers must know.
#[inline(always)]
fn lead<T: Tables>(t: &T, age: Age, notes: &Notes) {
    if t.is_dry() {
        return;
    }
    let _ = t.flow(age, &notes.back, |f| {
        f.ingress = notes.new.ingress;
        f.link = notes.new.link;
    });
}

/// Finds a client port under which the reply entry is free, or ours already. True when it is not the client's own.
#[inline(always)]
fn place<T: Tables>(t: &T, ip: &Headers, key: &FlowKey, notes: &mut Notes) -> Result<bool, Drop> {
    let syn = ip.is_syn();
    let mut attempt = 0;
    while attempt < TRIES {
        if attempt > 0 {
            // A seed that followed the attempt would cancel it out.
            let hash = ring_hash(
                0, &key.src, key.sport, &key.dst, key.dport, key.proto, attempt,
            );
            let port = Be16::new(1024 + (hash % 64_512) as u16);
            notes.new.seen_port = port;
            notes.hit.to.sport = port;
            notes.back.dport = port;
        }
        let remapped = attempt > 0;
        attempt += 1;
        match taken(t, Age::Established, syn, key, notes) {
            Taken::Theirs => continue,
            Taken::Ours => {
                lead(t, Age::Established, notes);
                return Ok(remapped);
            }
            Taken::Free => {}
        }
        match t.begin_flow(&notes.back, &notes.new) {
            Inserted::Yes => return Ok(remapped),
            Inserted::Full => return Err(Drop::FlowTableFull),
            Inserted::Exists => {
                match taken(t, Age::New, syn, key, notes) {
                    Taken::Ours => {
                        lead(t, Age::New, notes);
                        return Ok(remapped);
                    }
                    // One that was over is gone now.
                    Taken::Free
                        if t.is_dry()
                            || matches!(t.begin_flow(&notes.back, &notes.new), Inserted::Yes) =>
                    {
                        return Ok(remapped);
                    }
                    Taken::Free | Taken::Theirs => {}
                }
            }
        }
    }
    Err(Drop::NoFreePort)
}
