use super::*;

fn path<'a>(mut ty: TypeRef<'a>, path: &str) -> Option<Field<'a>> {
    let mut found = None;
    for name in path.split('.') {
        let field = ty.field(name)?;
        found = Some(field);
        let mut shape = field.shape();
        while let Shape::List(element) | Shape::Map(element) = shape {
            shape = element.shape();
        }
        if let Shape::Struct(next) = shape {
            ty = next;
        }
    }
    found
}

#[test]
fn the_table_unpacks_and_knows_the_kinds() {
    let schemas = builtin();
    assert!(schemas.types().count() > 700);
    for (group, version, kind) in [
        ("", "v1", "Pod"),
        ("", "v1", "PodList"),
        ("apps", "v1", "Deployment"),
        ("autoscaling", "v1", "Scale"),
        ("policy", "v1", "Eviction"),
        ("authentication.k8s.io", "v1", "TokenRequest"),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        ("", "v1", "DeleteOptions"),
        ("", "v1", "Status"),
        ("coordination.k8s.io", "v1", "Lease"),
    ] {
        let ty = schemas.kind(group, version, kind);
        assert_eq!(ty.and_then(|t| t.gvk()).map(|g| (&*g.group, &*g.version, &*g.kind)), Some((group, version, kind)));
    }
    assert!(schemas.kind("", "v1", "Deployment").is_none());
}

#[test]
fn fields_carry_their_rules() {
    let deployment = builtin().of("apps/v1", "Deployment").unwrap();
    let ports = path(deployment, "spec.template.spec.containers.ports").unwrap();
    assert_eq!(ports.list_map_keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!((ports.merge_key(), ports.list_type()), (Some("containerPort"), Some(ListType::Map)));
    assert!(ports.patch_strategy().merge);
    let protocol = path(deployment, "spec.template.spec.containers.ports.protocol").unwrap();
    assert_eq!(protocol.default(), Some(&Value::from("TCP")));
    let volumes = path(deployment, "spec.template.spec.volumes").unwrap();
    assert_eq!(volumes.patch_strategy(), PatchStrategy { merge: true, replace: false, retain_keys: true });
    let replicas = path(deployment, "spec.replicas").unwrap();
    assert!(matches!(replicas.shape(), Shape::Int32) && !replicas.required());
    assert!(path(deployment, "spec.selector").unwrap().required());
    assert!(matches!(path(deployment, "metadata.creationTimestamp").unwrap().shape(), Shape::Time));
    let limits = path(deployment, "spec.template.spec.containers.resources.limits").unwrap();
    assert!(matches!(limits.shape(), Shape::Map(e) if matches!(e.shape(), Shape::Quantity)));
    assert!(deployment.has_defaults());
    assert!(!builtin().of("v1", "ConfigMap").unwrap().has_defaults());
    assert_eq!(path(deployment, "spec.template.spec.containers").map(|_| deployment.go_name()), Some("v1.Deployment"));
}
