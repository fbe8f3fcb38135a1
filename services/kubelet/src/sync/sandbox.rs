//! The CRI configuration of a pod's sandbox. Pure.

use std::collections::HashMap;

use cri_api::v1;

use super::dns::Resolver;
use super::security;
use crate::observed::labels;
use crate::pod::Pod;

/// What the node adds to a sandbox.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Host name of the pod.
    pub host_name: String,
    /// Its resolver.
    pub resolver: Resolver,
    /// Its cgroup, if pods have cgroups of their own.
    pub cgroup_parent: String,
}

/// Labels that tie a sandbox to its pod; the pod's own come along.
pub fn labels(pod: &Pod) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = pod.metadata.labels.clone().into_iter().collect();
    all.insert(labels::POD_NAME.into(), pod.metadata.name.clone());
    all.insert(labels::POD_NAMESPACE.into(), pod.metadata.namespace.clone());
    all.insert(labels::POD_UID.into(), pod.metadata.uid.clone());
    all
}

/// The configuration.
pub fn config(pod: &Pod, attempt: u32, around: &Surroundings) -> v1::PodSandboxConfig {
    let privileged = pod.all_containers().any(|c| c.security_context.privileged == Some(true));
    let context = &pod.spec.security_context;
    let mut sysctls: HashMap<String, String> = HashMap::new();
    for sysctl in &context.sysctls {
        sysctls.insert(sysctl.name.replace('/', "."), sysctl.value.clone());
    }
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            namespace: pod.metadata.namespace.clone(),
            attempt,
        }),
        hostname: if pod.spec.host_network { String::new() } else { around.host_name.clone() },
        log_directory: pod.log_directory(),
        dns_config: Some(v1::DnsConfig {
            servers: around.resolver.servers.clone(),
            searches: around.resolver.searches.clone(),
            options: around.resolver.options.clone(),
        }),
        port_mappings: if pod.spec.host_network { Vec::new() } else { port_mappings(pod) },
        labels: labels(pod),
        annotations: pod.metadata.annotations.clone().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: around.cgroup_parent.clone(),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(security::namespaces(pod)),
                run_as_user: context.run_as_user.map(|value| v1::Int64Value { value }),
                run_as_group: context.run_as_user.and(context.run_as_group).map(|value| v1::Int64Value { value }),
                supplemental_groups: security::groups(pod),
                supplemental_groups_policy: security::groups_policy(pod).into(),
                selinux_options: security::selinux(context.se_linux_options.as_ref()),
                privileged,
                seccomp: Some(security::profile(v1::security_profile::ProfileType::RuntimeDefault)),
                ..Default::default()
            }),
            sysctls,
            overhead: None,
            resources: None,
        }),
    }
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    let ports = pod.all_containers().flat_map(|c| &c.ports);
    ports
        .map(|p| v1::PortMapping {
            protocol: match p.protocol.as_str() {
                "UDP" => v1::Protocol::Udp,
                "SCTP" => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            }
            .into(),
            container_port: p.container_port,
            host_port: p.host_port,
            host_ip: p.host_ip.clone(),
        })
        .collect()
}
