//! What is done with one packet of a sandbox.

use std::{io, iter, net::SocketAddr, time::Duration};

use hickory_proto::{ProtoError, serialize::binary::BinEncoder};
use hickory_server::{net::xfer::Protocol, server::Request, zone_handler::MessageResponseBuilder};
use tokio::time;

use super::Sandbox;
use crate::{
    forward::ForwardError,
    question::Asked,
    reply::{Code, Reply, no_question},
    resolve::{Answer, Asker, resolve},
    wire::{self, Head, Transport},
    zone::Zones,
};

/// How long a neighbour may take, who asks resolvers outside himself: clients give up after 5 s.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of a packet.
pub(super) enum Verdict {
    /// These bytes are sent back.
    Answer(Vec<u8>),
    /// It is asked outside.
    Forward(Box<Request>),
    /// Nothing: there is nobody to answer.
    Drop,
}

impl Sandbox {
    /// Judges one packet from `client`.
    pub(super) fn judge(
        &self,
        packet: &[u8],
        client: SocketAddr,
        asker: &Asker,
        zones: &Zones,
        transport: Transport,
    ) -> Verdict {
        let counters = &self.shared.counters;
        let Some(head) = Head::of_request(packet) else {
            counters.dropped.up();
            return Verdict::Drop;
        };
        let protocol = match transport {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp => Protocol::Tcp,
        };
        let Ok(request) = Request::from_bytes(packet.to_vec(), client, protocol) else {
            counters.malformed.up();
            return Verdict::Answer(head.format_error());
        };
        let asked = match Asked::of(&request) {
            Ok(asked) => asked,
            Err(code) => {
                counters.malformed.up();
                let reply = Reply::misunderstood(&request, code);
                return Verdict::Answer(written(&request, &reply, transport));
            }
        };
        counters.questions.up();
        let reply = match resolve(&asked.question(), asker, zones, rand::random()) {
            Answer::Records(facts) => {
                counters.answered.up();
                Reply::facts(&request, &asked, &facts, transport)
            }
            Answer::NoData => {
                counters.no_data.up();
                Reply::refusal(&request, Code::NoData)
            }
            Answer::NxDomain => {
                counters.no_such_name.up();
                Reply::refusal(&request, Code::NxDomain)
            }
            Answer::Forward => {
                counters.forwarded.up();
                return Verdict::Forward(Box::new(request));
            }
        };
        Verdict::Answer(written(&request, &reply, transport))
    }

    /// Refuses a request because too many are being forwarded.
    pub(super) fn refuse(&self, request: &Request, transport: Transport) -> Vec<u8> {
        self.shared.counters.refused.up();
        let reply = Reply::refusal(request, Code::Refused);
        written(request, &reply, transport)
    }

    /// Asks the neighbour, or outside; the answer, whatever it is.
    pub(super) async fn forward(&self, request: &Request, transport: Transport) -> Vec<u8> {
        let counters = &self.shared.counters;
        let said = match self.ask_neighbour(request, transport).await {
            Some(said) => said,
            None => {
                let servers = self.asker.load().servers.clone();
                let forwarder = &self.shared.forwarder;
                let said = forwarder.forward(request.as_slice(), &servers, transport);
                said.await
            }
        };
        let packet = match said {
            Ok(packet) => packet,
            Err(ForwardError::Busy) => return self.refuse(request, transport),
            Err(error) => {
                tracing::debug!(%error, "cannot answer a forwarded query");
                counters.forward_failed.up();
                let reply = Reply::refusal(request, Code::ServFail);
                return written(request, &reply, transport);
            }
        };
        let reply = Reply::outside(request, &packet).unwrap_or_else(|error| {
            tracing::debug!(%error, "a resolver outside answered nonsense");
            counters.forward_failed.up();
            Reply::refusal(request, Code::ServFail)
        });
        written(request, &reply, transport)
    }
}

impl Sandbox {
    /// What the neighbour says; `None` when there is none.
    async fn ask_neighbour(
        &self,
        request: &Request,
        transport: Transport,
    ) -> Option<Result<Vec<u8>, ForwardError>> {
        let neighbour = self.neighbour.as_ref()?;
        let said = neighbour.ask(request.as_slice(), transport);
        let said = time::timeout(NEIGHBOUR_PATIENCE, said).await;
        let said = said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        said.map_err(ForwardError::Neighbour).transpose()
    }
}

/// The packet of a reply; a failure without records where it cannot be written.
fn written(request: &Request, reply: &Reply, transport: Transport) -> Vec<u8> {
    write(request, reply, transport).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot write an answer for a sandbox");
        let head = Head::of_request(request.as_slice());
        head.map_or_else(Vec::new, wire::Head::failure)
    })
}

fn write(request: &Request, reply: &Reply, transport: Transport) -> Result<Vec<u8>, ProtoError> {
    let nothing;
    let queries = if request.queries.len() == 1 {
        &request.queries
    } else {
        nothing = no_question()?;
        &nothing
    };
    let response = MessageResponseBuilder::new(queries, reply.edns.as_ref()).build(
        reply.metadata,
        &reply.answers,
        &reply.authorities,
        iter::empty(),
        &reply.additionals,
    );
    let mut packet = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut packet);
    encoder.set_max_size(match transport {
        Transport::Udp => reply.udp_limit(),
        Transport::Tcp => u16::MAX,
    });
    response.destructive_emit(&mut encoder)?;
    Ok(packet)
}
