//! Which container is meant: by `name`, `node/name`, id, or the beginning of an id.

use crate::{
    host::{Container, Host},
    wish::ID,
};

/// How a client names a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Name or id of its host, if said.
    node: Option<&'a str>,
    container: &'a str,
}

/// Why no container is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// There is none.
    #[error("No such container: {0}")]
    None(String),
    /// Several hosts have one of this name.
    #[error("{reference} is the name of containers on several nodes; say which: {choices}")]
    Several {
        /// What was asked for.
        reference: String,
        /// `node/name` of each, with commas.
        choices: String,
    },
    /// Several ids begin so.
    #[error("multiple IDs found with provided prefix: {0}")]
    Prefix(String),
}

impl<'a> Reference<'a> {
    /// What `text` names. Container names have no slash, so one sets the host apart.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let text = text.trim_start_matches('/');
        match text.rsplit_once('/') {
            Some((node, container)) => Self {
                node: Some(node),
                container,
            },
            None => Self {
                node: None,
                container: text,
            },
        }
    }

    /// The name or id of the container alone.
    #[must_use]
    pub fn container(&self) -> &'a str {
        self.container
    }

    /// The name or id of the host, if it is said.
    #[must_use]
    pub fn node(&self) -> Option<&'a str> {
        self.node
    }

    /// Whether `host` is, or may be, the one that is meant.
    #[must_use]
    pub fn may_be_on(&self, host: &Host) -> bool {
        self.node
            .is_none_or(|node| node == host.name || node == host.id)
    }

    /// Whether one of the containers of `host` is meant, by name or whole id.
    #[must_use]
    pub fn is_on(&self, host: &Host) -> bool {
        let mut containers = host.containers.iter();
        self.may_be_on(host)
            && containers.any(|other| other.id == self.container || self.names(other))
    }

    fn names(&self, container: &Container) -> bool {
        let mut names = container.names.iter();
        names.any(|name| name == self.container)
    }
}

/// The container that `reference` means, and its host: whole id first, then name, then a beginning
/// of an id that is unique over all hosts.
///
/// # Errors
/// When none is meant, or more than one.
pub fn find<'a>(hosts: &'a [Host], reference: &str) -> Result<(&'a Host, &'a Container), NotFound> {
    let asked = Reference::parse(reference);
    let all = || {
        let hosts = hosts.iter().filter(|host| asked.may_be_on(host));
        hosts.flat_map(|host| {
            host.containers
                .iter()
                .map(move |container| (host, container))
        })
    };
    let none = || NotFound::None(reference.to_owned());
    if asked.container.is_empty() {
        return Err(none());
    }
    let whole = all().find(|(_, container)| {
        container.id == asked.container
            || container
                .labels
                .get(ID)
                .is_some_and(|id| id == asked.container)
    });
    if let Some(found) = whole {
        return Ok(found);
    }
    let named: Vec<_> = all()
        .filter(|(_, container)| asked.names(container))
        .collect();
    match named.as_slice() {
        [] => {}
        [found] => return Ok(*found),
        several => {
            let choices = several
                .iter()
                .map(|(host, _)| format!("{}/{}", host.name, asked.container));
            return Err(NotFound::Several {
                reference: reference.to_owned(),
                choices: choices.collect::<Vec<_>>().join(", "),
            });
        }
    }
    let mut begun = all().filter(|(_, container)| container.id.starts_with(asked.container));
    match (begun.next(), begun.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(none()),
        (Some(_), Some(_)) => Err(NotFound::Prefix(reference.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(rows: &[(&str, &[(&str, &str)])]) -> Vec<Host> {
        let rows = rows.iter();
        rows.map(|(name, containers)| Host {
            id: format!("id-{name}"),
            name: (*name).to_owned(),
            containers: containers
                .iter()
                .map(|(id, name)| Container {
                    id: (*id).to_owned(),
                    names: vec![(*name).to_owned()],
                    ..Container::default()
                })
                .collect(),
            ..Host::default()
        })
        .collect()
    }

    #[test]
    fn names_ids_and_beginnings() {
        let hosts = hosts(&[
            ("n1", &[("abc1", "web"), ("abd2", "db")]),
            ("n2", &[("abc3", "web"), ("fff4", "abc1")]),
        ]);
        let found = |text: &str| {
            find(&hosts, text)
                .map(|(host, container)| format!("{}:{}", host.name, container.id))
                .map_err(|why| why.to_string())
        };
        assert_eq!(found("db"), Ok("n1:abd2".into()));
        assert_eq!(found("/db"), Ok("n1:abd2".into()));
        assert_eq!(found("n2/web"), Ok("n2:abc3".into()));
        assert_eq!(found("id-n1/web"), Ok("n1:abc1".into()));
        assert_eq!(found("abc1"), Ok("n1:abc1".into()), "ids before names");
        assert_eq!(found("abd"), Ok("n1:abd2".into()));
        assert_eq!(found("n2/abc"), Ok("n2:abc3".into()));
        assert_eq!(found("nope"), Err("No such container: nope".into()));
        assert_eq!(found("n3/web"), Err("No such container: n3/web".into()));
        assert_eq!(found(""), Err("No such container: ".into()));
        assert_eq!(
            found("abc"),
            Err("multiple IDs found with provided prefix: abc".into())
        );
        assert!(found("web").expect_err("two").ends_with("n1/web, n2/web"));
    }

    #[test]
    fn the_id_in_the_cluster_is_as_good_as_the_engine_s() {
        let mut hosts = hosts(&[("n1", &[("abc1", "web")]), ("n2", &[("abc3", "db")])]);
        let labels = &mut hosts[1].containers[0].labels;
        labels.insert(ID.to_owned(), "feed".to_owned());
        let found = find(&hosts, "feed").map(|(_, container)| container.id.as_str());
        assert_eq!(found, Ok("abc3"));
    }

    proptest! {
        #[test]
        fn what_is_found_fits(ids in prop::collection::btree_set("[ab]{1,4}", 1..8), asked in "[ab]{0,4}") {
            let ids: Vec<String> = ids.into_iter().collect();
            let rows: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "x")).collect();
            let (left, right) = rows.split_at(rows.len() / 2);
            let hosts = hosts(&[("n1", left), ("n2", right)]);
            let fits = ids.iter().filter(|id| id.starts_with(&asked)).count();
            match find(&hosts, &asked) {
                Ok((_, found)) => prop_assert!(found.id == asked || fits == 1),
                Err(_) => prop_assert!(asked.is_empty() || fits != 1),
            }
        }
    }
}
