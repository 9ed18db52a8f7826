//! A sandbox's TCP listener and its connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time,
};

use super::{BROKEN_PAUSE, Sandbox, answer::Verdict};
use crate::{
    framed::{read_framed, write_framed},
    wire::Transport,
};

/// How long a client may take for one message, and for reading one answer.
const IDLE: Duration = Duration::from_secs(10);

pub(super) async fn serve(sandbox: Arc<Sandbox>, listener: TcpListener) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Without descriptors the connection stays in the queue: asking again at once would spin.
                tracing::debug!(%error, "cannot accept a DNS connection of a sandbox");
                time::sleep(BROKEN_PAUSE).await;
                continue;
            }
        };
        let own = Arc::clone(&sandbox.connections).try_acquire_owned();
        let all = Arc::clone(&sandbox.shared.connections).try_acquire_owned();
        let (Ok(own), Ok(all)) = (own, all) else {
            sandbox.shared.counters.connections_refused.up();
            continue;
        };
        let serving = Arc::clone(&sandbox);
        sandbox.spawn(async move {
            // The client went away or is silent: either way the connection is over.
            let _over = converse(&serving, stream, client).await;
            drop((own, all));
        });
    }
}

/// Takes requests one by one: a client holds as many answers as it reads.
async fn converse(sandbox: &Sandbox, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
    loop {
        let packet = time::timeout(IDLE, read_framed(&mut stream)).await??;
        let verdict = sandbox.judge(
            &packet,
            client,
            &sandbox.asker.load(),
            &sandbox.shared.zones.load(),
            Transport::Tcp,
        );
        let answer = match verdict {
            Verdict::Answer(answer) => answer,
            Verdict::Drop => continue,
            Verdict::Forward(request) => match sandbox.forwards.try_acquire() {
                Ok(_slot) => sandbox.forward(&request, Transport::Tcp).await,
                Err(_) => sandbox.refuse(&request, Transport::Tcp),
            },
        };
        let written = time::timeout(IDLE, write_framed(&mut stream, &answer)).await;
        if !matches!(written, Ok(Ok(()))) {
            sandbox.shared.counters.unsent.up();
        }
        written??;
    }
}
