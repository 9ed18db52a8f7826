//! Specs as services and tasks show them, borrowed: a list of a thousand services copies none of them.

use serde::Serialize;
use weft_types::{
    Labels, Rest,
    container::ContainerSpec,
    service::{
        EndpointMode, EndpointSpec, NetworkAttachmentConfig, PortConfig, ServiceMode, ServiceSpec,
        UpdateConfig,
    },
    task::{
        LogDriver, NetworkAttachmentSpec, Placement, ResourceRequirements, RestartPolicy, TaskSpec,
    },
};

/// A service's spec as it is echoed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SpecView<'a> {
    name: &'a str,
    labels: &'a Labels,
    task_template: TemplateView<'a>,
    mode: ServiceMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_config: Option<&'a UpdateConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_config: Option<&'a UpdateConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<&'a [NetworkAttachmentConfig]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_spec: Option<EndpointSpecView<'a>>,
    #[serde(flatten)]
    rest: &'a Rest,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointSpecView<'a> {
    mode: EndpointMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<&'a [PortConfig]>,
}

impl<'a> From<&'a ServiceSpec> for SpecView<'a> {
    fn from(spec: &'a ServiceSpec) -> Self {
        // Named one by one, so that a new field cannot be forgotten here.
        let ServiceSpec {
            name,
            labels,
            task_template,
            mode,
            update_config,
            rollback_config,
            networks,
            endpoint_spec,
            rest,
        } = spec;
        let mut mode = mode.clone();
        // Whatever the store holds, the client must find these or it crashes.
        let _ = crate::spec::complete_mode(&mut mode);
        let has_container = task_template.container_spec.is_some();
        let runtime = match task_template.runtime.as_deref() {
            _ if has_container => Some("container"),
            runtime => runtime,
        };
        Self {
            name,
            labels,
            task_template: TemplateView::of(task_template, runtime),
            mode,
            update_config: update_config.as_ref(),
            rollback_config: rollback_config.as_ref(),
            networks: networks.as_deref(),
            endpoint_spec: endpoint_spec.as_ref().map(|EndpointSpec { mode, ports }| {
                EndpointSpecView {
                    mode: mode.unwrap_or_default(),
                    ports: ports.as_deref(),
                }
            }),
            rest,
        }
    }
}

/// What tasks are made from, with a runtime of the viewer's choice.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TemplateView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_spec: Option<&'a ContainerSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_attachment_spec: Option<&'a NetworkAttachmentSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<&'a ResourceRequirements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_policy: Option<&'a RestartPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<&'a Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<&'a [NetworkAttachmentConfig]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_driver: Option<&'a LogDriver>,
    force_update: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a str>,
    #[serde(flatten)]
    rest: &'a Rest,
}

impl<'a> TemplateView<'a> {
    fn of(spec: &'a TaskSpec, runtime: Option<&'a str>) -> Self {
        let TaskSpec {
            container_spec,
            network_attachment_spec,
            resources,
            restart_policy,
            placement,
            networks,
            log_driver,
            force_update,
            runtime: _,
            rest,
        } = spec;
        Self {
            container_spec: container_spec.as_ref(),
            network_attachment_spec: network_attachment_spec.as_ref(),
            resources: resources.as_ref(),
            restart_policy: restart_policy.as_ref(),
            placement: placement.as_ref(),
            networks: networks.as_deref(),
            log_driver: log_driver.as_ref(),
            force_update: *force_update,
            runtime,
            rest,
        }
    }

    /// As tasks show it: without the runtime that all of them have.
    pub(crate) fn of_task(spec: &'a TaskSpec) -> Self {
        let runtime = spec.runtime.as_deref();
        Self::of(spec, runtime.filter(|runtime| *runtime != "container"))
    }
}
