//! `/secrets` and `/configs`.

use http::StatusCode;
use serde::Serialize;
use weft_proto::ControlRequest;
use weft_types::{
    secret::{Config, ConfigSpec, Secret, SecretSpec},
    validate,
};

use crate::{
    body::parse_spec,
    door::{Asked, Door, expect_one, expect_reply},
    filter::Filters,
    go_types,
    reply::{ApiError, Reply, empty, json, ok},
    route::ObjectRoute,
    version::ApiVersion,
    view::SecretView,
};

/// The id of what was made.
#[derive(Debug, Serialize)]
pub(crate) struct CreatedView {
    #[serde(rename = "ID")]
    pub(crate) id: String,
}

impl Door {
    pub(crate) async fn secrets(&self, route: ObjectRoute, asked: &Asked) -> Reply {
        match route {
            ObjectRoute::List => {
                let filters = Filters::of(asked, &["id", "label", "name", "names"])?;
                let secrets = expect_reply!(self.ask(ControlRequest::ListSecrets).await?, Secrets)?;
                let fits = |secret: &Secret| fits(&filters, secret.id.as_str(), &secret.spec);
                Ok(ok(&views(secrets, fits)))
            }
            ObjectRoute::Inspect(id) => {
                let secret = expect_one!(self.ask(ControlRequest::GetSecret(id)).await?, Secrets)?;
                Ok(ok(&SecretView::from(secret)))
            }
            ObjectRoute::Create => {
                let spec: SecretSpec = parse_spec(&asked.body, &go_types::SECRET)?;
                check_templating(asked, &spec, "secret")?;
                self.manager().await?;
                validate::secret_spec(&spec)?;
                let request = ControlRequest::CreateSecret(Box::new(spec));
                let id = expect_reply!(self.ask(request).await?, Created)?;
                Ok(json(StatusCode::CREATED, &CreatedView { id }))
            }
            ObjectRoute::Update(secret) => {
                let spec: SecretSpec = parse_spec(&asked.body, &go_types::SECRET)?;
                let version = version(asked, "secret")?;
                self.ask(ControlRequest::UpdateSecret {
                    secret,
                    version,
                    spec: Box::new(spec),
                })
                .await?;
                Ok(empty(StatusCode::OK))
            }
            ObjectRoute::Remove(id) => {
                self.ask(ControlRequest::RemoveSecret(id)).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            ObjectRoute::Logs(_) => Err(ApiError::no_page()),
        }
    }

    pub(crate) async fn configs(&self, route: ObjectRoute, asked: &Asked) -> Reply {
        match route {
            ObjectRoute::List => {
                let filters = Filters::of(asked, &["id", "label", "name", "names"])?;
                let configs = expect_reply!(self.ask(ControlRequest::ListConfigs).await?, Configs)?;
                let fits = |config: &Config| fits(&filters, config.id.as_str(), &config.spec);
                Ok(ok(&views(configs, fits)))
            }
            ObjectRoute::Inspect(id) => {
                let config = expect_one!(self.ask(ControlRequest::GetConfig(id)).await?, Configs)?;
                Ok(ok(&SecretView::from(config)))
            }
            ObjectRoute::Create => {
                let spec: ConfigSpec = parse_spec(&asked.body, &go_types::CONFIG)?;
                check_templating(asked, &spec, "config")?;
                self.manager().await?;
                validate::config_spec(&spec)?;
                let request = ControlRequest::CreateConfig(Box::new(spec));
                let id = expect_reply!(self.ask(request).await?, Created)?;
                Ok(json(StatusCode::CREATED, &CreatedView { id }))
            }
            ObjectRoute::Update(config) => {
                let spec: ConfigSpec = parse_spec(&asked.body, &go_types::CONFIG)?;
                let version = version(asked, "config")?;
                self.ask(ControlRequest::UpdateConfig {
                    config,
                    version,
                    spec: Box::new(spec),
                })
                .await?;
                Ok(empty(StatusCode::OK))
            }
            ObjectRoute::Remove(id) => {
                self.ask(ControlRequest::RemoveConfig(id)).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            ObjectRoute::Logs(_) => Err(ApiError::no_page()),
        }
    }
}

fn fits(filters: &Filters, id: &str, spec: &SecretSpec) -> bool {
    filters.prefix("id", id)
        && filters.prefix("name", &spec.name)
        && filters.exact("names", &spec.name)
        && filters.labels("label", &spec.labels)
}

fn views<T: Into<SecretView>>(objects: Vec<T>, fits: impl Fn(&T) -> bool) -> Vec<SecretView> {
    let kept = objects.into_iter().filter(fits);
    kept.map(Into::into).collect()
}

/// Templates came with API 1.37.
fn check_templating(asked: &Asked, spec: &SecretSpec, kind: &str) -> Result<(), ApiError> {
    if spec.templating.is_some() && asked.version < ApiVersion::new(1, 37) {
        return Err(ApiError::bad(format!(
            "{kind} templating is not supported on the specified API version: {}",
            asked.version
        )));
    }
    Ok(())
}

/// Docker words a bad version of these two more shortly.
fn version(asked: &Asked, kind: &str) -> Result<u64, ApiError> {
    let version = asked.query.version(kind);
    version.map_err(|_| ApiError::bad(format!("invalid {kind} version")))
}
