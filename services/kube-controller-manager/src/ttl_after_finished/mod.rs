//! ttl-after-finished-controller: finished Jobs go when their time to live is over.

use apimachinery::meta;
use client::{DeleteParams, WorkQueue};
use jiff::Timestamp;
use serde_json::Value;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::resource::JOBS;
use crate::worker::{self, Next};
use crate::{clock, object};

/// Runs the controller.
pub async fn run(context: Context) {
    let jobs = context.informers.get(JOBS);
    jobs.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&jobs, move |change| {
        if expiry(change.object()).is_some() {
            to.add(meta::key(change.object()));
        }
    });
    let sync = async |key: String| -> Result<Next, Error> {
        let (namespace, name) = meta::split_key(&key);
        let Some(job) = jobs.get(namespace, name) else { return Ok(Next::Done) };
        let Some(expiry) = expiry(&job) else { return Ok(Next::Done) };
        let left = clock::until(Timestamp::now(), expiry);
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        let params = DeleteParams {
            uid: Some(meta::uid(&job).to_owned()),
            // Whoever prolongs the time to live meanwhile wins.
            resource_version: Some(meta::resource_version(&job).to_owned()),
            propagation_policy: Some("Foreground".to_owned()),
            ..DeleteParams::default()
        };
        ignore_not_found(context.client.delete(JOBS, Some(namespace), name, &params).await)?;
        Ok(Next::Done)
    };
    worker::run("ttl-after-finished", queue, 2, sync).await;
}

/// When the Job's time is over; none if it is not finished, has no limit or is going already.
fn expiry(job: &Value) -> Option<Timestamp> {
    let ttl = object::int(job, "/spec/ttlSecondsAfterFinished")?;
    if meta::deletion_timestamp(job).is_some() {
        return None;
    }
    let ended = ["Complete", "Failed"].into_iter().filter_map(|kind| meta::condition(job, kind));
    let ended =
        ended.filter(|c| c["status"] == "True").find_map(|c| clock::parse(c["lastTransitionTime"].as_str()?))?;
    Some(clock::plus(ended, ttl))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_finished_jobs_expire() {
        let job = |ttl: Value, status: &str| {
            json!({"spec": {"ttlSecondsAfterFinished": ttl}, "status": {"conditions": [
                {"type": "Failed", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
        };
        let at = |seconds| Some(clock::plus("2026-01-01T00:00:00Z".parse().unwrap(), seconds));
        assert_eq!(expiry(&job(json!(60), "True")), at(60));
        assert_eq!(expiry(&job(json!(0), "True")), at(0));
        assert_eq!(expiry(&job(json!(60), "False")), None);
        assert_eq!(expiry(&job(Value::Null, "True")), None);
    }
}
