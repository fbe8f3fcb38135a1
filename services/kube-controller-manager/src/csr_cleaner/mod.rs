//! certificatesigningrequest-cleaner-controller: requests that nobody needs any more go.

use apimachinery::meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{DeleteParams, WorkQueue};
use jiff::Timestamp;
use pki::CertInfo;
use serde_json::Value;

use crate::clock;
use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::resource::CERTIFICATESIGNINGREQUESTS;
use crate::worker::{self, Next};

/// Seconds that a decided request stays, so that whoever asked can see the answer.
const DECIDED_STAYS: i64 = 3600;
/// Seconds that an undecided one stays.
const PENDING_STAYS: i64 = 24 * 3600;

/// Runs the controller.
pub async fn run(context: Context) {
    let requests = context.informers.get(CERTIFICATESIGNINGREQUESTS);
    requests.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&requests, move |change| to.add(meta::name(change.object()).to_owned()));
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(csr) = requests.get("", &name) else { return Ok(Next::Done) };
        let Some(expiry) = expiry(&csr) else { return Ok(Next::Done) };
        let left = clock::until(Timestamp::now(), expiry);
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        let only_this = DeleteParams { uid: Some(meta::uid(&csr).to_owned()), ..DeleteParams::default() };
        ignore_not_found(context.client.delete(CERTIFICATESIGNINGREQUESTS, None, &name, &only_this).await)?;
        Ok(Next::Done)
    };
    worker::run("csr-cleaner", queue, 1, sync).await;
}

/// When the request goes: after its decision, or undecided after a day, or with its certificate.
fn expiry(csr: &Value) -> Option<Timestamp> {
    let decided = ["Approved", "Denied", "Failed"].into_iter().filter_map(|kind| meta::condition(csr, kind));
    let decided = decided.filter_map(|c| clock::parse(c["lastUpdateTime"].as_str()?)).max();
    let by_age = match decided {
        Some(at) => clock::plus(at, DECIDED_STAYS),
        None => clock::plus(clock::parse(meta::creation_timestamp(csr))?, PENDING_STAYS),
    };
    Some(certificate_ends(csr).map_or(by_age, |ends| ends.min(by_age)))
}

fn certificate_ends(csr: &Value) -> Option<Timestamp> {
    let pem = STANDARD.decode(csr["status"]["certificate"].as_str()?).ok()?;
    let info = CertInfo::from_pem(std::str::from_utf8(&pem).ok()?).ok()?;
    Timestamp::from_second(info.not_after).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn decided_requests_go_sooner() {
        let created = "2026-01-01T00:00:00Z";
        let at = |hours: i64| Some(clock::plus(created.parse().unwrap(), hours * 3600));
        let mut csr = json!({"metadata": {"creationTimestamp": created}, "status": {}});
        assert_eq!(expiry(&csr), at(24));
        csr["status"]["conditions"] = json!([{"type": "Denied", "lastUpdateTime": "2026-01-01T02:00:00Z"}]);
        assert_eq!(expiry(&csr), at(3));
    }
}
