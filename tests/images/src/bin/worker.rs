//! DockerCoins' worker: gets random bytes, has them hashed, and counts each round in Redis; a hash that begins with 0 is a coin.

use std::io::{Error, Result};
use std::time::Duration;

use weft_images::{http, redis, stop};

fn main() {
    stop::on_signal();
    loop {
        if let Err(error) = work() {
            println!("a round failed: {error}; again in a second");
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// One round; every name is looked up anew, so a service that moves is followed at once.
fn work() -> Result<()> {
    let bytes = http::ask("GET", "rng", 80, "/32", &[])?;
    let digest = http::ask("POST", "hasher", 80, "/", &bytes)?;
    let digest = String::from_utf8(digest)
        .map_err(|_| Error::other("hasher answered bytes that are no text"))?;
    if digest.starts_with('0') {
        redis::call("redis", &["HSET", "wallet", &digest, "1"])?;
    }
    redis::call("redis", &["INCR", "hashes"])?;
    Ok(())
}
