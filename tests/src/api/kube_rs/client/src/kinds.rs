//! Every kind that the client has a type for, with where its objects are.

use std::collections::BTreeMap;

use kube::{Api, Client};
use serde_json::Value;

use crate::NAMESPACE;
use crate::life;

/// Runs `life` over a list of types: of a namespace, or of the whole cluster.
macro_rules! each {
    ($client:ident, $corpus:ident, $made:ident, $wrong:ident; $($place:ident $kind:ty),* $(,)?) => {
        $({
            let path = <$kind as kube::Resource>::url_path(&(), each!(@namespace $place));
            if let Some(object) = $corpus.get(&path).filter(|o| !o.is_null()) {
                $made += 1;
                if let Err(error) = life::run::<$kind>(each!(@api $place $client), object).await {
                    $wrong.push(format!("{path}: {error:#}"));
                }
            } else {
                $wrong.push(format!("{path}: not in the corpus"));
            }
        })*
    };
    (@namespace cluster) => { None };
    (@namespace within) => { Some(NAMESPACE) };
    (@api cluster $client:ident) => { Api::all($client.clone()) };
    (@api within $client:ident) => { Api::namespaced($client.clone(), NAMESPACE) };
}

/// How many kinds there were, and what went wrong.
pub async fn all(client: &Client, corpus: &BTreeMap<String, Value>) -> (usize, Vec<String>) {
    use k8s_openapi::api::{
        admissionregistration::v1 as admission, apps::v1 as apps, autoscaling, batch::v1 as batch,
        certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
        discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol, networking::v1 as networking,
        node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, resource::v1 as resource,
        scheduling::v1 as scheduling, storage::v1 as storage,
    };
    let (mut made, mut wrong) = (0, Vec::new());
    each! { client, corpus, made, wrong;
        cluster admission::MutatingWebhookConfiguration, cluster admission::ValidatingWebhookConfiguration,
        cluster admission::ValidatingAdmissionPolicy, cluster admission::ValidatingAdmissionPolicyBinding,
        within apps::ControllerRevision, within apps::DaemonSet, within apps::Deployment, within apps::ReplicaSet,
        within apps::StatefulSet, within autoscaling::v1::HorizontalPodAutoscaler,
        within autoscaling::v2::HorizontalPodAutoscaler, within batch::CronJob, within batch::Job,
        cluster certificates::CertificateSigningRequest, within coordination::Lease,
    }
    each! { client, corpus, made, wrong;
        within core::ConfigMap, within core::Endpoints, within core::Event, within core::LimitRange,
        cluster core::Namespace, cluster core::Node, cluster core::PersistentVolume,
        within core::PersistentVolumeClaim, within core::Pod, within core::PodTemplate,
        within core::ReplicationController, within core::ResourceQuota, within core::Secret, within core::Service,
        within core::ServiceAccount, within discovery::EndpointSlice, within events::Event,
        cluster flowcontrol::FlowSchema, cluster flowcontrol::PriorityLevelConfiguration,
    }
    each! { client, corpus, made, wrong;
        within networking::Ingress, cluster networking::IngressClass, within networking::NetworkPolicy,
        cluster networking::IPAddress, cluster networking::ServiceCIDR, cluster node::RuntimeClass,
        within policy::PodDisruptionBudget, within rbac::Role, within rbac::RoleBinding, cluster rbac::ClusterRole,
        cluster rbac::ClusterRoleBinding, cluster resource::DeviceClass, within resource::ResourceClaim,
        within resource::ResourceClaimTemplate, cluster resource::ResourceSlice, cluster scheduling::PriorityClass,
        cluster storage::CSIDriver, cluster storage::CSINode, within storage::CSIStorageCapacity,
        cluster storage::StorageClass, cluster storage::VolumeAttachment, cluster storage::VolumeAttributesClass,
    }
    (made, wrong)
}
