//! Controller references: who owns what, who may adopt and who must let go.

use std::sync::Arc;

use apimachinery::meta;
use client::{Client, Patch, Resource};
use serde_json::{Value, json};

use crate::error::{Error, ignore_not_found};

/// The objects around a controller object, sorted by what they need.
#[derive(Debug, Default)]
pub struct Claim {
    /// Owned already and still matching.
    pub owned: Vec<Arc<Value>>,
    /// Ownerless and matching: to be adopted.
    pub adopt: Vec<Arc<Value>>,
    /// Owned but no longer matching: to be let go.
    pub release: Vec<Arc<Value>>,
}

/// Sorts candidates. An owner that is going away neither adopts nor releases.
pub fn claim(
    owner: &Value,
    candidates: impl IntoIterator<Item = Arc<Value>>,
    selects: impl Fn(&Value) -> bool,
) -> Claim {
    let ending = meta::deletion_timestamp(owner).is_some();
    let mut claim = Claim::default();
    for object in candidates {
        let matches = selects(&object);
        match meta::controller_of(&object) {
            Some(controller) if controller["uid"] != owner["metadata"]["uid"] => {}
            Some(_) if matches => claim.owned.push(object),
            Some(_) if !ending => claim.release.push(object),
            None if matches && !ending && meta::deletion_timestamp(&object).is_none() => claim.adopt.push(object),
            _ => {}
        }
    }
    claim
}

/// Performs a claim and returns everything owned afterwards.
pub async fn carry_out(
    client: &Client,
    owner: &Value,
    owner_resource: Resource<'_>,
    owned_resource: Resource<'_>,
    claim: Claim,
) -> Result<Vec<Arc<Value>>, Error> {
    let mut owned = claim.owned;
    if !claim.adopt.is_empty() {
        check_owner_lives(client, owner, owner_resource).await?;
    }
    for object in claim.adopt {
        let references = json!([meta::controller_reference(owner)]);
        if let Some(object) = patch_owners(client, owned_resource, &object, references).await? {
            owned.push(Arc::new(object));
        }
    }
    for object in claim.release {
        let references = json!([{"$patch": "delete", "uid": meta::uid(owner)}]);
        patch_owners(client, owned_resource, &object, references).await?;
    }
    Ok(owned)
}

/// A cached owner may be gone; adopting for it would only feed the garbage collector.
async fn check_owner_lives(client: &Client, owner: &Value, resource: Resource<'_>) -> Result<(), Error> {
    let live = client.get(resource, Some(meta::namespace(owner)), meta::name(owner)).await?;
    if meta::uid(&live) != meta::uid(owner) || meta::deletion_timestamp(&live).is_some() {
        return Err(Error::Object(format!("{} {} is being replaced or deleted", resource.kind, meta::key(owner))));
    }
    Ok(())
}

async fn patch_owners(
    client: &Client,
    resource: Resource<'_>,
    object: &Value,
    references: Value,
) -> Result<Option<Value>, Error> {
    // The uid makes the server refuse if another object has taken the name.
    let patch = Patch::Strategic(json!({"metadata": {"uid": meta::uid(object), "ownerReferences": references}}));
    let answer = client.patch(resource, Some(meta::namespace(object)), meta::name(object), None, &patch).await;
    Ok(ignore_not_found(answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, owner: Option<&str>, app: &str, ending: bool) -> Arc<Value> {
        let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": app}}});
        if let Some(uid) = owner {
            pod["metadata"]["ownerReferences"] = json!([{"uid": uid, "controller": true}]);
        }
        if ending {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(pod)
    }

    #[test]
    fn claims_what_matches_and_lets_go_of_the_rest() {
        let owner = json!({"metadata": {"name": "o", "uid": "me"}});
        let pods = || {
            [
                pod("kept", Some("me"), "web", false),
                pod("changed", Some("me"), "other", false),
                pod("orphan", None, "web", false),
                pod("ending-orphan", None, "web", true),
                pod("stranger", None, "other", false),
                pod("foreign", Some("you"), "web", false),
            ]
        };
        let web = |pod: &Value| pod["metadata"]["labels"]["app"] == "web";
        let names = |pods: &[Arc<Value>]| pods.iter().map(|p| meta::name(p).to_owned()).collect::<Vec<_>>();

        let got = claim(&owner, pods(), web);
        assert_eq!(names(&got.owned), ["kept"]);
        assert_eq!(names(&got.adopt), ["orphan"]);
        assert_eq!(names(&got.release), ["changed"]);

        let ending = json!({"metadata": {"name": "o", "uid": "me", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let got = claim(&ending, pods(), web);
        assert_eq!(names(&got.owned), ["kept"]);
        assert!(got.adopt.is_empty() && got.release.is_empty());
    }
}
