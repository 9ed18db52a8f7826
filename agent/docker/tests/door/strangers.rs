//! Requests as no CLI writes them: answered as dockerd 20.10 was seen to answer.

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;

use crate::{
    bed::{Bed, filters},
    cluster::FakeNode,
};

/// Every list and object of swarm mode.
const PATHS: [&str; 8] = [
    "/swarm",
    "/swarm/unlockkey",
    "/nodes",
    "/services",
    "/v1.41/services",
    "/tasks",
    "/secrets",
    "/configs/x",
];

#[tokio::test]
async fn only_a_ping_has_a_head_and_every_path_has_options() {
    let bed = Bed::new(FakeNode::manager()).await;
    for path in PATHS {
        assert_eq!(bed.text("HEAD", path, "").await.0, 404, "{path}");
        let options = bed.text("OPTIONS", path, "").await;
        assert_eq!(options, (200, String::new()), "{path}");
        for method in ["PUT", "PATCH", "TRACE"] {
            let refusal = bed.refusal(method, path, "").await;
            assert_eq!(refusal, (404, "page not found".to_owned()), "{path}");
        }
    }
    assert_eq!(bed.text("HEAD", "/_ping", "").await.0, 200);
}

#[tokio::test]
async fn another_spelling_of_a_path_is_another_path() {
    let bed = Bed::new(FakeNode::manager()).await;
    for path in ["/services/", "/swarm/", "/nodes/x/", "/services/a%2fb/c"] {
        let refusal = bed.refusal("GET", path, "").await;
        assert_eq!(refusal, (404, "page not found".to_owned()), "{path}");
    }
    for (path, due) in [
        ("//services", "/services"),
        ("/v1.41//services?status=1", "/v1.41/services?status=1"),
        ("/services/../nodes", "/nodes"),
    ] {
        let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
        let answer = bed.send(request).await;
        assert_eq!(answer.status(), 301, "{path}");
        assert_eq!(answer.headers()["location"], due, "{path}");
    }
    assert_eq!(bed.get("/%73ervices").await.0, 200);
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_refused_where_docker_reads_it_whole() {
    let bed = Bed::new(FakeNode::manager()).await;
    for path in [
        "services", "nodes", "tasks", "secrets", "configs", "networks",
    ] {
        for (query, due) in [
            ("a=%zz", "invalid URL escape \"%zz\""),
            ("filters=%7B%7D&x=%2", "invalid URL escape \"%2\""),
            ("a;b=c", "invalid semicolon separator in query"),
        ] {
            let refusal = bed
                .refusal("GET", &format!("/v1.41/{path}?{query}"), "")
                .await;
            assert_eq!(refusal, (400, due.to_owned()), "{path}?{query}");
        }
    }
    // Docker takes what it can read of these.
    assert_eq!(bed.get("/v1.41/swarm?a=%zz").await.0, 200);
    assert_eq!(bed.get("/v1.41/info?a=%zz").await.0, 200);
}

#[tokio::test]
async fn filters_that_say_nothing_leave_all() {
    let bed = Bed::new(FakeNode::manager()).await;
    let all = bed.get("/v1.41/nodes").await;
    assert_eq!(all.1.as_array().unwrap().len(), 3);
    for pair in [("role", ""), ("membership", "")] {
        let path = format!("/v1.41/nodes?{}", filters(&[pair]));
        assert_eq!(bed.get(&path).await, all, "{path}");
    }
    let null = "/v1.41/nodes?filters=%7B%22name%22:null%7D";
    assert_eq!(bed.get(null).await, all);
    let path = format!("/v1.41/tasks?{}", filters(&[("desired-state", "")]));
    assert_eq!(bed.get(&path).await.0, 200);
}

#[tokio::test]
async fn bodies_and_words_are_refused_in_docker_s_words() {
    let bed = Bed::new(FakeNode::manager()).await;
    let service = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"tool"}}}"#;
    let made = bed.text("POST", "/v1.41/services/create", service).await;
    assert_eq!(made.0, 201, "{made:?}");
    let version = bed.get("/v1.41/swarm").await.1["Version"]["Index"].clone();
    let rotate = format!("/v1.41/swarm/update?version={version}&rotateWorkerToken=x");
    let empty = "got EOF while reading request body";
    for (method, path, body, status, message) in [
        ("POST", "/v1.41/services/create", "", 400, empty),
        ("POST", "/v1.41/secrets/create", "", 400, empty),
        ("POST", "/v1.41/networks/create", "", 400, empty),
        ("POST", "/v1.41/nodes/x/update?version=1", "", 400, empty),
        (
            "POST",
            "/v1.41/services/create",
            "null",
            400,
            "mismatched Runtime and *Spec fields",
        ),
        (
            "POST",
            "/v1.41/secrets/create",
            r#"{"Name":"x","Data":"!!"}"#,
            400,
            "illegal base64 data at input byte 0",
        ),
        (
            "POST",
            &rotate,
            "{}",
            400,
            "invalid value for rotateWorkerToken: x",
        ),
        (
            "GET",
            "/v1.41/services/web/logs?stdout=1&tail=x",
            "",
            500,
            "tail value must be a positive integer or \"all\"",
        ),
        (
            "GET",
            "/v1.41/services/web/logs?stdout=1&tail=-1",
            "",
            500,
            "negative tail values not supported",
        ),
        (
            "GET",
            "/v1.41/networks/ingress?verbose=x",
            "",
            400,
            "invalid value for verbose: x: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
    ] {
        let refusal = bed.refusal(method, path, body).await;
        assert_eq!(refusal, (status, message.to_owned()), "{path} {body}");
    }
}
