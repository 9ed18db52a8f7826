//! The `filters` parameter of lists.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use weft_types::Labels;

use crate::{body::parse, door::Asked, reply::ApiError, version::ApiVersion};

/// Filters by key. Values of one key are alternatives (labels: all must hold), keys must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Map(BTreeMap<String, Option<bool>>),
    List(Vec<String>),
}

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
        let value: serde_json::Value = parse(text.as_bytes())?;
        if value.is_null() {
            return Ok(Self::default());
        }
        let filters: BTreeMap<String, Values> = serde_json::from_value(value)
            .map_err(|_| ApiError::bad("invalid filter: a map of keys to values is due"))?;
        let flat = |values| match values {
            Values::Map(map) => map.into_keys().collect(),
            Values::List(list) => list.into_iter().collect(),
        };
        Ok(Self(
            filters
                .into_iter()
                .map(|(key, values)| (key, flat(values)))
                .collect(),
        ))
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
        assert!(Filters::read("[1]").is_err());
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
