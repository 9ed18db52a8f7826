//! DockerCoins' random bytes: `GET /32` answers 32 of them, a tenth of a second later.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use weft_images::{facts, http, stop};

/// As in the original: the service is slow on purpose, so that scaling shows.
const EFFORT: Duration = Duration::from_millis(100);
const MOST_BYTES: u64 = 1 << 20;

fn main() -> std::io::Result<()> {
    stop::on_signal();
    http::serve(80, |request| {
        match request.path.trim_start_matches('/').parse() {
            Ok(count) if count <= MOST_BYTES => {
                std::thread::sleep(EFFORT);
                let mut bytes = Vec::new();
                match File::open("/dev/urandom")
                    .and_then(|source| source.take(count).read_to_end(&mut bytes))
                {
                    Ok(_) => http::Response::ok("application/octet-stream", bytes),
                    Err(error) => {
                        http::Response::refuse(500, &format!("cannot read randomness: {error}"))
                    }
                }
            }
            _ => http::Response::ok(
                "text/plain",
                format!("RNG running on {}\n", facts::hostname()),
            ),
        }
    })
}
