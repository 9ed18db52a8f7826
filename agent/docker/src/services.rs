//! `/services`.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;
use serde::Serialize;
use weft_proto::ControlRequest;
use weft_types::{ServiceId, TaskState, service::Service, task::Task};

use crate::{
    body::parse_due,
    dated,
    door::{Asked, Door, expect_one, expect_reply},
    filter::Filters,
    go_types,
    reply::{ApiError, Reply, empty, json, ok},
    secrets::CreatedView,
    spec,
    version::ApiVersion,
    view::ServiceView,
};

/// How many of a service's tasks run, should run, and have completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceStatus {
    running_tasks: u64,
    desired_tasks: u64,
    completed_tasks: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Warnings {
    warnings: Option<Vec<String>>,
}

/// What creating a service answers from API 1.44 on: `Warnings` even when there are none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreatedService {
    #[serde(rename = "ID")]
    id: String,
    warnings: Option<Vec<String>>,
}

impl Door {
    pub(crate) async fn list_services(&self, asked: &Asked) -> Reply {
        let known = ["id", "label", "mode", "name", "runtime"];
        let filters = Filters::of(asked, &known)?;
        let services = expect_reply!(self.ask(ControlRequest::ListServices).await?, Services)?;
        let fits = |service: &&Arc<Service>| {
            filters.prefix("id", service.id.as_str())
                && filters.prefix("name", &service.spec.name)
                && filters.labels("label", &service.spec.labels)
                && filters.exact("mode", mode_name(service))
                && filters.exact("runtime", "container")
        };
        let services: Vec<&Arc<Service>> = services.iter().filter(fits).collect();
        let with_status = asked.version >= ApiVersion::new(1, 41) && asked.query.truth("status")?;
        let mut by_service: BTreeMap<ServiceId, Vec<Arc<Task>>> = BTreeMap::new();
        if with_status && !services.is_empty() {
            let request = ControlRequest::ListTasks {
                services: services.iter().map(|service| service.id).collect(),
                nodes: vec![],
                desired: vec![],
                up_to_date: false,
            };
            for task in expect_reply!(self.ask(request).await?, Tasks)? {
                if let Some(service) = task.service_id {
                    by_service.entry(service).or_default().push(task);
                }
            }
        }
        let views: Vec<ServiceView<'_>> = services
            .into_iter()
            .map(|service| {
                let tasks = by_service.get(&service.id).map(Vec::as_slice);
                let status = with_status.then(|| count(service, tasks.unwrap_or_default()));
                ServiceView::of(service, status)
            })
            .collect();
        Ok(ok(&views))
    }

    pub(crate) async fn inspect_service(&self, id: String, asked: &Asked) -> Reply {
        let insert_defaults = asked.query.truth("insertDefaults")?;
        let request = ControlRequest::GetService(id);
        let mut service = expect_one!(self.ask(request).await?, Services)?;
        if insert_defaults {
            spec::insert_defaults(&mut Arc::make_mut(&mut service).spec);
        }
        Ok(ok(&ServiceView::of(&service, None)))
    }

    pub(crate) async fn create_service(&self, asked: &Asked) -> Reply {
        let mut value = parse_due(&asked.body, &go_types::SERVICE)?;
        dated::leave_out(&mut value, dated::SERVICE, asked.version);
        self.manager().await?;
        self.name_node_networks(&mut value).await;
        let request = ControlRequest::CreateService {
            spec: Box::new(spec::service(value)?),
            registry_auth: asked.header("X-Registry-Auth").to_owned(),
        };
        let id = expect_reply!(self.ask(request).await?, Created)?;
        if asked.version >= ApiVersion::new(1, 44) {
            let created = CreatedService { id, warnings: None };
            return Ok(json(StatusCode::CREATED, &created));
        }
        Ok(json(StatusCode::CREATED, &CreatedView { id }))
    }

    pub(crate) async fn update_service(&self, id: String, asked: &Asked) -> Reply {
        let mut value = parse_due(&asked.body, &go_types::SERVICE)?;
        dated::leave_out(&mut value, dated::SERVICE, asked.version);
        let version = asked.query.version("service")?;
        self.manager().await?;
        self.name_node_networks(&mut value).await;
        let rollback = match asked.query.get("rollback") {
            "" | "none" => false,
            "previous" => true,
            other => {
                let message = format!("unrecognized rollback option {other}");
                return Err(ApiError::internal(message));
            }
        };
        let from = asked.query.get("registryAuthFrom");
        if !["", "spec", "previous-spec"].contains(&from) {
            return Err(ApiError::internal("unsupported registryAuthFrom value"));
        }
        let auth = asked.header("X-Registry-Auth");
        let spec = Box::new(spec::service(value)?);
        if auth.is_empty() && from == "previous-spec" {
            let request = ControlRequest::GetService(id.clone());
            let stored = expect_one!(self.ask(request).await?, Services)?;
            if stored.previous_spec.is_none() {
                let message = "service does not have a previous spec";
                return Err(ApiError::internal(message));
            }
        }
        let request = ControlRequest::UpdateService {
            service: id,
            version,
            spec,
            registry_auth: (!auth.is_empty()).then(|| auth.to_owned()),
            auth_from_previous: from == "previous-spec",
            rollback,
        };
        self.ask(request).await?;
        Ok(ok(&Warnings { warnings: None }))
    }

    pub(crate) async fn remove_service(&self, id: String) -> Reply {
        self.ask(ControlRequest::RemoveService(id)).await?;
        Ok(empty(StatusCode::OK))
    }
}

fn mode_name(service: &Service) -> &'static str {
    let mode = &service.spec.mode;
    if mode.global.is_some() {
        "global"
    } else if mode.replicated_job.is_some() {
        "replicated-job"
    } else if mode.global_job.is_some() {
        "global-job"
    } else {
        "replicated"
    }
}

/// Docker's rule: running counts what is seen running whatever is wished; jobs count their
/// current iteration only.
fn count(service: &Service, tasks: &[Arc<Task>]) -> ServiceStatus {
    let mode = &service.spec.mode;
    let job = mode.replicated_job.is_some() || mode.global_job.is_some();
    let iteration = service.job_status.unwrap_or_default().job_iteration;
    let tasks: Vec<&Task> = tasks
        .iter()
        .map(Arc::as_ref)
        .filter(|task| !job || task.job_iteration.unwrap_or_default() == iteration)
        .collect();
    let number =
        |test: &dyn Fn(&Task) -> bool| tasks.iter().filter(|task| test(task)).count() as u64;
    let completed = number(&|task| task.status.state == TaskState::Complete);
    let desired = if mode.global.is_some() {
        number(&|task| task.desired_state == TaskState::Running)
    } else if let Some(mode) = mode.replicated_job {
        mode.max_concurrent.unwrap_or(1)
    } else if mode.global_job.is_some() {
        number(&|task| {
            task.desired_state == TaskState::Complete && task.status.state != TaskState::Complete
        })
    } else {
        service.replicas().unwrap_or(1)
    };
    ServiceStatus {
        running_tasks: number(&|task| task.status.state == TaskState::Running),
        desired_tasks: desired,
        completed_tasks: if job { completed } else { 0 },
    }
}
