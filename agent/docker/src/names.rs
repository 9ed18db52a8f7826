//! Names for services whose creator gave none.

use rand::seq::IndexedRandom;

const ADJECTIVES: [&str; 48] = [
    "able", "agile", "amber", "bold", "brave", "brisk", "calm", "civil", "clear", "clever",
    "cosmic", "crisp", "deft", "eager", "early", "fair", "fast", "firm", "fond", "frank", "fresh",
    "gentle", "glad", "golden", "grand", "happy", "honest", "jolly", "keen", "kind", "light",
    "lively", "lucid", "merry", "mighty", "neat", "noble", "patient", "proud", "quick", "quiet",
    "rapid", "serene", "sharp", "steady", "sunny", "vivid", "wise",
];

const SURNAMES: [&str; 48] = [
    "ampere",
    "archimedes",
    "babbage",
    "bartik",
    "bell",
    "bohr",
    "boole",
    "cerf",
    "chandra",
    "clarke",
    "curie",
    "darwin",
    "diffie",
    "dijkstra",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "franklin",
    "galileo",
    "gauss",
    "goodall",
    "hamilton",
    "hellman",
    "hertz",
    "hopper",
    "huygens",
    "johnson",
    "kepler",
    "knuth",
    "lamarr",
    "lamport",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "newton",
    "noether",
    "pascal",
    "perlman",
    "raman",
    "ritchie",
    "shannon",
    "turing",
    "wozniak",
];

/// `<adjective>_<surname>`, by chance.
pub(crate) fn random() -> String {
    let mut chance = rand::rng();
    let adjective = ADJECTIVES.choose(&mut chance).unwrap_or(&"plain");
    let surname = SURNAMES.choose(&mut chance).unwrap_or(&"turing");
    format!("{adjective}_{surname}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_valid_names_of_services() {
        for _ in 0..200 {
            let name = super::random();
            assert!(
                name.split_once('_')
                    .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()),
                "{name}"
            );
        }
    }
}
