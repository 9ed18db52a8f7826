//! The `filters` parameter of lists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use weft_types::Labels;

use crate::{body::parse, door::Asked, go_types::kind, reply::ApiError, version::ApiVersion};

/// Filters by key. Values of one key are alternatives (labels: all must hold), keys must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// The filters of a request; keys that are not `known` are refused.
    pub(crate) fn of(asked: &Asked, known: &[&str]) -> Result<Self, ApiError> {
        let filters = Self::read(asked.query.get("filters"))?;
        match filters.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                let word = invalid(asked.version);
                Err(ApiError::bad(format!("{word} filter '{key}'")))
            }
            None => Ok(filters),
        }
    }

    /// Any filters.
    pub(crate) fn read(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        // First as any JSON, so that what is no JSON at all is named so.
        let value: Value = parse(text.as_bytes()).map_err(|refusal| {
            let broken = ["EOF", "unexpected EOF"].contains(&refusal.message.as_str());
            let end = || ApiError::bad("unexpected end of JSON input");
            if broken { end() } else { refusal }
        })?;
        let keys = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(keys) => keys,
            other => return Err(unread(&other, "map[string]map[string]bool")),
        };
        let texts = |list: &[Value]| {
            list.iter()
                .all(|value| value.is_string() || value.is_null())
        };
        let mut filters = BTreeMap::new();
        for (key, values) in keys {
            let values = match values {
                Value::Null => BTreeSet::new(),
                Value::Array(list) if texts(&list) => {
                    let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
                    list.into_iter().map(text).collect()
                }
                Value::Object(map) => {
                    let odd = map.values().find(|is| !is.is_boolean() && !is.is_null());
                    if let Some(odd) = odd {
                        return Err(unread(odd, "bool"));
                    }
                    map.into_iter().map(|(value, _)| value).collect()
                }
                other => return Err(unread(&other, "map[string]bool")),
            };
            filters.insert(key, values);
        }
        Ok(Self(filters))
    }

    /// The values of `key`.
    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether `key` is given with a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values(key).next().is_some()
    }

    /// Whether one value of `key`, or none at all, fulfils `test`.
    pub(crate) fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(test)
    }

    /// Whether `field` is one of the values of `key`.
    pub(crate) fn exact(&self, key: &str, field: &str) -> bool {
        self.any(key, |value| value == field)
    }

    /// Whether `field` begins with one of the values of `key`.
    pub(crate) fn prefix(&self, key: &str, field: &str) -> bool {
        self.any(key, |value| field.starts_with(value))
    }

    /// Whether `labels` have all that `key` asks: `name` or `name=value`.
    pub(crate) fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.values(key).all(|wish| match wish.split_once('=') {
            Some((name, value)) => labels
                .get(name)
                .is_some_and(|have| value.is_empty() || have == value),
            None => labels.contains_key(wish),
        })
    }
}

/// Go's words for a value where a `due` belongs.
fn unread(value: &Value, due: &str) -> ApiError {
    let kind = kind(value);
    ApiError::bad(format!(
        "json: cannot unmarshal {kind} into Go value of type {due}"
    ))
}

/// How engines of the age of `version` begin their refusals of filters.
pub(crate) fn invalid(version: ApiVersion) -> &'static str {
    if version <= ApiVersion::new(1, 41) {
        "Invalid"
    } else {
        "invalid"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let map = Filters::read(r#"{"name":{"web":true,"db":false},"label":{"a=b":true}}"#);
        let list = Filters::read(r#"{"name":["web","db"],"label":["a=b"]}"#);
        assert_eq!(map, list);
        assert_eq!(Filters::read(""), Ok(Filters::default()));
        assert_eq!(Filters::read("{}"), Ok(Filters::default()));
        assert_eq!(
            Filters::read("notjson").unwrap_err().message,
            "invalid character 'o' in literal null (expecting 'u')"
        );
    }

    #[test]
    fn what_is_no_filter_is_refused_in_go_s_words() {
        let into = |kind, due| format!("json: cannot unmarshal {kind} into Go value of type {due}");
        for (text, due) in [
            ("[1]", into("array", "map[string]map[string]bool")),
            ("\"x\"", into("string", "map[string]map[string]bool")),
            (r#"{"id":"x"}"#, into("string", "map[string]bool")),
            (r#"{"id":[1]}"#, into("array", "map[string]bool")),
            (r#"{"id":{"x":"y"}}"#, into("string", "bool")),
            (r#"{"id":["x"]"#, "unexpected end of JSON input".to_owned()),
            (" ", "unexpected end of JSON input".to_owned()),
        ] {
            assert_eq!(Filters::read(text).unwrap_err().message, due, "{text}");
        }
        // What is told nothing is there, without a value.
        let filters = Filters::read(r#"{"id":null}"#).unwrap();
        assert!(!filters.has("id") && filters.exact("id", "x"));
    }

    #[test]
    fn labels_are_met_together() {
        let filters = Filters::read(r#"{"label":["a=b","c"]}"#).unwrap();
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            let pairs = pairs.iter();
            pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        assert!(filters.labels("label", &labels(&[("a", "b"), ("c", "")])));
        assert!(!filters.labels("label", &labels(&[("a", "b")])));
        assert!(!filters.labels("label", &labels(&[("a", "x"), ("c", "")])));
    }
}
