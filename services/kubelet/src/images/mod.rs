//! Makes sure that a container's image is there, by its pull policy and with growing pauses after failed pulls.
//!
//! [`keyring`] finds the credentials for a registry, [`gc`] removes images that nobody uses.

pub mod gc;
pub mod keyring;

use std::sync::Arc;
use std::time::Instant;

use cri_api::v1;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::backoff::{Backoffs, now};
use crate::pod::Pod;
use crate::shared::Shared;
use crate::status::compute::Waiting;
use crate::sync::env::Kind;
use crate::sync::security::ImageUser;

/// An image that is there.
#[derive(Clone, Debug)]
pub struct Present {
    /// What the runtime calls it.
    pub id: String,
    /// Its default user.
    pub user: ImageUser,
}

/// Why it is not.
#[derive(Clone, Debug)]
pub struct Absent {
    /// For the container's status.
    pub waiting: Waiting,
    /// Nanoseconds until it makes sense to try again.
    pub retry_in: Option<i64>,
}

/// Pulls under way and pauses after failed ones.
#[derive(Debug)]
pub struct Images {
    backoffs: Mutex<Backoffs>,
    slots: Semaphore,
}

impl Images {
    /// At most this many pulls at a time.
    pub fn new(parallel: usize) -> Self {
        Images { backoffs: Mutex::default(), slots: Semaphore::new(parallel) }
    }
}

/// The policy that applies where the object names none: `latest` moves, other tags do not.
pub fn effective_policy<'a>(image: &str, policy: &'a str) -> &'a str {
    if !policy.is_empty() {
        return policy;
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    if name.contains('@') {
        return "IfNotPresent";
    }
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// Finds or pulls an image of a container or of a volume.
///
/// # Errors
/// It is not there; says what the container waits for.
pub async fn ensure(
    shared: &Arc<Shared>,
    pod: &Pod,
    image: &str,
    policy: &str,
    sandbox: &v1::PodSandboxConfig,
) -> Result<Present, Absent> {
    let policy = effective_policy(image, policy);
    let found = shared
        .cri
        .image(image)
        .await
        .map_err(|e| absent("ImageInspectError", format!("Failed to inspect image {image:?}: {e}"), None))?;
    match (policy, found) {
        ("Always", _) => {}
        (_, Some(found)) => {
            shared.event(pod, false, "Pulled", format!("Container image {image:?} already present on machine"));
            return Ok(present(found));
        }
        ("Never", None) => {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            shared.event(pod, true, "ErrImageNeverPull", message.clone());
            return Err(absent("ErrImageNeverPull", message, None));
        }
        _ => {}
    }
    pull(shared, pod, image, sandbox).await?;
    match shared.cri.image(image).await {
        Ok(Some(found)) => Ok(present(found)),
        Ok(None) => Err(absent("ErrImagePull", format!("image {image:?} is not there after its pull"), None)),
        Err(error) => Err(absent("ImageInspectError", error, None)),
    }
}

async fn pull(shared: &Arc<Shared>, pod: &Pod, image: &str, sandbox: &v1::PodSandboxConfig) -> Result<(), Absent> {
    let key = format!("{}_{image}", pod.metadata.uid);
    let images = &shared.images;
    let started = now();
    let failed = last_failure(images, &key, started);
    let pause = images.backoffs.lock().remaining(&key, failed, started);
    if let Some((left, _)) = pause {
        let message = format!("Back-off pulling image {image:?}");
        shared.event(pod, false, "BackOff", message.clone());
        return Err(absent("ImagePullBackOff", message, Some(left)));
    }
    // The semaphore is never closed; without a slot there is nothing to wait for.
    let _slot = images.slots.acquire().await.ok();
    shared.event(pod, false, "Pulling", format!("Pulling image {image:?}"));
    let clock = Instant::now();
    match pull_with_any(shared, pod, image, sandbox).await {
        Ok(()) => {
            images.backoffs.lock().reset(&key);
            let took = clock.elapsed();
            shared.event(pod, false, "Pulled", format!("Successfully pulled image {image:?} in {took:.3?}"));
            Ok(())
        }
        Err(error) => {
            let failed = now();
            images.backoffs.lock().next(&key, failed, failed);
            let message = format!("failed to pull image {image:?}: {error}");
            shared.event(pod, true, "Failed", format!("Failed to pull image {image:?}: {error}"));
            shared.event(pod, true, "Failed", "Error: ErrImagePull");
            let left = images.backoffs.lock().remaining(&key, failed, failed).map(|(left, _)| left);
            Err(absent("ErrImagePull", message, left))
        }
    }
}

/// Tries each of the credentials that fit the registry, or none if none fits.
async fn pull_with_any(
    shared: &Arc<Shared>,
    pod: &Pod,
    image: &str,
    sandbox: &v1::PodSandboxConfig,
) -> Result<(), String> {
    let mut secrets = Vec::new();
    for reference in &pod.spec.image_pull_secrets {
        match shared.objects.get(Kind::Secret, &pod.metadata.namespace, &reference.name) {
            Some(secret) => secrets.push(secret),
            None => {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                );
                shared.event(pod, true, "FailedToRetrieveImagePullSecret", message);
            }
        }
    }
    let mut last = Err(String::new());
    let fitting = keyring::credentials(image, &secrets);
    let attempts: Vec<Option<v1::AuthConfig>> =
        if fitting.is_empty() { vec![None] } else { fitting.into_iter().map(Some).collect() };
    for auth in attempts {
        last = shared.cri.pull(image, auth, sandbox.clone()).await;
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Pull failures have no time of their own in the runtime: the pause counts from when it was set.
fn last_failure(images: &Images, key: &str, now: i64) -> i64 {
    images.backoffs.lock().updated(key).unwrap_or(now)
}

fn present(image: v1::Image) -> Present {
    Present { id: image.id, user: ImageUser { uid: image.uid.map(|v| v.value), name: image.username } }
}

fn absent(reason: &str, message: String, retry_in: Option<i64>) -> Absent {
    Absent { waiting: Waiting { reason: reason.to_owned(), message }, retry_in }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_the_default_policy() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(effective_policy(image, ""), policy, "{image}");
        }
        assert_eq!(effective_policy("nginx", "Never"), "Never");
    }
}
