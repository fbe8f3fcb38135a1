//! Makes sure that a container's image is there, by its pull policy and with growing pauses after failed pulls.
//!
//! [`keyring`] finds the credentials for a registry, [`reference`] knows a name that none could be, [`gc`] removes images that
//! nobody uses.

pub mod gc;
pub mod keyring;
mod reference;

use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Who an image is for.
#[derive(Clone, Copy, Debug)]
pub struct For<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its container; none if the image is a volume.
    pub container: Option<&'a str>,
}

impl For<'_> {
    fn event(self, shared: &Arc<Shared>, warning: bool, reason: &str, message: impl Into<String>) {
        match self.container {
            Some(name) => shared.container_event(self.pod, name, warning, reason, message),
            None => shared.event(self.pod, warning, reason, message),
        }
    }
}

/// Finds or pulls an image of a container or of a volume.
///
/// # Errors
/// It is not there; says what the container waits for.
pub async fn ensure(
    shared: &Arc<Shared>,
    of: For<'_>,
    image: &str,
    policy: &str,
    sandbox: &v1::PodSandboxConfig,
) -> Result<Present, Absent> {
    let unseen = |reason: &str, message: String| {
        of.event(shared, true, "InspectFailed", message.clone());
        absent(reason, message, None)
    };
    reference::check(image).map_err(|e| {
        let message = format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {e}");
        unseen("InvalidImageName", message)
    })?;
    let policy = effective_policy(image, policy);
    let found = shared.cri.image(image).await;
    let found = found.map_err(|e| unseen("ImageInspectError", format!("Failed to inspect image {image:?}: {e}")))?;
    match (policy, found) {
        ("Always", _) => {}
        (_, Some(found)) => {
            let text = format!("Container image {image:?} already present on machine and can be accessed by the pod");
            of.event(shared, false, "Pulled", text);
            return Ok(present(found));
        }
        ("Never", None) => {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            of.event(shared, true, "ErrImageNeverPull", message.clone());
            return Err(absent("ErrImageNeverPull", message, None));
        }
        _ => {}
    }
    let took = pull(shared, of, image, sandbox).await?;
    match shared.cri.image(image).await {
        Ok(Some(found)) => {
            of.event(shared, false, "Pulled", pulled(image, took, found.size));
            Ok(present(found))
        }
        Ok(None) => Err(absent("ErrImagePull", format!("image {image:?} is not there after its pull"), None)),
        Err(error) => Err(absent("ImageInspectError", error, None)),
    }
}

/// How long a pull took, without and with the wait for its turn.
type Took = (Duration, Duration);

fn pulled(image: &str, (alone, all): Took, size: u64) -> String {
    let text = |time: Duration| {
        let whole = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        apimachinery::duration::to_text(whole)
    };
    let (alone, all) = (text(alone), text(all));
    format!("Successfully pulled image {image:?} in {alone} ({all} including waiting). Image size: {size} bytes.")
}

async fn pull(shared: &Arc<Shared>, of: For<'_>, image: &str, sandbox: &v1::PodSandboxConfig) -> Result<Took, Absent> {
    let key = format!("{}_{image}", of.pod.metadata.uid);
    let images = &shared.images;
    let started = now();
    let failed = last_failure(images, &key, started);
    let pause = images.backoffs.lock().remaining(&key, failed, started);
    if let Some((left, _)) = pause {
        let message = format!("Back-off pulling image {image:?}");
        of.event(shared, false, "BackOff", message.clone());
        return Err(absent("ImagePullBackOff", message, Some(left)));
    }
    of.event(shared, false, "Pulling", format!("Pulling image {image:?}"));
    let waiting = Instant::now();
    // The semaphore is never closed; without a slot there is nothing to wait for.
    let _slot = images.slots.acquire().await.ok();
    let clock = Instant::now();
    match pull_with_any(shared, of.pod, image, sandbox).await {
        Ok(()) => {
            images.backoffs.lock().reset(&key);
            Ok((clock.elapsed(), waiting.elapsed()))
        }
        Err(error) => {
            let failed = now();
            images.backoffs.lock().next(&key, failed, failed);
            let message = format!("failed to pull image {image:?}: {error}");
            of.event(shared, true, "Failed", format!("Failed to pull image {image:?}: {error}"));
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
    let (mut secrets, mut absent) = (Vec::new(), Vec::new());
    for reference in &pod.spec.image_pull_secrets {
        match shared.objects.get(Kind::Secret, &pod.metadata.namespace, &reference.name) {
            Some(secret) => secrets.push(secret),
            None => absent.push(reference.name.as_str()),
        }
    }
    if !absent.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            absent.join(", ")
        );
        shared.event(pod, true, "FailedToRetrieveImagePullSecret", message);
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
    fn a_pull_is_told_as_upstream_tells_it() {
        let took = (Duration::from_micros(1_661_900), Duration::from_secs(2));
        assert_eq!(
            pulled("nginx", took, 7),
            r#"Successfully pulled image "nginx" in 1.661s (2s including waiting). Image size: 7 bytes."#
        );
    }

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
