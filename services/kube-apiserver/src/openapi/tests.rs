use super::*;

const ALL: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];
const STATUS: &[Subresource] = &[Subresource {
    name: "status",
    group: "apps",
    version: "v1",
    kind: "Deployment",
    verbs: &[Verb::Get, Verb::Patch, Verb::Update],
}];
const POD: &[Subresource] = &[
    Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &[Verb::Get] },
    Subresource { name: "exec", group: "", version: "v1", kind: "PodExecOptions", verbs: &[Verb::Get, Verb::Create] },
    Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &[Verb::Create] },
];

fn sample() -> Vec<Row<'static>> {
    let core =
        Row { group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true, verbs: ALL, subresources: POD };
    vec![
        core,
        Row { plural: "nodes", kind: "Node", namespaced: false, subresources: &[], ..core },
        Row { group: "apps", plural: "deployments", kind: "Deployment", subresources: STATUS, ..core },
        Row {
            group: "authorization.k8s.io",
            plural: "subjectaccessreviews",
            kind: "SubjectAccessReview",
            namespaced: false,
            verbs: &[Verb::Create],
            subresources: &[],
            ..core
        },
    ]
}

fn documents() -> BTreeMap<String, Value> {
    openapi(builtin(), &Descriptions::unpack(), &sample()).collect()
}

/// Every `$ref` of a document.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match value {
            Value::String(target) if key == "$ref" => found.push(target.clone()),
            other => references(other, found),
        }),
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn assert_closed(document: &Value) {
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
}

#[test]
fn kubectl_finds_what_it_looks_for_in_v3() {
    let documents = documents();
    assert_eq!(documents.keys().collect::<Vec<_>>(), ["api/v1", "apis/apps/v1", "apis/authorization.k8s.io/v1"]);
    documents.values().for_each(assert_closed);
    let apps = &documents["apis/apps/v1"];
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert!(
        patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
    );
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    let schemas = &apps["components"]["schemas"];
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(
        (&containers["x-kubernetes-patch-strategy"], &containers["x-kubernetes-patch-merge-key"]),
        (&json!("merge"), &json!("name"))
    );
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy");
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    assert!(schemas.get("io.k8s.api.core.v1.Node").is_none(), "only what is referred to is published");
    let core = &documents["api/v1"];
    assert_eq!(core["paths"]["/api/v1/pods"]["get"]["operationId"], "listCoreV1PodForAllNamespaces");
    assert_eq!(core["paths"]["/api/v1/nodes"]["delete"]["operationId"], "deleteCoreV1CollectionNode");
    assert_eq!(
        core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"]["x-kubernetes-action"],
        "connect"
    );
    assert!(core["components"]["schemas"].get("io.k8s.api.policy.v1.Eviction").is_some());
}

#[test]
fn v2_is_closed_and_has_the_operations() {
    let document = swagger(builtin(), &sample());
    assert_closed(&document);
    assert_eq!(document["swagger"], "2.0");
    let create = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["post"];
    assert_eq!(create["operationId"], "createAppsV1NamespacedDeployment");
    let names: Vec<&str> = create["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "body"]);
    let review = &document["paths"]["/apis/authorization.k8s.io/v1/subjectaccessreviews"];
    assert!(review.get("post").is_some() && review.get("get").is_none());
    assert_eq!(document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
    let strategy = &document["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["$ref"], "#/definitions/io.k8s.api.apps.v1.DeploymentStrategy");
}

#[test]
fn every_type_and_field_is_described() {
    let document = swagger(builtin(), &rows());
    let mut bare = Vec::new();
    for (name, definition) in document["definitions"].as_object().unwrap() {
        let fields = definition["properties"].as_object().into_iter().flatten();
        let fields = fields.filter(|(_, field)| !field["description"].is_string());
        bare.extend(fields.map(|(field, _)| format!("{name}.{field}")));
        if !definition["description"].is_string() {
            bare.push(name.clone());
        }
    }
    // Upstream has no words for these either.
    let meant = ["CertificateSigningRequest.metadata", "IngressRule.http", "v1.Patch"];
    bare.retain(|name| {
        let schema = name.contains(".JSONSchemaProps.") || name.contains(".ExternalDocumentation.");
        !schema && !meant.iter().any(|end| name.ends_with(end))
    });
    assert_eq!(bare, [""; 0]);
}

#[test]
fn a_description_does_not_stand_beside_a_reference() {
    // There it would not count in OpenAPI 3.0.
    let documents = documents();
    let spec =
        &documents["apis/apps/v1"]["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert!(spec["description"].is_string() && spec["allOf"].is_array() && spec.get("$ref").is_none());
    let v2 = swagger(builtin(), &sample());
    let spec = &v2["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
    assert!(spec["description"].is_string() && spec["$ref"].is_string());
}

#[test]
fn a_union_names_its_discriminator() {
    let documents = documents();
    let profile = &documents["api/v1"]["components"]["schemas"]["io.k8s.api.core.v1.SeccompProfile"];
    let want = json!([{"discriminator": "type", "fields-to-discriminateBy": {"localhostProfile": "LocalhostProfile"}}]);
    assert_eq!(profile["x-kubernetes-unions"], want);
}

#[test]
fn a_document_is_kept_packed() {
    let text = "{}".repeat(1000);
    let document = Document::new(text.as_bytes());
    assert!(document.packed.len() < 100);
    assert_eq!(document.unpacked().unwrap(), text);
}

#[test]
fn the_index_names_every_document_by_its_hash() {
    let documents = BTreeMap::from([("apis/apps/v1".to_string(), Document::new(b"{}"))]);
    let hash = "44136FA355B3678A1146AD16F7E8649E94FB4FC21FE77E8310C060F61CAAFF8A";
    assert_eq!(
        index(&documents),
        json!({"paths": {"apis/apps/v1": {"serverRelativeURL": format!("/openapi/v3/apis/apps/v1?hash={hash}")}}})
    );
}
