//! What is the engine's goes to the engine, byte for byte.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use crate::{
    bed::{Bed, GROUP, soon},
    cluster::FakeNode,
};

/// Size of a big body, in bytes; `WEFT_UPLOAD_MIB` makes it bigger.
fn big() -> u64 {
    let wish = std::env::var("WEFT_UPLOAD_MIB").ok();
    wish.and_then(|mib| mib.parse().ok()).unwrap_or(100_u64) << 20
}

/// Most memory this process has used, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn big_bodies_go_both_ways_in_little_memory() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let big = big();
    let before = peak();
    let chunk = Bytes::from(vec![b'y'; 1 << 20]);
    let frames = futures::stream::iter(
        (0..big >> 20).map(move |_| Ok::<_, std::convert::Infallible>(Frame::data(chunk.clone()))),
    );
    let request = Request::post("/v1.41/upload").body(StreamBody::new(frames));
    let response = bed.send(request.unwrap()).await;
    let body = soon("the count", response.into_body().collect())
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), big.to_string());

    let path = format!("/download?{big}");
    let response = bed
        .send(Request::get(path).body(Empty::<Bytes>::new()).unwrap())
        .await;
    let mut body = response.into_body();
    let mut size = 0;
    while let Some(frame) = soon("more", body.frame()).await {
        size += frame.unwrap().into_data().unwrap().len() as u64;
    }
    assert_eq!(size, big);
    let used = peak() - before;
    println!("{} MiB each way, {used} KiB more at the peak", big >> 20);
    assert!(used < 64 << 10, "{used} KiB more at the peak");
}

#[tokio::test]
async fn an_upgrade_is_spliced_and_its_halves_close_one_by_one() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let request = Request::post("/v1.41/exec/1/start")
        .header("Connection", "Upgrade")
        .header("Upgrade", "tcp")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = bed.send(request).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "tcp");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut greeting = [0; 6];
    soon("a greeting", stream.read_exact(&mut greeting))
        .await
        .unwrap();
    assert_eq!(&greeting, b"hello\n");
    let input = vec![b'z'; 1 << 20];
    stream.write_all(&input).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut output = Vec::new();
    soon("the echo", stream.read_to_end(&mut output))
        .await
        .unwrap();
    assert_eq!(output.len(), input.len() + 4);
    assert!(output.ends_with(b"zbye\n"));
}

#[tokio::test]
async fn input_sent_with_the_upgrade_is_not_lost() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let mut stream = bed.connect().await;
    stream
        .write_all(b"POST /exec/1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}early")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut output = Vec::new();
    soon("the end", stream.read_to_end(&mut output))
        .await
        .unwrap();
    let text = String::from_utf8(output).unwrap();
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    assert!(text.ends_with("hello\nearlybye\n"), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let bed = Bed::new(FakeNode::manager()).await;
    let cancelled = std::sync::Arc::clone(&bed.engine.as_ref().unwrap().cancelled);
    for path in ["/hang", "/endless", "/v1.41/events"] {
        let mut stream = bed.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        if path == "/hang" {
            let hangs = &bed.engine.as_ref().unwrap().hangs;
            soon("the engine to be asked", hangs.notified()).await;
        } else {
            let mut first = [0; 1];
            soon("an answer", stream.read_exact(&mut first))
                .await
                .unwrap();
        }
        drop(stream);
        soon(&format!("{path} to be cancelled"), cancelled.notified()).await;
    }
}

#[tokio::test]
async fn an_upload_ends_with_its_client() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let engine = bed.engine.as_ref().unwrap();
    let heads = [
        "POST /v1.41/upload HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000\r\n\r\nbegun",
        "POST /v1.41/upload HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
    ];
    for head in heads {
        let mut stream = bed.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        soon("the first piece to arrive", engine.hangs.notified()).await;
        drop(stream);
        soon("the upload to be cancelled", engine.cancelled.notified()).await;
    }
}

#[tokio::test]
async fn who_is_refused_in_the_middle_of_a_body_hears_why() {
    let bed = Bed::new(FakeNode::inactive()).await;
    let mut stream = bed.connect().await;
    let rest = vec![b'x'; 4 << 20];
    let head = format!(
        "POST /v9.99/build HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n",
        rest.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.readable().await.unwrap();
    // Answered, and the door knows nothing to wait for: what is left is written all the same.
    soon("the body to be taken", stream.write_all(&rest))
        .await
        .unwrap();
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("too new"), "{answer}");
}

#[tokio::test]
async fn an_engine_that_dies_in_the_middle_is_named() {
    let mut bed = Bed::new(FakeNode::inactive()).await;
    let engine = bed.engine.take().unwrap();
    let mut stream = bed.connect().await;
    stream
        .write_all(b"POST /v1.41/upload HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\nbegun")
        .await
        .unwrap();
    soon("the first piece to arrive", engine.hangs.notified()).await;
    engine.die().await;
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("does not answer"), "{answer}");
    std::fs::remove_file(&bed.engine_socket).unwrap();
    bed.engine = Some(crate::engine::FakeEngine::at(&bed.engine_socket));
    assert_eq!(
        bed.text("POST", "/v1.41/upload", "whole").await,
        (200, "5".into())
    );
}

#[tokio::test]
async fn heads_pass_as_they_are_written() {
    let bed = Bed::alone(FakeNode::inactive()).await;
    let engine = UnixListener::bind(&bed.engine_socket).unwrap();
    let mut client = bed.connect().await;
    client
        .write_all(b"POST /build?t=a%2Fb&x HTTP/1.1\r\nHost: api.moby.localhost\r\nX-rEGISTRY-Config: e30=\r\nUser-Agent: Docker-Client/1\r\nContent-Length: 3\r\n\r\nabc")
        .await
        .unwrap();
    let (mut server, _) = soon("a connection", engine.accept()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nabc") {
        let mut bytes = [0; 4096];
        let read = soon("the request", server.read(&mut bytes)).await.unwrap();
        assert_ne!(read, 0, "engine's side closed early");
        seen.extend_from_slice(&bytes[..read]);
    }
    let seen = String::from_utf8(seen).unwrap();
    for line in [
        "POST /build?t=a%2Fb&x HTTP/1.1\r\n",
        "Host: api.moby.localhost\r\n",
        "X-rEGISTRY-Config: e30=\r\n",
        "User-Agent: Docker-Client/1\r\n",
    ] {
        assert!(seen.contains(line), "{line:?} in {seen:?}");
    }
    server
        .write_all(
            b"HTTP/1.1 200 OK\r\nX-ODD-case: Yes\r\nContent-Length: 2\r\nDate: then\r\n\r\nok",
        )
        .await
        .unwrap();
    let mut answer = vec![0; 4096];
    let mut size = 0;
    while !answer[..size].ends_with(b"\r\n\r\nok") {
        size += soon("the answer", client.read(&mut answer[size..]))
            .await
            .unwrap();
    }
    let answer = String::from_utf8(answer[..size].to_vec()).unwrap();
    assert!(answer.contains("X-ODD-case: Yes\r\n"), "{answer}");
}

#[tokio::test]
async fn one_connection_serves_ours_and_the_engine_s_in_turn() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut client = bed.connect().await;
    let paths = [
        "/_ping",
        "/v1.41/nodes",
        "/nosuchroute",
        "/v1.41/info",
        "/version",
    ];
    for path in paths {
        let head = format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
    }
    let mut seen = String::new();
    while seen.matches("HTTP/1.1 ").count() < paths.len() {
        let mut bytes = [0; 4096];
        let read = soon("answers", client.read(&mut bytes)).await.unwrap();
        assert_ne!(read, 0, "closed after {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    assert_eq!(seen.matches("HTTP/1.1 200").count(), 4, "{seen}");
    assert_eq!(seen.matches("HTTP/1.1 404").count(), 1, "{seen}");
}

#[tokio::test]
async fn urls_are_read_as_people_type_them() {
    let bed = Bed::new(FakeNode::manager()).await;
    for (target, words) in [
        (
            r#"/v1.41/nodes?filters={"role":["manager"]}"#,
            "\"Hostname\":\"node1\"",
        ),
        (r#"/v1.41/nodes?filters={"name":["nöde"]}"#, "\r\n\r\n[]"),
        (
            r#"/v1.41/nodes?filters={"bad":["<>"]}"#,
            "Invalid filter 'bad'",
        ),
    ] {
        let mut client = bed.connect().await;
        let head = format!("GET {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
        // In two pieces, as a slow client would.
        let (one, other) = head.as_bytes().split_at(20);
        client.write_all(one).await.unwrap();
        client.flush().await.unwrap();
        client.write_all(other).await.unwrap();
        let mut answer = String::new();
        soon("an answer", client.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.contains(words), "{target}: {answer}");
    }
    // And again and again on one connection, between bodies of all kinds.
    let mut client = bed.connect().await;
    let asked = "GET /v1.41/nodes?filters={\"name\":[\"node1\"]} HTTP/1.1\r\nHost: d\r\n";
    let upload = "POST /v1.41/upload HTTP/1.1\r\nHost: d\r\n";
    for request in [
        format!("{asked}\r\n"),
        format!("{upload}Content-Length: 9\r\n\r\n\"<>\r\n\r\n\"\""),
        format!("{upload}Transfer-Encoding: chunked\r\n\r\n3\r\n\"\n<\r\n0\r\n\r\n"),
        format!("{asked}Connection: close\r\n\r\n"),
    ] {
        client.write_all(request.as_bytes()).await.unwrap();
    }
    let mut answers = String::new();
    soon("answers", client.read_to_string(&mut answers))
        .await
        .unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 4, "{answers}");
    assert_eq!(answers.matches("\"Hostname\":\"node1\"").count(), 2);
    assert!(
        answers.contains("\r\n\r\n9") && answers.contains("\r\n\r\n3"),
        "{answers}"
    );
}

#[tokio::test]
async fn an_absent_engine_is_named_and_the_swarm_still_answers() {
    let bed = Bed::alone(FakeNode::manager()).await;
    let (status, message) = bed.refusal("GET", "/containers/json", "").await;
    assert_eq!(status, 503);
    assert!(
        message.contains("engine.sock") && message.contains("try again"),
        "{message}"
    );
    assert_eq!(bed.text("GET", "/_ping", "").await, (200, "OK".into()));
    assert_eq!(bed.get("/v1.41/nodes").await.0, 200);
    let (status, info) = bed.get("/v1.41/info").await;
    assert_eq!(
        (status, &info["Swarm"]["LocalNodeState"]),
        (200, &"active".into())
    );
    // And when it comes, nothing has to be restarted.
    let _engine = crate::engine::FakeEngine::at(&bed.engine_socket);
    assert_eq!(bed.get("/v1.41/info").await.1["NCPU"], 2);
}

#[tokio::test]
async fn garbage_does_not_close_the_door() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut seed: u64 = 42;
    for round in 0..200_u32 {
        let mut garbage = Vec::new();
        for _ in 0..(round * 7) % 900 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            garbage.push((seed >> 56) as u8);
        }
        if round % 3 == 0 {
            let mut request = b"POST /v1.41/services/create HTTP/1.1\r\nHost: d\r\n".to_vec();
            request.extend(format!("Content-Length: {}\r\n\r\n", garbage.len()).bytes());
            request.extend(&garbage);
            garbage = request;
        }
        let mut stream = bed.connect().await;
        // The door may close before it has all of it.
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = soon("the connection to end", stream.read_to_end(&mut answer)).await;
    }
    assert_eq!(bed.get("/v1.41/nodes").await.0, 200);
}

#[tokio::test]
async fn the_socket_is_its_group_s_and_goes_with_the_door() {
    use std::os::unix::fs::MetadataExt;
    let mut bed = Bed::new(FakeNode::inactive()).await;
    let facts = std::fs::metadata(&bed.socket).unwrap();
    assert_eq!((facts.mode() & 0o777, facts.gid()), (0o660, GROUP));
    bed.close().await;
    assert!(!bed.socket.exists());
    assert!(bed.folder.path().exists());

    let mut bed = Bed::new(FakeNode::inactive()).await;
    std::fs::remove_file(&bed.socket).unwrap();
    let _other = UnixListener::bind(&bed.socket).unwrap();
    bed.close().await;
    assert!(bed.socket.exists(), "another's socket was removed");
}
