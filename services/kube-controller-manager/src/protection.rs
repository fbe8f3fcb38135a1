//! The finalizers that keep storage from vanishing under whoever uses it: decisions are pure, [`apply`] writes.

use apimachinery::meta;
use client::{Client, Patch, Resource};
use serde_json::{Value, json};

use crate::error::{Error, ignore_not_found};

/// The finalizers to write, if they have to change: an object that is not going has ours, one that is going keeps it for
/// as long as it is in use.
pub fn plan(object: &Value, finalizer: &str, in_use: bool) -> Option<Vec<String>> {
    let now: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
    let has = now.iter().any(|f| f == finalizer);
    match (meta::deletion_timestamp(object).is_some(), has) {
        (false, false) => Some(now.into_iter().chain([finalizer.to_owned()]).collect()),
        (true, true) if !in_use => Some(now.into_iter().filter(|f| f != finalizer).collect()),
        _ => None,
    }
}

/// Writes a plan.
pub async fn apply(
    client: &Client,
    resource: Resource<'_>,
    object: &Value,
    plan: Option<Vec<String>>,
) -> Result<(), Error> {
    let Some(finalizers) = plan else { return Ok(()) };
    let metadata = json!({"uid": meta::uid(object), "resourceVersion": meta::resource_version(object),
                          "finalizers": finalizers});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let (namespace, name) = (Some(meta::namespace(object)), meta::name(object));
    ignore_not_found(client.patch(resource, namespace, name, None, &patch).await)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_comes_at_once_and_goes_last() {
        let object = |finalizers: &[&str], going: bool| {
            let mut object = json!({"metadata": {"finalizers": finalizers}});
            if going {
                object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            object
        };
        let some = |list: &[&str]| Some(list.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
        let cases = [
            (object(&["x"], false), false, some(&["x", "ours"])),
            (object(&["ours"], false), false, None),
            (object(&["x", "ours"], true), false, some(&["x"])),
            (object(&["ours"], true), true, None),
            (object(&["x"], true), true, None),
        ];
        for (object, in_use, expected) in cases {
            assert_eq!(plan(&object, "ours", in_use), expected, "{object}");
        }
    }
}
