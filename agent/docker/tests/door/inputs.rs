//! Requests that nobody meant, on every endpoint: seeds, and what chance makes of them.

use serde_json::Value;

/// A series of numbers, the same in each run.
pub(crate) struct Chance(pub(crate) u64);

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) body: String,
}

/// Well-formed requests, one per endpoint at least; and those that were once answered badly.
pub(crate) fn seeds() -> Vec<Input> {
    read(include_str!("seeds.json"))
}

/// The requests that `text` lists.
pub(crate) fn read(text: &str) -> Vec<Input> {
    let seeds: Vec<Value> = serde_json::from_str(text).unwrap();
    let seeds = seeds.into_iter().map(|seed| Input {
        method: seed["method"].as_str().unwrap().to_owned(),
        target: seed["target"].as_str().unwrap().to_owned(),
        body: match &seed["body"] {
            Value::Null => String::new(),
            Value::String(raw) => raw.clone(),
            body => body.to_string(),
        },
    });
    seeds.collect()
}

impl Chance {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.below(among.len())]
    }

    pub(crate) fn text(&mut self) -> String {
        const TEXTS: [&str; 24] = [
            "",
            "x",
            "web",
            "0",
            "-1",
            "99999999999999999999",
            "{{",
            "{{.Task.Slot}}",
            "a=b",
            "\u{0}",
            "10.0.0.0/8",
            "::/0",
            "true",
            "../..",
            "e\u{301}\u{202e}",
            "%zz",
            "n",
            "ingress",
            "0000000000000000000000001",
            "node.role==manager",
            "1.5",
            "9223372036854775807",
            "2026-01-01T00:00:00Z",
            "default",
        ];
        match self.below(40) {
            0 => "y".repeat(self.below(5000)),
            _ => self.pick(&TEXTS).to_owned(),
        }
    }

    pub(crate) fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 7 } else { 9 }) {
            0 => Value::Null,
            1 => true.into(),
            2 => (self.below(100_000) as i64 - 50_000).into(),
            3 => u64::MAX.into(),
            4 => i64::MIN.into(),
            5 => 1.5e300.into(),
            6 => self.text().into(),
            7 => (0..self.below(3)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let mut map = serde_json::Map::new();
                for _ in 0..self.below(3) {
                    map.insert(self.text(), self.value(depth - 1));
                }
                map.into()
            }
        }
    }

    /// Replaces something somewhere in `value`.
    fn mutate(&mut self, value: &mut Value) {
        if self.below(4) > 0 {
            match value {
                Value::Object(map) if !map.is_empty() => {
                    let at = self.below(map.len());
                    if let Some(inner) = map.values_mut().nth(at) {
                        return self.mutate(inner);
                    }
                }
                Value::Array(list) if !list.is_empty() => {
                    let at = self.below(list.len());
                    return self.mutate(&mut list[at]);
                }
                _ => {}
            }
        }
        if self.below(2) == 0 {
            *value = self.value(2);
        } else {
            self.bend_value(value);
        }
    }

    /// Another value of the same kind, such as a client might well send.
    fn bend_value(&mut self, value: &mut Value) {
        match value {
            Value::Bool(is) => *is = !*is,
            Value::Number(number) => {
                let near = number.as_i64().unwrap_or(1);
                let steps = [0, 1, near + 1, near.saturating_mul(2), near / 2, -1, 65_535];
                *value = steps[self.below(steps.len())].into();
            }
            Value::String(text) => match self.below(3) {
                0 => text.push('2'),
                1 => *text = self.text(),
                _ => text.clear(),
            },
            Value::Array(list) => match list.pop() {
                Some(last) if self.below(2) == 0 => list.extend([last.clone(), last]),
                _ => {}
            },
            Value::Object(map) => {
                let at = self.below(map.len());
                if let Some(key) = map.keys().nth(at).cloned() {
                    map.remove(&key);
                }
            }
            Value::Null => *value = self.value(1),
        }
    }

    fn body(&mut self, body: &str) -> String {
        let Ok(mut value) = serde_json::from_str::<Value>(body) else {
            return body.to_owned();
        };
        if self.below(2) == 0 && value["Name"].is_string() {
            value["Name"] = self.pick(&["f", "g", "h", "i", "j"]).into();
        }
        match self.below(16) {
            0..4 => {}
            4 => return self.bytes(body),
            5 => return body.chars().take(self.below(body.len())).collect(),
            6 => return format!("{}{body}", "[".repeat(self.below(300))),
            more => {
                for _ in 0..=(more % 3) {
                    self.mutate(&mut value);
                }
            }
        }
        value.to_string()
    }

    /// A few bytes changed.
    fn bytes(&mut self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = self.below(256) as u8;
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn query(&mut self) -> String {
        const KEYS: [&str; 24] = [
            "filters",
            "version",
            "force",
            "status",
            "insertDefaults",
            "tail",
            "since",
            "until",
            "stdout",
            "stderr",
            "details",
            "timestamps",
            "scope",
            "verbose",
            "rollback",
            "registryAuthFrom",
            "rotateWorkerToken",
            "rotateManagerToken",
            "rotateManagerUnlockKey",
            "all",
            "name",
            "limit",
            "size",
            "odd key",
        ];
        const FILTERS: [&str; 20] = [
            "name",
            "id",
            "label",
            "node",
            "service",
            "role",
            "membership",
            "desired-state",
            "mode",
            "runtime",
            "type",
            "until",
            "names",
            "driver",
            "scope",
            "dangling",
            "idOrName",
            "node.label",
            "_up-to-date",
            "label!",
        ];
        let mut query = Vec::new();
        for _ in 0..self.below(4) {
            let key = self.pick(&KEYS);
            let value = if key == "filters" && self.below(8) > 0 {
                let mut filters = serde_json::Map::new();
                for _ in 0..self.below(4) {
                    let values = match self.below(3) {
                        0 => serde_json::json!({ self.text(): true }),
                        1 => serde_json::json!([self.text()]),
                        _ => self.value(2),
                    };
                    filters.insert(self.pick(&FILTERS).to_owned(), values);
                }
                Value::Object(filters).to_string()
            } else {
                self.text()
            };
            query.push(format!("{}={}", escape(key), escape(&value)));
        }
        query.join("&")
    }

    /// A seed, bent.
    pub(crate) fn bend(&mut self, seed: &Input) -> Input {
        let mut input = seed.clone();
        if self.below(40) == 0 {
            input.method = self
                .pick(&["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"])
                .to_owned();
        }
        let (path, query) = match input.target.split_once('?') {
            Some((path, query)) => (path.to_owned(), query.to_owned()),
            None => (input.target.clone(), String::new()),
        };
        let path = match self.below(10) {
            0 => {
                let at = path.rfind('/').unwrap_or(0);
                format!("{}/{}", &path[..at], escape(&self.text()))
            }
            1 => format!("/v1.{}{path}", self.below(70)),
            _ => path,
        };
        let query = match self.below(3) {
            0 => query,
            1 => self.query(),
            _ => [query, self.query()].join("&"),
        };
        input.target = format!("{path}?{query}");
        input.body = self.body(&input.body);
        input
    }
}

fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
