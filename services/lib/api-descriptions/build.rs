//! Takes the descriptions of types and fields out of the published schemas of Kubernetes v1.35, as the k8s-openapi crate has them, and leaves
//! them as one compressed JSON text: the type's name to its description and those of its fields.

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::schemars::generate::SchemaSettings;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

/// Adds types of a module to a generator, with whatever they refer to, and says what they are called.
macro_rules! add {
    ($generator:ident, $($part:ident)::+ : $($name:ident)*) => {{
        use k8s_openapi::$($part)::+ as module;
        $(let _ = $generator.subschema_for::<module::$name>();)*
        [$(<module::$name as JsonSchema>::schema_name()),*]
    }};
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut generator = SchemaSettings::openapi3().into_generator();
    let kinds = add_kinds(&mut generator);
    add_types(&mut generator);
    let mut types: Map<String, Value> =
        generator.take_definitions(true).into_iter().map(|(name, schema)| (name, texts(&schema))).collect();
    for name in kinds {
        let list = of_list(&name, &types[name.as_ref()]);
        types.insert(format!("{name}List"), list);
    }
    let file = std::fs::File::create(Path::new(&std::env::var("OUT_DIR")?).join("descriptions.json.gz"))?;
    let mut packer = GzEncoder::new(file, Compression::best());
    packer.write_all(Value::Object(types).to_string().as_bytes())?;
    packer.finish()?;
    Ok(())
}

/// Kinds with objects that are stored.
fn add_kinds(generator: &mut SchemaGenerator) -> Vec<Cow<'static, str>> {
    let mut names = Vec::new();
    names
        .extend(add!(generator, api::admissionregistration::v1: MutatingWebhookConfiguration ValidatingAdmissionPolicy
        ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration));
    names.extend(add!(generator, api::apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet));
    names.extend(add!(generator, api::autoscaling::v1: HorizontalPodAutoscaler));
    names.extend(add!(generator, api::autoscaling::v2: HorizontalPodAutoscaler));
    names.extend(add!(generator, api::batch::v1: CronJob Job));
    names.extend(add!(generator, api::certificates::v1: CertificateSigningRequest));
    names.extend(add!(generator, api::coordination::v1: Lease));
    names.extend(add!(generator, api::core::v1: ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
        PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount));
    names.extend(add!(generator, api::discovery::v1: EndpointSlice));
    names.extend(add!(generator, api::events::v1: Event));
    names.extend(add!(generator, api::flowcontrol::v1: FlowSchema PriorityLevelConfiguration));
    names.extend(add!(generator, api::networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR));
    names.extend(add!(generator, api::node::v1: RuntimeClass));
    names.extend(add!(generator, api::policy::v1: PodDisruptionBudget));
    names.extend(add!(generator, api::rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding));
    names.extend(add!(generator, api::resource::v1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice));
    names.extend(add!(generator, api::scheduling::v1: PriorityClass));
    names.extend(add!(generator, api::storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
        VolumeAttributesClass));
    names.extend(add!(generator, apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition));
    names.extend(add!(generator, kube_aggregator::pkg::apis::apiregistration::v1: APIService));
    names
}

/// What is sent but not stored.
fn add_types(generator: &mut SchemaGenerator) {
    add!(generator, api::authentication::v1: SelfSubjectReview TokenRequest TokenReview);
    add!(generator, api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
        SubjectAccessReview);
    add!(generator, api::autoscaling::v1: Scale);
    add!(generator, api::core::v1: Binding);
    add!(generator, api::policy::v1: Eviction);
    add!(generator, apimachinery::pkg::apis::meta::v1: APIGroup APIGroupList APIResourceList APIVersions DeleteOptions
        Status);
}

/// The description of a type and those of its fields.
fn texts(schema: &Value) -> Value {
    let fields: Map<String, Value> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, field)| (name.clone(), field["description"].clone()))
        .filter(|(_, text)| text.is_string())
        .collect();
    json!([schema["description"], fields])
}

/// The list of a kind has no type of its own there.
fn of_list(name: &str, kind: &Value) -> Value {
    let short = name.rsplit('.').next().unwrap_or_default();
    let fields = json!({
        "apiVersion": kind[1]["apiVersion"],
        "items": format!("The {short} objects of the list."),
        "kind": kind[1]["kind"],
        "metadata": "The resource version that the list shows, and how to go on if it is only a part.",
    });
    json!([format!("{short}List is a list of {short} objects."), fields])
}
