//! DockerCoins' page: `GET /` for people, `GET /json` for tables: hashes so far, coins, who answers and which client it saw.

use std::time::{SystemTime, UNIX_EPOCH};

use weft_images::http::{Request, Response};
use weft_images::{facts, http, redis, stop};

const PAGE: &str = include_str!("webui.html");

fn main() -> std::io::Result<()> {
    stop::on_signal();
    http::serve(80, |request| {
        println!(
            "{} {} from {}",
            request.method,
            request.path,
            facts::plain(request.client)
        );
        match request.path.as_str() {
            "/json" => state(request),
            "/" => Response::ok("text/html; charset=utf-8", PAGE),
            _ => Response::refuse(404, "there is / and there is /json"),
        }
    })
}

fn state(request: &Request) -> Response {
    let count = |words: &[&str]| {
        redis::call("redis", words).map(|answer| answer.trim().parse::<u64>().unwrap_or(0))
    };
    match (count(&["GET", "hashes"]), count(&["HLEN", "wallet"])) {
        (Ok(hashes), Ok(coins)) => {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis();
            let facts = facts::as_json(request.local, request.client);
            let facts = facts.trim_end().trim_end_matches('}');
            Response::ok(
                "application/json",
                format!("{facts},\"hashes\":{hashes},\"coins\":{coins},\"now_millis\":{now}}}\n"),
            )
        }
        (Err(error), _) | (_, Err(error)) => {
            Response::refuse(500, &format!("redis does not answer: {error}"))
        }
    }
}
