//! Packets that come at every moment while a flow is forgotten. What they do to the tables is what
//! `weft_ebpf::conntrack` does, whose own rows are in `ebpf/tests/rows/list`.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::Duration,
};

use weft_abi::{Addr, Be16};

use super::*;

const NOW: Duration = Duration::from_secs(1000);
const LATER: Duration = Duration::from_secs(1001);
const OPEN: u8 = tcp::SYN | tcp::DATA;
const CLOSED: u8 = OPEN | tcp::FIN;

fn addr(digit: u32) -> Addr {
    Addr::from_words([0, 0, 0, digit])
}

/// What a flow of the client's port 4000 to this address looks like; the task is the same one.
fn entry(service: u32, at: Duration, bits: u8) -> Flow {
    Flow {
        client: addr(1),
        service: addr(service),
        seen: addr(1),
        task: addr(3),
        last: at.as_nanos() as u64,
        since: at.as_nanos() as u64,
        net: 9,
        backend: 7,
        cport: Be16::new(4000),
        port: Be16::new(8000),
        seen_port: Be16::new(4000),
        task_port: Be16::new(80),
        tcp: bits,
        proto: 6,
        ..Flow::default()
    }
}

fn wire(service: u32) -> FlowKey {
    FlowKey {
        src: addr(1),
        dst: addr(service),
        net: 9,
        sport: Be16::new(4000),
        dport: Be16::new(8000),
        proto: 6,
        side: flow::WIRE,
        ..FlowKey::default()
    }
}

fn reply() -> FlowKey {
    FlowKey {
        src: addr(3),
        dst: addr(1),
        net: 9,
        sport: Be16::new(80),
        dport: Be16::new(4000),
        proto: 6,
        side: flow::REPLY,
        ..FlowKey::default()
    }
}

type Table = RefCell<HashMap<FlowKey, Flow>>;

/// Tables to which a packet comes before one of the calls.
struct Kernel {
    established: Table,
    young: Table,
    calls: Cell<u32>,
    at: u32,
    comes: fn(&Kernel),
    /// Looks among the young before which another one comes, if the first came.
    again: Cell<Option<u32>>,
    clock: Cell<Duration>,
    /// What was put back.
    puts: RefCell<Vec<(FlowKey, Flow)>>,
}

impl Kernel {
    fn new(at: u32, comes: fn(&Kernel), bits: [u8; 2]) -> Self {
        let long_ago = Duration::from_secs(900);
        let established = HashMap::from([
            (wire(2), entry(2, long_ago, bits[0])),
            (reply(), entry(2, long_ago, bits[1])),
        ]);
        Self {
            established: RefCell::new(established),
            young: Table::default(),
            calls: Cell::new(0),
            at,
            comes,
            again: Cell::new(None),
            clock: Cell::new(NOW),
            puts: RefCell::default(),
        }
    }

    fn called(&self) {
        if self.calls.replace(self.calls.get() + 1) == self.at {
            (self.comes)(self);
        }
    }

    fn found(&self, key: &FlowKey) -> Option<Flow> {
        let young = || self.young.borrow().get(key).copied();
        self.established.borrow().get(key).copied().or_else(young)
    }

    /// A SYN to an address, which another flow of the task's port has to leave.
    fn syn(&self, service: u32) {
        for table in [&self.established, &self.young] {
            let mut table = table.borrow_mut();
            table.remove(&reply());
            table.remove(&wire(2));
        }
        let begun = entry(service, self.clock.get(), tcp::SYN);
        let mut young = self.young.borrow_mut();
        young.insert(reply(), begun);
        young.insert(wire(service), begun);
    }

    /// The task accepts it and answers.
    fn promote(&self) {
        let mut established = self.established.borrow_mut();
        for (key, mut flow) in self.young.borrow_mut().drain() {
            flow.tcp = OPEN;
            established.entry(key).or_insert(flow);
        }
    }

    /// A late segment of the client's.
    fn segment(&self) {
        if let Some(known) = self.established.borrow_mut().get_mut(&wire(2)) {
            known.last = NOW.as_nanos() as u64;
            return;
        }
        let begun = entry(2, NOW, tcp::DATA);
        let mut young = self.young.borrow_mut();
        young.insert(wire(2), begun);
        if !self.established.borrow().contains_key(&reply()) {
            young.entry(reply()).or_insert(begun);
        }
    }
}

impl FlowTables for Kernel {
    fn established(&self, key: &FlowKey) -> Result<Option<Flow>> {
        self.called();
        Ok(self.established.borrow().get(key).copied())
    }

    fn young(&self, key: &FlowKey) -> Result<Option<Flow>> {
        self.called();
        if self.calls.get() > self.at {
            match self.again.get() {
                Some(0) => {
                    self.again.set(None);
                    self.clock.set(LATER);
                    self.syn(2);
                }
                Some(looks) => self.again.set(Some(looks - 1)),
                None => {}
            }
        }
        Ok(self.young.borrow().get(key).copied())
    }

    fn take(&self, key: &FlowKey) -> Result<Option<Flow>> {
        self.called();
        Ok(self.established.borrow_mut().remove(key))
    }

    fn put_back(&self, key: &FlowKey, flow: &Flow) -> Result<()> {
        self.called();
        self.puts.borrow_mut().push((*key, *flow));
        self.established.borrow_mut().entry(*key).or_insert(*flow);
        Ok(())
    }
}

fn seen(kernel: &Kernel) -> Pair {
    let entries = kernel.established.borrow().clone().into_iter().collect();
    crate::flows::pairs(entries).next().expect("a flow")
}

/// Forgets the flow while a packet comes at every moment, before the first look to after the last step, and gives
/// the tables to `check` each time.
fn whenever(bits: [u8; 2], comes: fn(&Kernel), check: impl Fn(&Kernel, &str)) {
    for at in 0.. {
        let kernel = Kernel::new(at, comes, bits);
        let pair = seen(&kernel);
        forget(&kernel, &pair, |pair| Ok(pair.is_dead(NOW))).expect("nothing fails");
        let came = kernel.calls.get() > at;
        if !came {
            comes(&kernel);
        }
        check(&kernel, &format!("before call {at}"));
        if !came {
            assert!(at >= 3, "only {at} moments");
            return;
        }
    }
}

/// The flow that began now, to this address, is whole, and nothing leads elsewhere.
fn is_whole(kernel: &Kernel, service: u32, moment: &str) {
    for key in [wire(service), reply()] {
        let side = key.side;
        let found = kernel.found(&key);
        let found = found.unwrap_or_else(|| panic!("{moment}: side {side} is gone"));
        let begun = kernel.clock.get().as_nanos() as u64;
        assert_eq!(found.since, begun, "{moment}: side {side}");
        assert_eq!(found.service, addr(service), "{moment}: side {side}");
    }
}

/// Both sides closed it, its client reset it, or its task did.
const ENDS: [[u8; 2]; 3] = [
    [CLOSED, CLOSED],
    [OPEN | tcp::RST, OPEN],
    [OPEN, OPEN | tcp::RST],
];

#[test]
fn a_connection_that_a_port_opens_while_its_last_is_forgotten_is_whole() {
    for bits in ENDS {
        let opens = |kernel: &Kernel| {
            kernel.syn(2);
            kernel.promote();
        };
        whenever(bits, opens, |kernel, moment| is_whole(kernel, 2, moment));
        let asks = |kernel: &Kernel| kernel.syn(2);
        whenever(bits, asks, |kernel, moment| is_whole(kernel, 2, moment));
    }
}

#[test]
fn a_connection_that_takes_the_place_of_one_that_is_forgotten_is_whole() {
    for bits in ENDS {
        let opens = |kernel: &Kernel| {
            kernel.syn(4);
            kernel.promote();
        };
        whenever(bits, opens, |kernel, moment| is_whole(kernel, 4, moment));
    }
}

#[test]
fn a_port_that_is_used_twice_while_its_flow_is_forgotten_has_its_last_connection() {
    let opens = |kernel: &Kernel| {
        kernel.syn(2);
        kernel.promote();
    };
    let mut times = 0;
    for (at, looks) in (0..9).flat_map(|at| (0..4).map(move |looks| (at, looks))) {
        let kernel = Kernel::new(at, opens, [CLOSED, CLOSED]);
        kernel.again.set(Some(looks));
        let pair = seen(&kernel);
        forget(&kernel, &pair, |pair| Ok(pair.is_dead(NOW))).expect("nothing fails");
        if kernel.again.get().is_none() {
            is_whole(
                &kernel,
                2,
                &format!("before call {at}, and {looks} looks later"),
            );
            times += 1;
        }
    }
    assert!(times > 0, "it never came twice");
}

#[test]
fn whoever_is_led_to_a_task_while_a_flow_is_forgotten_is_answered() {
    for bits in ENDS {
        whenever(bits, Kernel::segment, |kernel, moment| {
            if kernel.found(&wire(2)).is_some() {
                let answers = kernel.found(&reply());
                assert!(answers.is_some(), "{moment}: answers lead nowhere");
            }
            // It may have been a SYN, which is about to begin another: nothing of the old may come in its way.
            for (key, put) in kernel.puts.borrow().iter() {
                let left = key.side == flow::WIRE && put.tcp & (tcp::FIN | tcp::RST) != 0;
                assert!(!left, "{moment}: put back, though its client left it");
            }
        });
    }
}

#[test]
fn what_is_over_is_forgotten_and_what_is_not_is_left() {
    let nothing: fn(&Kernel) = |_| {};
    for (bits, over) in ENDS
        .map(|bits| (bits, true))
        .into_iter()
        .chain([([OPEN, OPEN], false), ([CLOSED, OPEN], false)])
    {
        let kernel = Kernel::new(u32::MAX, nothing, bits);
        let pair = seen(&kernel);
        forget(&kernel, &pair, |pair| Ok(pair.is_dead(NOW))).expect("nothing fails");
        let left = kernel.established.borrow().len();
        assert_eq!(left, if over { 0 } else { 2 }, "{bits:?}");
    }
}

#[test]
fn an_answers_entry_alone_lives_as_long_as_its_clients_new_one() {
    let kernel = Kernel::new(u32::MAX, |_| {}, [OPEN, OPEN | tcp::RST]);
    kernel.established.borrow_mut().remove(&wire(2));
    kernel
        .young
        .borrow_mut()
        .insert(wire(2), entry(2, NOW, OPEN));
    let pair = seen(&kernel);
    assert!(pair.is_dead(NOW), "alone it would be over");
    forget(&kernel, &pair, |pair| Ok(pair.is_dead(NOW))).expect("nothing fails");
    assert!(kernel.found(&reply()).is_some());
}

#[test]
fn an_answers_entry_that_is_anothers_now_is_not_taken_for_ones_own() {
    let kernel = Kernel::new(u32::MAX, |_| {}, [OPEN | tcp::RST, OPEN]);
    let pair = seen(&kernel);
    let other = entry(4, Duration::from_secs(950), CLOSED);
    kernel.established.borrow_mut().insert(reply(), other);
    kernel.established.borrow_mut().insert(wire(4), other);
    forget(&kernel, &pair, |pair| Ok(pair.is_dead(NOW))).expect("nothing fails");
    assert!(kernel.found(&wire(2)).is_none());
    assert_eq!(
        kernel.found(&reply()),
        Some(other),
        "its client's goes first"
    );
}
