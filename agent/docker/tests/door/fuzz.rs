//! Bodies and query strings that nobody meant, over real connections; `src/fuzz.rs` asks many more without them.

use http::{Method, Request};
use http_body_util::Full;

use crate::{
    bed::Bed,
    cluster::FakeNode,
    inputs::{Chance, seeds},
};

#[tokio::test]
async fn odd_requests_are_answered() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut chance = Chance(7);
    let seeds = seeds();
    let mut asked = 0;
    for _ in 0..1500 {
        let seed = chance.below(seeds.len());
        let input = chance.bend(&seeds[seed]);
        let request = Request::builder()
            .method(Method::from_bytes(input.method.as_bytes()).unwrap())
            .uri(&input.target)
            .header("Host", "docker")
            .body(Full::new(bytes::Bytes::from(input.body.clone())));
        // What no client can send is not a question.
        let Ok(request) = request else { continue };
        let response = bed.send(request).await;
        let status = response.status().as_u16();
        assert!((200..600).contains(&status), "{input:?}: {status}");
        asked += 1;
    }
    assert!(asked > 1000, "only {asked} requests could be sent");
    assert_eq!(bed.get("/nodes").await.0, 200);
}
