//! An engine that hangs, goes and comes back.

use http::Request;
use http_body_util::{BodyExt, Empty};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use crate::{
    bed::{Bed, soon},
    cluster::FakeNode,
    engine::FakeEngine,
};

#[tokio::test]
async fn an_engine_that_hangs_does_not_hang_the_swarm() {
    let bed = Bed::alone(FakeNode::inactive()).await;
    let engine = UnixListener::bind(&bed.engine_socket).unwrap();
    let deaf = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = engine.accept().await {
            kept.push(stream);
        }
    });
    let body = json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "192.0.2.11"});
    let (status, id) = bed.json("POST", "/v1.41/swarm/init", body).await;
    assert_eq!(status, 200, "{id}");
    assert_eq!(bed.text("GET", "/_ping", "").await, (200, "OK".into()));
    deaf.abort();
}

#[tokio::test]
async fn the_newest_client_is_served_until_an_older_engine_answers() {
    let mut bed = Bed::alone(FakeNode::manager()).await;
    // What the engine speaks is not known: nobody is refused for it, and who asks is told least.
    assert_eq!(bed.get("/v1.50/services").await.0, 200);
    let ping = Request::get("/_ping").body(Empty::<bytes::Bytes>::new());
    let ping = bed.send(ping.unwrap()).await;
    assert_eq!(ping.headers()["Api-Version"], "1.41");
    bed.engine = Some(FakeEngine::at(&bed.engine_socket));
    let (status, message) = bed.refusal("GET", "/v1.50/services", "").await;
    assert_eq!(status, 400, "{message}");
    assert!(message.contains("1.50 is too new"), "{message}");
}

#[tokio::test]
async fn an_engine_that_restarts_is_missed_by_name_and_found_again() {
    let mut bed = Bed::new(FakeNode::manager()).await;
    let stream = bed.send(
        Request::get("/v1.41/events")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap(),
    );
    let mut stream = stream.await.into_body();
    let first = soon("an event", stream.frame()).await.unwrap().unwrap();
    assert!(first.is_data());
    let engine = bed.engine.take().unwrap();
    engine.die().await;
    std::fs::remove_file(&bed.engine_socket).unwrap();
    let end = async {
        while let Some(frame) = stream.frame().await {
            if frame.is_err() {
                break;
            }
        }
    };
    soon("the stream to end with the engine", end).await;
    for path in [
        "/v1.41/containers/json",
        "/v1.41/images/json",
        "/v1.41/networks",
    ] {
        let (status, message) = bed.refusal("GET", path, "").await;
        assert_eq!(status, 503, "{path}: {message}");
        assert!(message.contains("does not answer"), "{path}: {message}");
    }
    assert_eq!(bed.get("/v1.41/services").await.0, 200);
    bed.engine = Some(FakeEngine::at(&bed.engine_socket));
    assert_eq!(bed.get("/v1.41/networks").await.0, 200);
    assert_eq!(bed.get("/v1.41/info").await.1["NCPU"], 2);
}

#[tokio::test]
async fn an_engine_that_comes_back_newer_is_spoken_to_as_such() {
    let mut bed = Bed::new(FakeNode::manager()).await;
    assert_eq!(bed.get("/v1.50/services").await.0, 400);
    bed.engine.take().unwrap().die().await;
    std::fs::remove_file(&bed.engine_socket).unwrap();
    bed.engine = Some(FakeEngine::speaking(&bed.engine_socket, 50));
    // Each run of a client begins so.
    let ping = Request::head("/_ping").body(Empty::<bytes::Bytes>::new());
    let ping = bed.send(ping.unwrap()).await;
    assert_eq!(ping.headers()["Api-Version"], "1.50");
    assert_eq!(bed.get("/v1.50/services").await.0, 200);
}

#[tokio::test]
async fn a_client_that_asks_for_no_upgrade_has_its_stream_both_ways() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let mut stream = bed.connect().await;
    stream
        .write_all(b"POST /v1.41/exec/1/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}early ")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"hello\n") {
        let mut byte = [0; 1];
        let read = soon("the greeting", stream.read(&mut byte)).await.unwrap();
        assert_eq!(read, 1, "closed after {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("application/vnd.docker.raw-stream"), "{head}");
    stream.write_all(b"late").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    soon("the echo", stream.read_to_string(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest, "early latebye\n");
}

#[tokio::test]
async fn a_refused_stream_leaves_the_connection_to_http() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut stream = bed.connect().await;
    stream
        .write_all(b"POST /v1.41/exec/none/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}GET /v1.41/nodes HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answers = String::new();
    soon("both answers", stream.read_to_string(&mut answers))
        .await
        .unwrap();
    assert!(answers.starts_with("HTTP/1.1 404 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 200 OK"), "{answers}");
}
