//! The resources that only controllers use; those that other processes know too are in `client::resource`.

use client::Resource;

const fn core(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource<'static> {
    Resource::new("", "v1", plural, kind, namespaced)
}

/// core/v1 ReplicationController.
pub const REPLICATIONCONTROLLERS: Resource = core("replicationcontrollers", "ReplicationController", true);
/// core/v1 PersistentVolumeClaim.
pub const PERSISTENTVOLUMECLAIMS: Resource = core("persistentvolumeclaims", "PersistentVolumeClaim", true);
/// core/v1 PersistentVolume.
pub const PERSISTENTVOLUMES: Resource = core("persistentvolumes", "PersistentVolume", false);
/// core/v1 ResourceQuota.
pub const RESOURCEQUOTAS: Resource = core("resourcequotas", "ResourceQuota", true);
/// apps/v1 StatefulSet.
pub const STATEFULSETS: Resource = Resource::new("apps", "v1", "statefulsets", "StatefulSet", true);
/// apps/v1 DaemonSet.
pub const DAEMONSETS: Resource = Resource::new("apps", "v1", "daemonsets", "DaemonSet", true);
/// apps/v1 ControllerRevision.
pub const CONTROLLERREVISIONS: Resource =
    Resource::new("apps", "v1", "controllerrevisions", "ControllerRevision", true);
/// batch/v1 Job.
pub const JOBS: Resource = Resource::new("batch", "v1", "jobs", "Job", true);
/// batch/v1 CronJob.
pub const CRONJOBS: Resource = Resource::new("batch", "v1", "cronjobs", "CronJob", true);
/// policy/v1 PodDisruptionBudget.
pub const PODDISRUPTIONBUDGETS: Resource =
    Resource::new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true);
/// autoscaling/v2 HorizontalPodAutoscaler.
pub const HORIZONTALPODAUTOSCALERS: Resource =
    Resource::new("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true);
/// certificates.k8s.io/v1 CertificateSigningRequest.
pub const CERTIFICATESIGNINGREQUESTS: Resource =
    Resource::new("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false);
/// storage.k8s.io/v1 StorageClass.
pub const STORAGECLASSES: Resource = Resource::new("storage.k8s.io", "v1", "storageclasses", "StorageClass", false);
/// networking.k8s.io/v1 ServiceCIDR.
pub const SERVICECIDRS: Resource = Resource::new("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", false);
/// networking.k8s.io/v1 IPAddress.
pub const IPADDRESSES: Resource = Resource::new("networking.k8s.io", "v1", "ipaddresses", "IPAddress", false);
/// storage.k8s.io/v1 CSIDriver.
pub const CSIDRIVERS: Resource = Resource::new("storage.k8s.io", "v1", "csidrivers", "CSIDriver", false);
/// storage.k8s.io/v1 VolumeAttachment.
pub const VOLUMEATTACHMENTS: Resource =
    Resource::new("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", false);
/// storage.k8s.io/v1 VolumeAttributesClass.
pub const VOLUMEATTRIBUTESCLASSES: Resource =
    Resource::new("storage.k8s.io", "v1", "volumeattributesclasses", "VolumeAttributesClass", false);
/// resource.k8s.io/v1 ResourceClaim.
pub const RESOURCECLAIMS: Resource = Resource::new("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", true);
/// resource.k8s.io/v1 ResourceClaimTemplate.
pub const RESOURCECLAIMTEMPLATES: Resource =
    Resource::new("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate", true);
