//! Rules of classic Swarm: `key==value`, `key!=value`; `==~` and `!=~` are wishes, not demands.

use std::fmt;

use regex::Regex;

/// One rule about a container's place.
///
/// A value between slashes is a regular expression; in any other, `*` stands for any text and the
/// whole must match. Letter case counts, as in classic Swarm.
#[derive(Debug, Clone)]
pub struct Expression {
    key: String,
    is_equal: bool,
    is_soft: bool,
    value: String,
    pattern: Regex,
}

/// Text that is no rule; classic Swarm's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseExpressionError {
    /// No operator.
    #[error("One of operator ==, != is expected")]
    Operator,
    /// A key that cannot be one.
    #[error("Key '{0}' is invalid")]
    Key(String),
    /// A value that cannot be one.
    #[error("Value '{0}' is invalid")]
    Value(String),
}

impl Expression {
    /// The rule that `text` says.
    ///
    /// # Errors
    /// When it says none.
    pub fn parse(text: &str) -> Result<Self, ParseExpressionError> {
        // The first operator in the text counts, so that a value may hold the other.
        let (key, value, is_equal) = match (text.find("=="), text.find("!=")) {
            (Some(at), other) if other.is_none_or(|other| at < other) => {
                (&text[..at], &text[at + 2..], true)
            }
            (_, Some(at)) => (&text[..at], &text[at + 2..], false),
            _ => return Err(ParseExpressionError::Operator),
        };
        if !is_key(key) {
            return Err(ParseExpressionError::Key(key.to_owned()));
        }
        let bad = || ParseExpressionError::Value(value.to_owned());
        let (is_soft, plain) = match value.strip_prefix('~') {
            Some(plain) => (true, plain),
            None => (false, value),
        };
        if plain.is_empty() || plain.chars().any(char::is_control) {
            return Err(bad());
        }
        let regular = plain
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'));
        let pattern = match regular {
            Some(pattern) => Regex::new(pattern),
            None => {
                let pieces: Vec<String> = plain.split('*').map(regex::escape).collect();
                Regex::new(&format!("^(?s:{})$", pieces.join(".*")))
            }
        };
        Ok(Self {
            key: key.to_ascii_lowercase(),
            is_equal,
            is_soft,
            value: plain.to_owned(),
            pattern: pattern.map_err(|_| bad())?,
        })
    }

    /// What it is about, in small letters.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it may be left unfulfilled.
    #[must_use]
    pub fn is_soft(&self) -> bool {
        self.is_soft
    }

    /// Whether it names what must be, rather than what must not.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.is_equal
    }

    /// Whether things called `names` fulfil it: `==` wants one that matches, `!=` none.
    pub fn holds<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let found = names.into_iter().any(|name| self.pattern.is_match(name));
        found == self.is_equal
    }

    /// Whether things with these ids, called `names`, fulfil it. An id counts only where the rule has
    /// it whole, or its first twelve digits and nothing else, as tools print it: ids are drawn by
    /// chance, and part of one would match a pattern by chance.
    pub fn holds_of<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a str>,
        names: impl IntoIterator<Item = &'a str>,
    ) -> bool {
        let said = ids.into_iter().filter_map(|id| match id.get(..12) {
            Some(short) if self.value == short => Some(short),
            _ => (!id.is_empty() && self.value.contains(id)).then_some(id),
        });
        self.holds(said.chain(names))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.is_equal { "==" } else { "!=" };
        let soft = if self.is_soft { "~" } else { "" };
        write!(f, "{}{operator}{soft}{}", self.key, self.value)
    }
}

fn is_key(key: &str) -> bool {
    let mut letters = key.chars();
    let first = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    first
        && key.len() > 1
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, names: &[&str]) -> bool {
        let rule = Expression::parse(text).expect(text);
        rule.holds(names.iter().copied())
    }

    #[test]
    fn rows_of_the_specification() {
        for (text, names, expected) in [
            ("storage==ssd", &["ssd"][..], true),
            ("storage==ssd", &["ssd2"], false),
            ("storage==ssd", &["SSD"], false),
            ("storage!=ssd", &["disk"], true),
            ("storage!=ssd", &[], true),
            ("storage==ssd", &[], false),
            ("region==us*", &["us-east"], true),
            ("region==us*", &["eu-us"], false),
            ("region==*us*", &["eu-us-1"], true),
            ("node==/n[12]/", &["n2"], true),
            ("node==/^n[12]$/", &["n3"], false),
            ("node!=/n[12]/", &["n2"], false),
            ("node==/(?i)N1/", &["n1"], true),
            ("node==~n1", &["n1"], true),
            ("image==redis.io/a", &["redisXio/a"], false),
            ("container!=*b*", &["abc", "x"], false),
            ("container!=*b*", &["y", "x"], true),
            ("Storage==ssd", &["ssd"], true),
            ("storage==a!=b", &["a!=b"], true),
        ] {
            assert_eq!(holds(text, names), expected, "{text} {names:?}");
        }
    }

    #[test]
    fn an_id_counts_where_it_is_named_whole() {
        let id = "6jk3n5tcarvv7je5lzpyoyo1vd";
        for (text, expected) in [
            ("node==/n[3-9]/", false),
            ("node!=/n[3-9]/", true),
            ("node==6jk*", false),
            ("node==6jk3n5tcarvv7je5lzpyoyo1vd", true),
            ("node!=6jk3n5tcarvv7je5lzpyoyo1vd", false),
            ("node==/^(n2|6jk3n5tcarvv7je5lzpyoyo1vd)$/", true),
            ("node==6jk3n5tcarvv", true),
            ("node==6jk3n5tcarv", false),
            ("node!=*a*", true),
            ("node==n1", true),
        ] {
            let rule = Expression::parse(text).expect(text);
            assert_eq!(rule.holds_of([id], ["n1"]), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["storage", "storage=ssd", "==x", "1a==x", "a b==x", "a==x"] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
        for text in ["storage==", "storage==~", "node==/(/", "ab==a\nb"] {
            let error = Expression::parse(text).expect_err(text);
            assert!(matches!(error, ParseExpressionError::Value(_)), "{text}");
        }
        assert_eq!(
            Expression::parse("node").expect_err("none").to_string(),
            "One of operator ==, != is expected"
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in ".{0,40}") {
            if let Ok(rule) = Expression::parse(&text) {
                let again = Expression::parse(&rule.to_string()).expect("what it prints is a rule");
                prop_assert_eq!(again.to_string(), rule.to_string());
            }
        }

        #[test]
        fn plain_values_match_themselves_only(value in "[a-z0-9.+-]{1,8}", other in "[a-z0-9.+-]{1,8}") {
            let rule = Expression::parse(&format!("label=={value}")).expect("a rule");
            prop_assert_eq!(rule.holds([other.as_str()]), value == other);
            let not = Expression::parse(&format!("label!={value}")).expect("a rule");
            prop_assert_eq!(not.holds([other.as_str()]), value != other);
        }
    }
}
