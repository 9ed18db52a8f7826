//! A question about a packet, the packet that asks it, and what the programs answer. Pure.
//!
//! The programs themselves decide, over the live maps, in a test run that changes nothing
//! ([`weft_abi::DRY_RUN`]): what is explained here cannot differ from what happens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use weft_abi::{Done, Drop, Mac};
use weft_types::service::Protocol;

use crate::probe::checksum;

/// A packet that somebody may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// From where.
    pub client: SocketAddr,
    /// To where: a published port on a host, a service's address, a task.
    pub server: SocketAddr,
    /// How.
    pub protocol: Protocol,
}

/// What one program of this node decides about the packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Name of the program.
    pub program: String,
    /// The link that it stands at.
    pub place: String,
    /// What it decides, in words.
    pub decision: String,
    /// Whether that is the packet's end.
    pub dropped: bool,
    /// What the decision rests on, most general first.
    pub why: Vec<String>,
    /// The packet as it leaves the program.
    pub packet: String,
}

/// What to run dry, and on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rehearsal {
    pub(crate) program: &'static str,
    /// Interface that the packet is at.
    pub(crate) link: u32,
    /// Whether it came in by it, rather than leaving by it.
    pub(crate) received: bool,
    /// Network and outer IPv4 source, where it came out of the tunnel.
    pub(crate) tunnel: Option<(u32, Ipv4Addr)>,
    pub(crate) frame: Vec<u8>,
}

/// What the program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rehearsed {
    /// Number of a [`Done`] or [`Drop`].
    pub(crate) reason: u32,
    /// Interface, or IPv4 word of the node's address, that it goes to.
    pub(crate) place: u32,
    pub(crate) frame: Vec<u8>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(Done),
    Drop(Drop),
}

impl Rehearsed {
    /// What was decided; none when the program said a number that has no meaning here.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let number = u8::try_from(self.reason).ok()?;
        let done = Done::from_u8(number).map(Outcome::Done);
        done.or_else(|| Drop::from_u8(number).map(Outcome::Drop))
    }
}

impl Outcome {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Done(done) => done.text(),
            Self::Drop(drop) => drop.text(),
        }
    }
}

/// Addresses, ports and protocol of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) proto: u8,
}

impl Tuple {
    pub(crate) fn of(question: &Question) -> Self {
        Self {
            src: question.client,
            dst: question.server,
            proto: question.protocol.number(),
        }
    }

    /// The answer to it.
    pub(crate) fn turned(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            proto: self.proto,
        }
    }
}

impl std::fmt::Display for Tuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} -> {}/{}",
            self.src,
            self.dst,
            protocol_name(self.proto)
        )
    }
}

pub(crate) fn protocol_name(number: u8) -> String {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let known = all.iter().find(|known| known.number() == number);
    known.map_or_else(|| number.to_string(), |known| known.as_str().to_owned())
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A frame with this tuple and no payload. With `opening`, TCP's first segment; else a later one.
/// None when the two addresses are of different families.
pub(crate) fn frame(tuple: &Tuple, to: Mac, from: Mac, opening: bool) -> Option<Vec<u8>> {
    let ports = [tuple.src.port(), tuple.dst.port()].map(u16::to_be_bytes);
    let mut segment = ports.concat();
    match tuple.proto {
        TCP => segment.extend([
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            u8::from(!opening),
            5 << 4,
            if opening { SYN } else { ACK },
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]),
        UDP => segment.extend([0, 8, 0, 0]),
        // SCTP: verification tag and checksum, which nobody looks at.
        _ => segment.extend([0; 8]),
    }
    let length = u16::try_from(segment.len()).ok()?;
    let (ether, pseudo, mut header) = match (tuple.src.ip(), tuple.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let addresses = [src.octets(), dst.octets()].concat();
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, tuple.proto, 0, 0]);
            header.extend(&addresses);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum);
            ([8, 0], addresses, header)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let addresses = [src.octets(), dst.octets()].concat();
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([tuple.proto, 64]);
            header.extend(&addresses);
            ([0x86, 0xdd], addresses, header)
        }
        _ => return None,
    };
    let at = match tuple.proto {
        TCP => Some(16),
        UDP => Some(6),
        _ => None,
    };
    if let Some(at) = at {
        let mut summed = pseudo;
        summed.extend([0, tuple.proto]);
        summed.extend(length.to_be_bytes());
        summed.extend(&segment);
        segment[at..at + 2].copy_from_slice(&checksum(&summed));
    }
    let mut frame = [to, from].concat();
    frame.extend(ether);
    frame.append(&mut header);
    frame.append(&mut segment);
    Some(frame)
}

/// Destination and source of a frame's Ethernet header.
pub(crate) fn macs(frame: &[u8]) -> Option<(Mac, Mac)> {
    Some((
        frame.get(..6)?.try_into().ok()?,
        frame.get(6..12)?.try_into().ok()?,
    ))
}

/// The tuple of a frame without options or extension headers, as [`frame`] makes them.
pub(crate) fn tuple(frame: &[u8]) -> Option<Tuple> {
    fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
        frame.get(at..at + N)?.try_into().ok()
    }
    let (src, dst, proto, ports): (IpAddr, IpAddr, u8, usize) = match bytes(frame, 12)? {
        [8, 0] => (
            Ipv4Addr::from(bytes::<4>(frame, 26)?).into(),
            Ipv4Addr::from(bytes::<4>(frame, 30)?).into(),
            *frame.get(23)?,
            34,
        ),
        [0x86, 0xdd] => (
            Ipv6Addr::from(bytes::<16>(frame, 22)?).into(),
            Ipv6Addr::from(bytes::<16>(frame, 38)?).into(),
            *frame.get(20)?,
            54,
        ),
        _ => return None,
    };
    let port = |at| bytes::<2>(frame, at).map(u16::from_be_bytes);
    Some(Tuple {
        src: SocketAddr::new(src, port(ports)?),
        dst: SocketAddr::new(dst, port(ports + 2)?),
        proto,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        prop_oneof![
            any::<(u32, u32)>().prop_map(|(a, b)| (
                IpAddr::from(Ipv4Addr::from(a)),
                IpAddr::from(Ipv4Addr::from(b))
            )),
            any::<(u128, u128)>().prop_map(|(a, b)| (
                IpAddr::from(Ipv6Addr::from(a)),
                IpAddr::from(Ipv6Addr::from(b))
            )),
        ]
    }

    proptest! {
        #[test]
        fn a_frame_says_what_was_asked(
            (src, dst) in addresses(),
            ports in any::<(u16, u16)>(),
            proto in prop_oneof![Just(6_u8), Just(17), Just(132)],
            opening in any::<bool>(),
        ) {
            let asked = Tuple {
                src: SocketAddr::new(src, ports.0),
                dst: SocketAddr::new(dst, ports.1),
                proto,
            };
            let frame = frame(&asked, [2; 6], [4; 6], opening).unwrap();
            prop_assert_eq!(tuple(&frame), Some(asked));
            prop_assert_eq!(macs(&frame), Some(([2; 6], [4; 6])));
            let (segment, addresses) = if src.is_ipv4() {
                prop_assert_eq!(checksum(&frame[14..34]), [0, 0]);
                (&frame[34..], &frame[26..34])
            } else {
                (&frame[54..], &frame[22..54])
            };
            if proto != 132 {
                let pseudo = [addresses, &[0, proto, 0, segment.len() as u8], segment].concat();
                prop_assert_eq!(checksum(&pseudo), [0, 0]);
            }
            if proto == TCP {
                prop_assert_eq!(segment[13], if opening { SYN } else { ACK });
            }
        }

        #[test]
        fn no_bytes_confuse_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (tuple(&bytes), macs(&bytes));
        }
    }

    #[test]
    fn two_families_make_no_packet() {
        let question = Question {
            client: "192.0.2.1:1".parse().unwrap(),
            server: "[2001:db8::1]:1".parse().unwrap(),
            protocol: Protocol::Tcp,
        };
        assert_eq!(frame(&Tuple::of(&question), [0; 6], [0; 6], true), None);
    }

    #[test]
    fn no_two_reasons_read_alike_and_none_says_unknown() {
        let done = Done::ALL.iter().map(|done| done.text());
        let texts: Vec<&str> = done
            .chain(Drop::ALL.iter().map(|drop| drop.text()))
            .collect();
        let each: std::collections::BTreeSet<&&str> = texts.iter().collect();
        assert_eq!(each.len(), texts.len(), "two reasons read alike: {texts:?}");
        for text in texts {
            assert!(
                text.len() > 10 && !text.to_lowercase().contains("unknown"),
                "{text:?} explains nothing"
            );
        }
    }

    #[test]
    fn every_number_the_programs_say_has_words() {
        for reason in 0..=255 {
            let said = Rehearsed {
                reason,
                place: 0,
                frame: Vec::new(),
            };
            let known = Done::ALL.iter().any(|done| *done as u32 == reason)
                || Drop::ALL.iter().any(|drop| *drop as u32 == reason);
            assert_eq!(said.outcome().is_some(), known);
        }
    }
}
