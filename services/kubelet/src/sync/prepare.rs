//! What must exist before a pod's containers: folders, cgroup, objects, tokens and volumes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use client::resource::Resource;

use super::PodSync;
use super::env::Kind;
use super::{dns, sandbox};
use crate::objects;
use crate::pod::Pod;
use crate::volumes::{self, claim, payload};

const CLAIMS: Resource = Resource::new("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true);
const VOLUMES: Resource = Resource::new("", "v1", "persistentvolumes", "PersistentVolume", false);

impl PodSync {
    pub(super) async fn prepare(&mut self, pod: &Arc<Pod>) -> Result<(), String> {
        let folder = volumes::pod_folder(&self.shared.root, &pod.metadata.uid);
        for path in [folder.join("volumes"), folder.join("containers"), PathBuf::from(pod.log_directory())] {
            std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        if let Some(cgroups) = &self.shared.cgroups {
            let made = cgroups.ensure(pod).and_then(|()| cgroups.balance(&self.shared.admitted.pods()));
            made.map_err(|e| {
                self.failed(pod, "FailedCreatePodContainer", format!("unable to ensure pod container exists: {e}"))
            })?;
        }
        self.shared.claims.prepare(pod).await.map_err(|e| {
            let error = format!("Failed to prepare dynamic resources: {e}");
            self.failed(pod, "FailedPrepareDynamicResources", error)
        })?;
        let wanted = objects::references(pod);
        self.shared.objects.refer(&pod.metadata.uid, &wanted);
        let made = match self.shared.objects.ready(&wanted).await {
            Ok(()) => self.make_volumes(pod).await,
            Err(error) => Err(error),
        };
        match (made, &self.mounted) {
            (Ok(mounted), _) => {
                self.mounted = Some(mounted);
                Ok(())
            }
            // What runs keeps the content it has.
            (Err(error), Some(_)) => {
                tracing::warn!(pod = %pod.full_name(), %error, "volumes not updated");
                Ok(())
            }
            (Err(error), None) => Err(self.failed(pod, "FailedMount", error)),
        }
    }

    /// Tells users about a failure that the pod's containers do not show.
    pub(super) fn failed(&self, pod: &Pod, reason: &'static str, error: String) -> String {
        self.shared.event(pod, true, reason, error.clone());
        error
    }

    /// Finds the persistent volumes behind claims. What was found once stays: a bound claim never changes its volume.
    async fn resolve_claims(&mut self, pod: &Arc<Pod>) -> Result<(), String> {
        for volume in &pod.spec.volumes {
            let Some(name) = claim::name(pod, volume) else { continue };
            if self.claims.contains_key(&volume.name) {
                continue;
            }
            let api = &self.shared.client;
            let namespace = &pod.metadata.namespace;
            let found = api.get(CLAIMS, Some(namespace), &name).await;
            let found = found.map_err(|e| format!("error getting PVC \"{namespace}/{name}\": {e}"))?;
            let bound = claim::bound(pod, volume, &found)?;
            let pv = api.get(VOLUMES, None, &bound).await.map_err(|e| format!("error getting PV {bound:?}: {e}"))?;
            claim::check(&found, &pv, &self.shared.node_view(pod)?)?;
            self.claims.insert(volume.name.clone(), Arc::new(pv));
        }
        Ok(())
    }

    async fn make_volumes(&mut self, pod: &Arc<Pod>) -> Result<volumes::Mounted, String> {
        self.resolve_claims(pod).await?;
        let mut tokens = HashMap::new();
        for (audience, seconds) in payload::wanted_tokens(pod) {
            let token = self.shared.tokens.get(pod, &audience, seconds).await?;
            tokens.insert((audience, seconds), token);
        }
        self.shared.trust_bundles.ready(pod).await?;
        let prepared = self.mount_by_drivers(pod).await?;
        let around = self.shared.surroundings(pod, &[]);
        let namespace = &pod.metadata.namespace;
        let lookup = |kind: Kind, name: &str| self.shared.objects.get(kind, namespace, name);
        let sources = payload::Sources {
            pod,
            around: &around,
            lookup: &lookup,
            volumes: &self.claims,
            prepared: &prepared,
            anchors: &|projection| self.shared.trust_bundles.anchors(projection),
            tokens: &tokens,
        };
        volumes::setup(&self.shared.root, pod, &sources)
    }

    /// The volumes of CSI drivers.
    async fn mount_by_drivers(&self, pod: &Arc<Pod>) -> Result<volumes::Mounted, String> {
        let (csi, tokens) = (&self.shared.csi, &self.shared.tokens);
        let mut mounted = volumes::Mounted::new();
        for volume in &pod.spec.volumes {
            let pv = self.claims.get(&volume.name).map(|pv| &**pv);
            let source = csi.mount(pod, volume, pv, tokens).await;
            let source = source.map_err(|e| volumes::failed(volume, &e))?;
            if let Some(source) = source {
                mounted.insert(volume.name.clone(), source);
                if let Err(error) = csi.grow(pod, volume).await {
                    self.shared.event(pod, true, "VolumeResizeFailed", error);
                }
            }
        }
        Ok(mounted)
    }

    pub(super) fn sandbox_config(&self, pod: &Pod, attempt: u32) -> Result<cri_api::v1::PodSandboxConfig, String> {
        if pod.spec.host_users == Some(false) {
            return Err("can't set `spec.hostUsers: false`, runtime does not support user namespaces".into());
        }
        let config = &self.shared.config;
        let text = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
        let (host_name, _) = dns::host_name(pod, &self.shared.node_name, &config.cluster_domain);
        if host_name.len() > dns::HOST_NAME_MAX {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {host_name} is too long ({} characters is the max, {} characters requested)",
                dns::HOST_NAME_MAX,
                host_name.len()
            ));
        }
        let mut resolver = dns::resolver(pod, &dns::parse(&text), &config.cluster_dns, &config.cluster_domain);
        for told in dns::fit(&mut resolver) {
            self.shared.event(pod, true, "DNSConfigForming", told);
        }
        let around = sandbox::Surroundings {
            host_name,
            resolver,
            cgroup_parent: self.shared.cgroups.as_ref().map(|c| c.parent(pod)).unwrap_or_default(),
        };
        Ok(sandbox::config(pod, attempt, &around))
    }

    pub(super) fn hosts_path(&self, pod: &Pod) -> PathBuf {
        volumes::pod_folder(&self.shared.root, &pod.metadata.uid).join("etc-hosts")
    }

    /// Writes the hosts file in place: it is mounted into running containers.
    pub(super) fn write_hosts(&self, pod: &Pod, ips: &[String]) -> Result<(), String> {
        let node_hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let (name, full) = dns::host_name(pod, &self.shared.node_name, &self.shared.config.cluster_domain);
        let text = dns::hosts_file(pod, ips, &name, full.as_deref(), &node_hosts);
        let path = self.hosts_path(pod);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
    }
}
