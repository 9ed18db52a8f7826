//! A host that breaks off what it was asked for.

use std::io;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;

/// Serves as a host does, until it is asked for what it does not do to the end.
pub(super) async fn break_off(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    host: impl Fn(Request<Incoming>) -> Response<Full<Bytes>>,
) {
    let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
    let service = service_fn(|request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        let answer = host(request);
        async move {
            if path.ends_with("/restart") {
                return Err(broken());
            }
            let whole = answer.into_body().collect().await.unwrap().to_bytes();
            let first = std::iter::once(Ok(Frame::data(whole)));
            let rest = path.ends_with("/logs").then(|| Err(broken()));
            let parts = futures::stream::iter(first.chain(rest)).then(async |part| {
                if part.is_err() {
                    // What was said before is on its way when nothing more is there.
                    tokio::task::yield_now().await;
                }
                part
            });
            Ok(Response::new(StreamBody::new(Box::pin(parts))))
        }
    });
    let _ = server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
