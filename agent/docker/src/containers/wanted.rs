//! Filters of `docker ps` that the engine cannot answer: it knows neither tasks nor networks of the swarm.

use serde_json::Value;

use crate::{door::Asked, filter::Filters, ordered::Ordered, query::encode, reply::ApiError};

/// Label of a task's container.
const TASK: &str = "com.docker.swarm.task.id";

/// Which containers of the engine's answer are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// On one of these networks: names, or beginnings of ids.
    networks: Vec<String>,
    /// Those of tasks, or the others.
    of_tasks: Option<bool>,
    /// The newest so many.
    limit: Option<usize>,
}

impl Wanted {
    /// Takes out of a request what the engine cannot answer; `None` when it can answer all.
    ///
    /// # Errors
    /// When the filters are none.
    pub(super) fn take(asked: &mut Asked) -> Result<Option<Self>, ApiError> {
        let text = asked.query.get("filters");
        let filters = Filters::read(text)?;
        let of_tasks = match filters.values("is-task").collect::<Vec<_>>()[..] {
            [] => None,
            ["true"] => Some(true),
            ["false"] => Some(false),
            // The engine words what is wrong with it.
            _ => return Ok(None),
        };
        let networks: Vec<String> = filters.values("network").map(str::to_owned).collect();
        if networks.is_empty() && of_tasks.is_none() {
            return Ok(None);
        }
        let mut left: Value = crate::body::parse(text.as_bytes())?;
        if let Some(left) = left.as_object_mut() {
            left.retain(|key, _| key != "is-task" && key != "network");
        }
        let limit = asked.query.get("limit").parse().ok();
        let limit = limit.filter(|limit| *limit > 0);
        let mut pairs: Vec<(String, String)> = asked
            .query
            .pairs()
            .filter(|(key, _)| *key != "filters" && (limit.is_none() || *key != "limit"))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        pairs.push(("filters".to_owned(), left.to_string()));
        if limit.is_some() {
            // The newest are looked for among the stopped ones too.
            pairs.push(("all".to_owned(), "1".to_owned()));
        }
        let path = asked.parts.uri.path().to_owned();
        let target = format!("{path}?{}", encode(&pairs));
        asked.parts.uri = target
            .parse()
            .map_err(|_| ApiError::bad(format!("no path: {target}")))?;
        Ok(Some(Self {
            networks,
            of_tasks,
            limit,
        }))
    }

    /// Leaves what is wanted in a list whose containers show the swarm's networks.
    pub(super) fn keep(&self, list: &mut Vec<Ordered>) {
        list.retain(|container| {
            let labels = container.get("Labels");
            let is_task = labels.is_some_and(|labels| labels.get(TASK).is_some());
            self.of_tasks.is_none_or(|wanted| wanted == is_task) && self.is_connected(container)
        });
        list.truncate(self.limit.unwrap_or(usize::MAX));
    }

    fn is_connected(&self, container: &Ordered) -> bool {
        let settings = container.get("NetworkSettings");
        let networks = match settings.and_then(|settings| settings.get("Networks")) {
            Some(Ordered::Object(networks)) => networks.as_slice(),
            _ => &[],
        };
        let is_one = |wanted: &String| {
            let mut networks = networks.iter();
            networks.any(|(name, end)| {
                name == wanted || end.text_of("NetworkID").starts_with(wanted.as_str())
            })
        };
        self.networks.is_empty() || self.networks.iter().any(is_one)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;

    use super::*;
    use crate::{query::Query, version::ApiVersion};

    fn asked(query: &str) -> Asked {
        let request = Request::get(format!("/v1.41/containers/json?{query}")).body(());
        let (parts, ()) = request.unwrap().into_parts();
        Asked {
            parts,
            version: ApiVersion::new(1, 41),
            query: Query::parse(query),
            body: Bytes::new(),
        }
    }

    fn target(query: &str) -> (String, Option<Wanted>) {
        let mut asked = asked(query);
        let wanted = Wanted::take(&mut asked).unwrap();
        (crate::query::decode(asked.target()), wanted)
    }

    #[test]
    fn only_what_the_engine_cannot_answer_is_taken_out() {
        let plain = r#"filters={"label":["a"]}&limit=3"#;
        let path = "/v1.41/containers/json?";
        assert_eq!(target(""), (path.to_owned(), None));
        for same in [plain, r#"filters={"is-task":["perhaps"]}"#] {
            let encoded = same
                .replace('{', "%7B")
                .replace('}', "%7D")
                .replace('"', "%22");
            assert_eq!(target(&encoded), (format!("{path}{same}"), None));
        }
        let both = "filters=%7B%22network%22:%5B%22front%22%5D,%22label%22:%7B%22a%22:true%7D%7D&size=1&limit=2";
        let (asked, wanted) = target(both);
        assert_eq!(
            asked,
            format!(r#"{path}size=1&filters={{"label":{{"a":true}}}}&all=1"#)
        );
        let wanted = wanted.unwrap();
        assert_eq!(
            (&wanted.networks[..], wanted.limit),
            (&["front".to_owned()][..], Some(2))
        );
    }

    #[test]
    fn tasks_and_networks_are_told_apart() {
        let list = || -> Vec<Ordered> {
            let text = r#"[
                {"Id":"1","Labels":{"com.docker.swarm.task.id":"t"},"NetworkSettings":{"Networks":{"front":{"NetworkID":"abc"}}}},
                {"Id":"2","Labels":{},"NetworkSettings":{"Networks":{"bridge":{"NetworkID":"def"},"front":{"NetworkID":"abc"}}}},
                {"Id":"3","Labels":{},"NetworkSettings":{"Networks":{"bridge":{"NetworkID":"def"}}}}]"#;
            serde_json::from_str(text).unwrap()
        };
        for (query, ids) in [
            (r#"{"is-task":["true"]}"#, "1"),
            (r#"{"is-task":{"false":true}}"#, "23"),
            (r#"{"network":["front"]}"#, "12"),
            (r#"{"network":["ab"]}"#, "12"),
            (r#"{"network":["def","nope"]}"#, "23"),
            (r#"{"network":["front"],"is-task":["false"]}"#, "2"),
            (r#"{"network":["fro"]}"#, ""),
        ] {
            let encoded = encode(&[("filters".to_owned(), query.to_owned())]);
            let (_, wanted) = target(&encoded);
            let mut left = list();
            wanted.unwrap().keep(&mut left);
            let left: String = left
                .iter()
                .map(|container| container.text_of("Id"))
                .collect();
            assert_eq!(left, ids, "{query}");
        }
        let encoded = encode(&[
            ("filters".to_owned(), r#"{"network":["front"]}"#.to_owned()),
            ("limit".to_owned(), "1".to_owned()),
        ]);
        let mut left = list();
        target(&encoded).1.unwrap().keep(&mut left);
        assert_eq!(left.len(), 1);
    }
}
