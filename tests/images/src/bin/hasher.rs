//! DockerCoins' hasher: `POST /` with bytes answers their SHA-256 in hexadecimal, a tenth of a second later.

use std::time::Duration;

use sha2::{Digest, Sha256};
use weft_images::{facts, http, stop};

/// As in the original: the service is slow on purpose, so that scaling shows.
const EFFORT: Duration = Duration::from_millis(100);

fn main() -> std::io::Result<()> {
    stop::on_signal();
    http::serve(80, |request| {
        if request.method != "POST" {
            return http::Response::ok(
                "text/plain",
                format!("HASHER running on {}\n", facts::hostname()),
            );
        }
        std::thread::sleep(EFFORT);
        let digest: String = Sha256::digest(&request.body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        http::Response::ok("text/plain", digest)
    })
}
