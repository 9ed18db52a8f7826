//! What Go says of JSON of the wrong type.
//!
//! Docker's clients show it word for word. The tables below are the types of Docker's API, as far as requests that are
//! answered here have them; what they do not name is judged elsewhere.

mod requests;
mod service;

use serde_json::Value;
use weft_types::validate::{Refusal, RefusalKind, asks};

pub(crate) use requests::{
    CLUSTER, CONFIG, CONNECT, DISCONNECT, INIT, JOIN, NETWORK, NODE, SECRET, UNLOCK,
};
pub(crate) use service::SERVICE;

use crate::reply::ApiError;

/// A type of Go.
#[derive(Debug, Clone, Copy)]
enum Go {
    /// Text, under the name of its type.
    Text(&'static str),
    Bool,
    /// A whole number, the least and the most of its type.
    Whole(&'static str, i128, i128),
    Float,
    /// Base64.
    Bytes,
    /// Text by text.
    Map,
    List(&'static str, &'static Go),
    Object(&'static Struct),
}

/// A struct of Go: package, name, fields.
#[derive(Debug)]
pub(crate) struct Struct(&'static str, &'static str, &'static [(&'static str, Go)]);

/// Refuses `value`, its names spelled as Docker spells them, where Go could not put it into a `due`.
///
/// # Errors
/// 400, in Go's words.
pub(crate) fn check(value: &Value, due: &'static Struct) -> Result<(), ApiError> {
    fault(value, &Go::Object(due), None, "").map_or(Ok(()), |message| Err(ApiError::bad(message)))
}

/// Refuses fields of `value` that say something and that no `due` has: they would be left out in silence.
///
/// # Errors
/// 501, naming the first of them.
pub(crate) fn heard(value: &Value, due: &'static Struct) -> Result<(), ApiError> {
    let Some((field, value)) = unheard(value, &Go::Object(due), "") else {
        return Ok(());
    };
    Err(ApiError::from(Refusal {
        kind: RefusalKind::Unimplemented,
        message: format!("{field} {value} is not supported by weft"),
    }))
}

fn unheard<'a>(value: &'a Value, due: &Go, path: &str) -> Option<(String, &'a Value)> {
    match (due, value) {
        (Go::List(_, of), Value::Array(list)) => {
            list.iter().find_map(|value| unheard(value, of, path))
        }
        (Go::Object(Struct(_, _, fields)), Value::Object(map)) => {
            map.iter().find_map(|(key, value)| {
                let path = below(path, key);
                match fields.iter().find(|(known, _)| known == key) {
                    Some((_, due)) => unheard(value, due, &path),
                    None => asks(value).then_some((path, value)),
                }
            })
        }
        _ => None,
    }
}

/// The path of the field `key` of what is at `path`.
fn below(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

/// What is wrong with `value` as a `due`, which is the field at `path`, of the struct `owner`.
fn fault(value: &Value, due: &Go, owner: Option<&str>, path: &str) -> Option<String> {
    let refused = |found: String| {
        let place = match owner {
            Some(owner) => format!("struct field {owner}.{path}"),
            None => "value".to_owned(),
        };
        let due = due.name();
        let message = format!("json: cannot unmarshal {found} into Go {place} of type {due}");
        Some(message)
    };
    match (due, value) {
        (_, Value::Null)
        | (Go::Text(_), Value::String(_))
        | (Go::Bool, Value::Bool(_))
        | (Go::Float, Value::Number(_))
        | (Go::Bytes, Value::String(_)) => None,
        (Go::Whole(_, least, most), Value::Number(number)) => {
            let whole = number.as_i64().map(i128::from);
            let whole = whole.or_else(|| number.as_u64().map(i128::from));
            match whole {
                Some(whole) if (*least..=*most).contains(&whole) => None,
                _ => refused(format!("number {number}")),
            }
        }
        (Go::Map, Value::Object(map)) => map
            .values()
            .find_map(|value| fault(value, &TEXT, owner, path)),
        (Go::List(_, of), Value::Array(list)) => {
            list.iter().find_map(|value| fault(value, of, owner, path))
        }
        (Go::Object(Struct(_, name, fields)), Value::Object(map)) => {
            map.iter().find_map(|(key, value)| {
                let (_, due) = fields.iter().find(|(known, _)| known == key)?;
                fault(value, due, Some(name), &below(path, key))
            })
        }
        (_, value) => refused(kind(value).to_owned()),
    }
}

/// Go's word for what a value is.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Go {
    fn name(&self) -> String {
        match self {
            Self::Text(name) | Self::Whole(name, ..) | Self::List(name, _) => (*name).to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Float => "float32".to_owned(),
            Self::Bytes => "[]uint8".to_owned(),
            Self::Map => "map[string]string".to_owned(),
            Self::Object(Struct(package, name, _)) => format!("{package}.{name}"),
        }
    }
}

use Go::{Bool, Bytes, Float, List, Map, Object, Text, Whole};

const TEXT: Go = Text("string");
const TEXTS: Go = List("[]string", &TEXT);
const I64: Go = Whole("int64", i64::MIN as i128, i64::MAX as i128);
const INT: Go = Whole("int", i64::MIN as i128, i64::MAX as i128);
const U64: Go = Whole("uint64", 0, u64::MAX as i128);
const U32: Go = Whole("uint32", 0, u32::MAX as i128);
const DURATION: Go = Whole("time.Duration", i64::MIN as i128, i64::MAX as i128);
const FILE_MODE: Go = Whole("fs.FileMode", 0, u32::MAX as i128);
const DRIVER: Go = Object(&Struct(
    "swarm",
    "Driver",
    &[("Name", TEXT), ("Options", Map)],
));

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_types_are_refused_in_go_s_words() {
        let rows = [
            (
                json!({"Name": 5}),
                "number into Go struct field ServiceSpec.Name of type string",
            ),
            (
                json!({"Mode": {"Replicated": {"Replicas": "2"}}}),
                "string into Go struct field ReplicatedService.Mode.Replicated.Replicas of type uint64",
            ),
            (
                json!({"Mode": {"Replicated": {"Replicas": -1}}}),
                "number -1 into Go struct field ReplicatedService.Mode.Replicated.Replicas of type uint64",
            ),
            (
                json!({"EndpointSpec": {"Ports": [{"TargetPort": 80}, {"TargetPort": 1.5}]}}),
                "number 1.5 into Go struct field PortConfig.EndpointSpec.Ports.TargetPort of type uint32",
            ),
            (
                json!({"EndpointSpec": {"Mode": true}}),
                "bool into Go struct field EndpointSpec.EndpointSpec.Mode of type swarm.ResolutionMode",
            ),
            (
                json!({"TaskTemplate": {"ContainerSpec": {"Env": ["A=1", 5]}}}),
                "number into Go struct field ContainerSpec.TaskTemplate.ContainerSpec.Env of type string",
            ),
            (
                json!({"TaskTemplate": []}),
                "array into Go struct field ServiceSpec.TaskTemplate of type swarm.TaskSpec",
            ),
            (
                json!({"Labels": {"a": {}}}),
                "object into Go struct field ServiceSpec.Labels of type string",
            ),
            (json!("x"), "string into Go value of type swarm.ServiceSpec"),
        ];
        for (value, words) in rows {
            let refusal = check(&value, &SERVICE).unwrap_err();
            assert_eq!(refusal.status.as_u16(), 400);
            assert_eq!(refusal.message, format!("json: cannot unmarshal {words}"));
        }
        let unheard = json!({"Raft": {"SnapshotInterval": 5, "Odd": 0, "New": [1]}});
        let refusal = heard(&unheard, &CLUSTER).unwrap_err();
        assert_eq!(refusal.status.as_u16(), 501);
        assert!(
            refusal
                .message
                .ends_with("Raft.New [1] is not supported by weft")
        );
        let sound = json!({"Name": null, "Labels": {"a": "b"}, "Unheard": 5,
            "UpdateConfig": {"MaxFailureRatio": 1, "Delay": -5}});
        assert_eq!(check(&sound, &SERVICE), Ok(()));
    }
}
