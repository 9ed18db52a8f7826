//! Answers on their way out of a sandbox's UDP socket.
//!
//! Half of what an answer costs is the kernel's way from this socket to the client's. Answers of one turn to one
//! client take it together, as segments of one send (`UDP_SEGMENT`); the client receives them one by one, as ever.

use std::{
    io::{self, IoSlice},
    iter,
    net::SocketAddr,
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use tokio::{io::Interest, net::UdpSocket};

/// An answer and who asked.
pub(super) type Addressed = (SocketAddr, Vec<u8>);

/// Segments that every kernel takes in one send (`UDP_MAX_SEGMENTS` before Linux 6.9).
const SEGMENTS_MAX: usize = 64;
/// Bytes of all of them together: what one datagram could carry, over either family.
const SEND_BYTES_MAX: usize = 65_487;

/// Sends all of `answers`; says how many could not be handed to the socket.
pub(super) fn send(socket: &UdpSocket, mut answers: Vec<Addressed>) -> u64 {
    let mut unsent = 0;
    for run in runs(&mut answers) {
        // Refused where the loopback device takes less than a segment in one piece: then by themselves.
        if run.len() == 1 || send_run(socket, run).is_err() {
            let failed =
                |(client, answer): &&Addressed| socket.try_send_to(answer, *client).is_err();
            unsent += run.iter().filter(failed).count() as u64;
        }
    }
    unsent
}

/// Orders `answers` into runs that one send can carry: to one client, and all as long as the first, but for the last,
/// which may be shorter. Between answers over UDP there is no order to keep.
fn runs(answers: &mut [Addressed]) -> impl Iterator<Item = &[Addressed]> {
    answers.sort_by(|(client, answer), (other, more)| {
        client.cmp(other).then(more.len().cmp(&answer.len()))
    });
    let mut rest = &answers[..];
    iter::from_fn(move || {
        let (client, first) = rest.first()?;
        let most = SEGMENTS_MAX.min(SEND_BYTES_MAX / first.len().max(1)).max(1);
        let ours = rest.iter().take(most).take_while(|(to, _)| to == client);
        let equal = ours
            .clone()
            .take_while(|(_, answer)| answer.len() == first.len());
        let (equal, ours) = (equal.count(), ours.count());
        let (run, after) = rest.split_at(ours.min(equal + 1));
        rest = after;
        Some(run)
    })
}

fn send_run(socket: &UdpSocket, run: &[Addressed]) -> io::Result<()> {
    let Some((client, first)) = run.first() else {
        return Ok(());
    };
    let segment = u16::try_from(first.len()).map_err(io::Error::other)?;
    let pieces: Vec<IoSlice<'_>> = run.iter().map(|(_, answer)| IoSlice::new(answer)).collect();
    let together = [ControlMessage::UdpGsoSegments(&segment)];
    let to = SockaddrStorage::from(*client);
    socket.try_io(Interest::WRITABLE, || {
        sendmsg(
            socket.as_raw_fd(),
            &pieces,
            &together,
            MsgFlags::empty(),
            Some(&to),
        )?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn every_answer_goes_out_once_in_a_run_that_one_send_can_carry(
            asked in collection::vec(
                (1_u16..4, prop_oneof![4 => Just(45_usize), 1 => 12_usize..15, 1 => 12_usize..4096]),
                0..400,
            ),
        ) {
            let mut answers: Vec<Addressed> = asked
                .iter()
                .enumerate()
                .map(|(number, (client, len))| {
                    let mut answer = vec![0; *len];
                    answer[..2].copy_from_slice(&(number as u16).to_be_bytes());
                    (SocketAddr::from(([127, 0, 0, 1], *client)), answer)
                })
                .collect();
            let mut before = answers.clone();
            let runs: Vec<Vec<Addressed>> = runs(&mut answers).map(<[_]>::to_vec).collect();
            for run in &runs {
                let (client, first) = &run[0];
                let (_, last) = &run[run.len() - 1];
                prop_assert!(run.len() <= SEGMENTS_MAX);
                prop_assert!(run.iter().map(|(_, answer)| answer.len()).sum::<usize>() <= SEND_BYTES_MAX);
                prop_assert!(run.iter().all(|(to, _)| to == client));
                prop_assert!(run[..run.len() - 1].iter().all(|(_, answer)| answer.len() == first.len()));
                prop_assert!(last.len() <= first.len());
            }
            let mut after = runs.concat();
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
        }

        #[test]
        fn equal_answers_to_one_client_take_one_send(clients in 1_u16..4, each in 1_usize..=16) {
            let answers = (0..each).flat_map(|_| 1..=clients);
            let mut answers: Vec<Addressed> = answers
                .map(|client| (SocketAddr::from(([127, 0, 0, 1], client)), vec![0; 45]))
                .collect();
            prop_assert_eq!(runs(&mut answers).count(), usize::from(clients));
        }
    }
}
