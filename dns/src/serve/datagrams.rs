//! A sandbox's UDP socket.

use std::{io, net::SocketAddr, sync::Arc};

use hickory_server::server::Request;
use tokio::{net::UdpSocket, task, time};

use super::{
    BROKEN_PAUSE, Sandbox,
    answer::Verdict,
    sending::{self, Addressed},
};
use crate::{reply::UDP_BYTES, wire::Transport};

/// Packets answered before other tasks get a turn.
const BATCH: usize = 64;

pub(super) async fn serve(sandbox: Arc<Sandbox>, socket: Arc<UdpSocket>) {
    loop {
        if let Err(error) = socket.readable().await {
            tracing::warn!(%error, "cannot wait for DNS packets of a sandbox");
            time::sleep(BROKEN_PAUSE).await;
            continue;
        }
        loop {
            match drain(&sandbox, &socket) {
                Ok(Waiting::None) => break,
                // Who asks much has asked again by now: to look once more costs less than to sleep and be woken.
                Ok(Waiting::Perhaps) => task::yield_now().await,
                Err(error) => {
                    tracing::warn!(%error, "cannot receive DNS packets of a sandbox");
                    time::sleep(BROKEN_PAUSE).await;
                    break;
                }
            }
        }
    }
}

/// Whether more packets wait.
enum Waiting {
    /// There was none at all.
    None,
    /// Some were answered.
    Perhaps,
}

/// Answers what waits on `socket`, at most a batch; says whether more may wait.
fn drain(sandbox: &Arc<Sandbox>, socket: &Arc<UdpSocket>) -> io::Result<Waiting> {
    let mut answers = Vec::new();
    let waiting = take(sandbox, socket, &mut answers);
    let unsent = sending::send(socket, answers);
    sandbox.shared.counters.unsent.add(unsent);
    waiting
}

/// Takes what waits on `socket`, at most a batch, and puts what is known here into `answers`.
fn take(
    sandbox: &Arc<Sandbox>,
    socket: &Arc<UdpSocket>,
    answers: &mut Vec<Addressed>,
) -> io::Result<Waiting> {
    let mut packet = [0; UDP_BYTES as usize];
    let zones = sandbox.shared.zones.load();
    let asker = sandbox.asker.load();
    for taken in 0..BATCH {
        let (len, client) = match socket.try_recv_from(&mut packet) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken == 0 => {
                return Ok(Waiting::None);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // An earlier answer met a closed port; the socket is fine.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        match sandbox.judge(&packet[..len], client, &asker, &zones, Transport::Udp) {
            Verdict::Answer(answer) => answers.push((client, answer)),
            Verdict::Forward(request) => {
                let refused = forward(sandbox, socket, request, client);
                answers.extend(refused.map(|answer| (client, answer)));
            }
            Verdict::Drop => {}
        }
    }
    Ok(Waiting::Perhaps)
}

/// Has `request` asked outside; an answer at once where too many are being asked.
fn forward(
    sandbox: &Arc<Sandbox>,
    socket: &Arc<UdpSocket>,
    request: Box<Request>,
    client: SocketAddr,
) -> Option<Vec<u8>> {
    let Ok(slot) = Arc::clone(&sandbox.forwards).try_acquire_owned() else {
        return Some(sandbox.refuse(&request, Transport::Udp));
    };
    let (own, socket) = (Arc::clone(sandbox), Arc::clone(socket));
    sandbox.spawn(async move {
        let answer = own.forward(&request, Transport::Udp).await;
        if socket.send_to(&answer, client).await.is_err() {
            own.shared.counters.unsent.up();
        }
        drop(slot);
    });
    None
}
