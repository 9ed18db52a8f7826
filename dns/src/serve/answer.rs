//! What is done with one request of a sandbox.

use std::{iter, sync::Arc};

use arc_swap::ArcSwap;
use hickory_proto::op::{Header, HeaderCounts, Metadata};
use hickory_server::{
    net::{NetError, runtime::Time, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tokio::sync::Semaphore;

use super::Shared;
use crate::{
    forward::ForwardError,
    question::Asked,
    reply::{Code, Reply, no_question},
    resolve::{Answer, Asker, resolve},
    wire::Transport,
};

/// One sandbox: who asks there, and how much of it is being forwarded.
pub(super) struct Sandbox {
    pub(super) shared: Arc<Shared>,
    pub(super) asker: ArcSwap<Asker>,
    pub(super) forwards: Semaphore,
}

/// Answers a sandbox's requests. A type of its own because the server owns its handler.
pub(super) struct Answering(pub(super) Arc<Sandbox>);

#[async_trait::async_trait]
impl RequestHandler for Answering {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        handle: R,
    ) -> ResponseInfo {
        let reply = self.0.reply(request).await;
        let head = reply.metadata;
        send(request, &reply, handle).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot send an answer to a sandbox");
            self.0.shared.counters.unsent.up();
            unsent(head)
        })
    }
}

async fn send<R: ResponseHandler>(
    request: &Request,
    reply: &Reply,
    mut handle: R,
) -> Result<ResponseInfo, NetError> {
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
    handle.send_response(response).await
}

/// What the server wants to hear of an answer that did not go out.
fn unsent(metadata: Metadata) -> ResponseInfo {
    ResponseInfo::from(Header {
        metadata,
        counts: HeaderCounts::default(),
    })
}

impl Sandbox {
    async fn reply(&self, request: &Request) -> Reply {
        let counters = &self.shared.counters;
        let transport = match request.protocol() {
            Protocol::Udp => Transport::Udp,
            _ => Transport::Tcp,
        };
        let asked = match Asked::of(request) {
            Ok(asked) => asked,
            Err(code) => {
                counters.malformed.up();
                return Reply::misunderstood(request, code);
            }
        };
        counters.questions.up();
        let answer = resolve(
            &asked.question(),
            &self.asker.load(),
            &self.shared.zones.load(),
            rand::random(),
        );
        match answer {
            Answer::Records(facts) => {
                counters.answered.up();
                Reply::facts(request, &asked, &facts, transport)
            }
            Answer::NoData => {
                counters.no_data.up();
                Reply::refusal(request, Code::NoData)
            }
            Answer::NxDomain => {
                counters.no_such_name.up();
                Reply::refusal(request, Code::NxDomain)
            }
            Answer::Forward => {
                counters.forwarded.up();
                self.forward(request, &asked, transport).await
            }
        }
    }

    async fn forward(&self, request: &Request, asked: &Asked<'_>, transport: Transport) -> Reply {
        let counters = &self.shared.counters;
        let Ok(_slot) = self.forwards.try_acquire() else {
            counters.refused.up();
            return Reply::refusal(request, Code::Refused);
        };
        let servers = self.asker.load().servers.clone();
        let forwarder = &self.shared.forwarder;
        let said = forwarder
            .forward(request.as_slice(), &servers, transport)
            .await;
        let packet = match said {
            Ok(packet) => packet,
            Err(ForwardError::Busy) => {
                counters.refused.up();
                return Reply::refusal(request, Code::Refused);
            }
            Err(error) => {
                tracing::debug!(name = %asked.name(), %error, "cannot answer a forwarded query");
                counters.forward_failed.up();
                return Reply::refusal(request, Code::ServFail);
            }
        };
        Reply::outside(request, &packet).unwrap_or_else(|error| {
            tracing::debug!(name = %asked.name(), %error, "a resolver outside answered nonsense");
            counters.forward_failed.up();
            Reply::refusal(request, Code::ServFail)
        })
    }
}
