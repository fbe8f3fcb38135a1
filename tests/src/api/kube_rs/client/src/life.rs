//! One object of any kind: made, read, changed in every way, listed, watched and deleted, all by the client's types.

use std::fmt::Debug;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// # Errors
/// A call that fails, or an answer that is not what was asked for.
pub async fn run<K>(api: Api<K>, object: &Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object.clone()).context("the corpus's object")?;
    let name = object.name_any();
    let before = api.list(&ListParams::default()).await.context("list")?.metadata.resource_version.unwrap_or_default();
    let made = api.create(&PostParams::default(), &object).await.context("create")?;
    ensure!(made.uid().is_some() && made.name_any() == name, "{made:?}");
    changed(&api, &name).await?;
    let marked = ListParams::default().labels("kube=rs");
    let listed = api.list(&marked).await.context("list by label")?;
    ensure!(listed.items.iter().map(|o| o.name_any()).eq([name.clone()]), "{listed:?}");
    ended(&api, &name).await?;
    watched(&api, &name, &before).await
}

/// Every way to change a part or all of it.
async fn changed<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let label = |key: &str, value: &str| json!({"metadata": {"labels": {key: value}}});
    let (merge, strategic) = (label("kube", "rs"), label("strategic", "yes"));
    let plain = PatchParams::default();
    let one = api.patch(name, &plain, &Patch::Merge(&merge)).await.context("merge patch")?;
    ensure!(one.labels()["kube"] == "rs", "{one:?}");
    let two = api.patch(name, &plain, &Patch::Strategic(&strategic)).await.context("strategic patch")?;
    ensure!(two.labels()["strategic"] == "yes", "{two:?}");
    let mut applied = label("applied", "yes");
    applied["apiVersion"] = K::api_version(&()).into();
    applied["kind"] = K::kind(&()).into();
    applied["metadata"]["name"] = name.into();
    let by = PatchParams::apply("kube-rs").force();
    let three = api.patch(name, &by, &Patch::Apply(&applied)).await.context("apply")?;
    ensure!(three.labels()["applied"] == "yes" && three.managed_fields().len() > 1, "{three:?}");
    for last in [false, false, false, true] {
        let mut read = api.get(name).await.context("get")?;
        read.annotations_mut().insert("kube".into(), "replaced".into());
        match api.replace(name, &PostParams::default(), &read).await {
            Ok(now) => {
                ensure!(now.annotations()["kube"] == "replaced", "{now:?}");
                return Ok(());
            }
            // The server's own controllers write it too.
            Err(kube::Error::Api(status)) if status.code == 409 && !last => {}
            Err(error) => return Err(error).context("replace"),
        }
    }
    Ok(())
}

/// Deletes it, and does what controllers would do for an object that is to go.
async fn ended<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    api.delete(name, &DeleteParams::default().grace_period(0)).await.context("delete")?;
    let free = json!({"metadata": {"finalizers": null}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&free)).await {
        Ok(_) | Err(kube::Error::Api(_)) => {}
        Err(error) => return Err(error).context("take the finalizers away"),
    }
    Ok(())
}

async fn watched<K>(api: &Api<K>, name: &str, since: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if K::kind(&()) == "Namespace" {
        // Its end is a controller's to say, and none runs here.
        return Ok(());
    }
    let of = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(10);
    let mut events = api.watch(&of, since).await.context("watch")?.boxed();
    let mut seen = String::new();
    while let Some(event) = events.try_next().await.context("an event")? {
        seen.push(match event {
            WatchEvent::Added(_) => 'A',
            WatchEvent::Modified(_) => 'M',
            WatchEvent::Deleted(_) => 'D',
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => anyhow::bail!("{status:?}"),
        });
        if seen.ends_with('D') {
            break;
        }
    }
    ensure!(seen.starts_with("AM") && seen.ends_with('D'), "events {seen:?}");
    Ok(())
}
