//! Spoiling bytes, the same way every time, from a corpus that is kept: for tests of whatever parses.
//!
//! A corpus is a text file of one input a line, in hexadecimal. `WEFT_FUZZ_ROUNDS` makes a run long;
//! with `WEFT_FUZZ_KEEP=1` an input that shows something new is added to the corpus.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Rounds of an ordinary test run.
const ROUNDS: u64 = 20_000;

/// A source of numbers that depend on its seed alone (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, 0 when that is 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Spoils `bytes` a few times; `other` lends pieces.
fn spoil(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    const TELLING: [u8; 9] = [0, 1, 4, 0x0f, 0x7f, 0x80, 0xc0, 0xfe, 0xff];
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(8) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            2 | 3 if !bytes.is_empty() => bytes[at] = TELLING[dice.below(TELLING.len())],
            4 => bytes.truncate(at),
            5 => {
                let some = [TELLING[dice.below(TELLING.len())]].repeat(dice.below(24));
                bytes.splice(at..at, some);
            }
            6 if !other.is_empty() => {
                let from = dice.below(other.len());
                let piece = &other[from..(from + 1 + dice.below(40)).min(other.len())];
                let to = (at + piece.len()).min(bytes.len());
                bytes.splice(at..to, piece.iter().copied());
            }
            _ if bytes.len() > 1 => {
                let number = dice.next() as u16;
                let at = at.min(bytes.len() - 2);
                bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
            }
            _ => bytes.push(dice.next() as u8),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(line: &str) -> Vec<u8> {
    let digits: Vec<u32> = line.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks_exact(2)
        .map(|two| (two[0] * 16 + two[1]) as u8)
        .collect()
}

/// Gives `judge` every input of the corpus and of `seeds`, and then spoilt ones. What `judge` answers tells
/// kinds of behaviour apart; two inputs with the same answer are one kind.
///
/// # Panics
/// When `judge` does; the message has the input, as a line for the corpus.
pub(crate) fn fuzz<S: Ord + Debug>(
    corpus: &Path,
    seeds: impl IntoIterator<Item = Vec<u8>>,
    mut judge: impl FnMut(&[u8]) -> S,
) {
    let text = std::fs::read_to_string(corpus).unwrap_or_default();
    let mut lines: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let mut pool: Vec<Vec<u8>> = lines.iter().map(|line| unhex(line)).collect();
    let kept = pool.len();
    pool.extend(seeds);
    assert!(
        !pool.is_empty(),
        "{} is empty and there are no seeds",
        corpus.display()
    );
    let mut known = BTreeSet::new();
    let mut judged = |input: &[u8]| {
        let kind = catch_unwind(AssertUnwindSafe(|| judge(input)));
        kind.unwrap_or_else(|_| {
            panic!(
                "this input did it; add it to {}:\n{}",
                corpus.display(),
                hex(input)
            )
        })
    };
    for (n, input) in pool.iter().enumerate() {
        if known.insert(judged(input)) && n >= kept {
            lines.insert(hex(input));
        }
    }
    let wish = std::env::var("WEFT_FUZZ_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    let mut dice = Dice(wish.unwrap_or(0));
    for _ in 0..wish.unwrap_or(ROUNDS) {
        let mut input = pool[dice.below(pool.len())].clone();
        let other = dice.below(pool.len());
        spoil(&mut dice, &mut input, &pool[other]);
        if known.insert(judged(&input)) {
            lines.insert(hex(&input));
            pool.push(input);
        }
    }
    if std::env::var_os("WEFT_FUZZ_KEEP").is_some() {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(corpus, text)
            .unwrap_or_else(|error| panic!("write {}: {error}", corpus.display()));
    }
}
