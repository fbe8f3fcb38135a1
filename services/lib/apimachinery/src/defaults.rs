//! Defaults that the schema declares. A default fills a field that is absent from an object that is there; it never creates the object around it.

use crate::schema::{Shape, TypeRef};
use serde_json::Value;

/// Fills every absent field that has a declared default.
pub fn apply(ty: TypeRef<'_>, object: &mut Value) {
    apply_struct(ty, object);
}

fn apply_struct(ty: TypeRef<'_>, object: &mut Value) {
    let Value::Object(map) = object else { return };
    if !ty.has_defaults() {
        return;
    }
    for field in ty.fields() {
        match (map.get_mut(field.name()), field.default()) {
            (None, Some(default)) => {
                map.insert(field.name().to_string(), default.clone());
            }
            (None, None) => {}
            (Some(value @ Value::Null), Some(default)) => *value = default.clone(),
            (Some(value), _) => apply_shape(field.shape(), value),
        }
    }
}

fn apply_shape(shape: Shape<'_>, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(ty), value) => apply_struct(ty, value),
        (Shape::List(element), Value::Array(list)) => {
            list.iter_mut().for_each(|value| apply_shape(element.shape(), value))
        }
        (Shape::Map(element), Value::Object(map)) => {
            map.values_mut().for_each(|value| apply_shape(element.shape(), value))
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    #[test]
    fn fills_what_is_absent_and_nothing_else() {
        let cases = [
            (
                json!({"spec": {"containers": [{"ports": [{"containerPort": 1}, {"containerPort": 2, "protocol": "UDP"}, {"protocol": null}]}]}}),
                json!({"spec": {"containers": [{"ports": [
                    {"containerPort": 1, "protocol": "TCP"}, {"containerPort": 2, "protocol": "UDP"}, {"protocol": "TCP"}]}]}}),
            ),
            (json!({"spec": {}}), json!({"spec": {}})),
            (
                json!({"spec": {"volumes": [{"iscsi": {}}]}}),
                json!({"spec": {"volumes": [{"iscsi": {"iscsiInterface": "default"}}]}}),
            ),
        ];
        for (mut object, want) in cases {
            apply(builtin().of("v1", "Pod").unwrap(), &mut object);
            assert_eq!(object, want);
        }
    }
}
