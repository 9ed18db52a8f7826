//! Spoilt tokens and messages: read without a panic, and what is read is written the same again.

#[path = "../../../ebpf/tests/mutate/mod.rs"]
mod mutate;

use std::path::{Path, PathBuf};

use mutate::fuzz;
use weft_proto::{
    codec::{decode, encode},
    token::JoinToken,
};
use weft_types::netstate::NetState;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

#[test]
fn spoilt_tokens() {
    let good = JoinToken::new("-----BEGIN CERTIFICATE-----", [7; 16]).to_string();
    let seeds = [good, "SWMTKN-1-".into(), String::new()];
    fuzz(
        &corpus("tokens.hex"),
        seeds.map(String::into_bytes),
        |input| {
            let text = String::from_utf8_lossy(input);
            let read = text.parse::<JoinToken>();
            if let Ok(token) = &read {
                let again = token.to_string();
                assert!(
                    again.parse::<JoinToken>().is_ok(),
                    "{again} is not read again"
                );
            }
            (read.is_ok(), text.matches('-').count().min(5))
        },
    );
}

#[test]
fn spoilt_network_states() {
    let text = r#"{"revision":7,"nodes":{},"networks":{},"endpoints":{},"services":{}}"#;
    let mut seeds = vec![encode(&NetState::default()).expect("a state is written")];
    if let Ok(state) = serde_json::from_str::<NetState>(text) {
        seeds.push(encode(&state).expect("a state is written"));
    }
    fuzz(&corpus("netstates.hex"), seeds, |input| {
        let Ok(state) = decode::<NetState>(input) else {
            return (false, 0);
        };
        let again = encode(&state).expect("what was read is written");
        assert_eq!(decode::<NetState>(&again).expect("and read"), state);
        (true, state.nodes.len() + state.networks.len())
    });
}
