//! `docker commit`: an image begins with the user's program, not with the gate that was put before it.

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::{GATE, run};
use crate::{
    door::{Asked, Door},
    reply::Reply,
};

impl Door {
    pub(crate) async fn commit_container(&self, mut asked: Asked) -> Reply {
        let container = asked.query.get("container").to_owned();
        if let Some(config) = self.gated(&container).await
            && let Some(body) = ungated(&asked.body, &config)
        {
            asked.body = body;
            // A client with nothing to say about the image sends no body, and says no type.
            let kind = asked.parts.headers.entry(header::CONTENT_TYPE);
            kind.or_insert(HeaderValue::from_static("application/json"));
            // Labels of the container are the image's: one from it would wish for networks unasked.
            let wishes = config["Labels"][run::LABEL].is_string();
            let target = format!("{}&changes=LABEL%20{}%3D%22%22", asked.target(), run::LABEL);
            if wishes && let Ok(target) = target.parse() {
                asked.parts.uri = target;
            }
        }
        self.engine.pass_bytes(asked.parts, asked.body).await
    }

    /// The config of a container that has a gate before its program.
    async fn gated(&self, container: &str) -> Option<Value> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if container.is_empty() || !container.bytes().all(plain) {
            return None;
        }
        let path = format!("/containers/{container}/json");
        let (_, mut found) = self.engine.get(&path).await.ok()?;
        let config = found["Config"].take();
        (config["Entrypoint"][0] == GATE).then_some(config)
    }
}

/// The settings that a client asks the image to have, with the program of `config` where it asks for none of its own.
fn ungated(body: &[u8], config: &Value) -> Option<Bytes> {
    let asked: Value = match body.trim_ascii() {
        b"" => Value::Null,
        text => serde_json::from_slice(text).ok()?,
    };
    let mut asked = match asked {
        Value::Null => json!({}),
        Value::Object(_) => asked,
        _ => return None,
    };
    let given = |value: &Value| value.as_array().is_some_and(|words| !words.is_empty());
    if given(&asked["Entrypoint"]) {
        return None;
    }
    let mut entrypoint = config["Entrypoint"].as_array()?.clone();
    entrypoint.remove(0);
    asked["Entrypoint"] = entrypoint.into();
    if !given(&asked["Cmd"]) {
        asked["Cmd"] = config["Cmd"].clone();
    }
    Some(asked.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_the_program_and_what_is_asked_for_it() {
        let config = json!({"Entrypoint": [GATE, "tini", "--"], "Cmd": ["serve"]});
        let image = |body: &str| {
            let body = ungated(body.as_bytes(), &config)?;
            serde_json::from_slice::<Value>(&body).ok()
        };
        let program = json!({"Entrypoint": ["tini", "--"], "Cmd": ["serve"]});
        assert_eq!(image(""), Some(program.clone()));
        assert_eq!(image("null\n"), Some(program));
        let asked = json!({"User": "u", "Cmd": ["other"], "Entrypoint": ["tini", "--"]});
        assert_eq!(
            image(r#"{"User":"u","Cmd":["other"],"Entrypoint":null}"#),
            Some(asked)
        );
        assert_eq!(image(r#"{"Entrypoint":["own"]}"#), None);
        assert_eq!(image("[1]"), None);
        assert_eq!(image("{"), None);
    }
}
