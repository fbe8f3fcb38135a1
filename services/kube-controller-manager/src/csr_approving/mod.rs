//! certificatesigningrequest-approving-controller: approves kubelets' client certificates for those who may have them.

use apimachinery::{meta, time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::WorkQueue;
use client::resource::SUBJECTACCESSREVIEWS;
use jiff::Timestamp;
use pki::Requested;
use serde_json::{Value, json};

use crate::context::Context;
use crate::csr_signing::plan::{KUBELET_CLIENT, permit};
use crate::error::Error;
use crate::object;
use crate::resource::CERTIFICATESIGNINGREQUESTS;
use crate::worker::{self, Next};

/// Runs the controller.
pub async fn run(context: Context) {
    let requests = context.informers.get(CERTIFICATESIGNINGREQUESTS);
    requests.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&requests, move |change| {
        if is_open(change.object()) {
            to.add(meta::name(change.object()).to_owned());
        }
    });
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(csr) = requests.get("", &name).filter(|csr| is_open(csr)) else { return Ok(Next::Done) };
        let Some(requested) = read(&csr).filter(|requested| permit(&csr, requested).is_ok()) else {
            return Ok(Next::Done);
        };
        for (permission, message) in permissions(&csr, &requested) {
            let review = review(&csr, permission);
            let answer = context.client.create(SUBJECTACCESSREVIEWS, None, &review).await?;
            if answer["status"]["allowed"] == true {
                let new = approved(&csr, message, Timestamp::now());
                context.client.update_sub(CERTIFICATESIGNINGREQUESTS, None, &name, "approval", &new).await?;
                return Ok(Next::Done);
            }
        }
        Ok(Next::Done)
    };
    worker::run("csr-approving", queue, 2, sync).await;
}

/// A kubelet's request that nobody has decided about.
fn is_open(csr: &Value) -> bool {
    object::text(csr, "/spec/signerName") == KUBELET_CLIENT
        && ["Approved", "Denied"].iter().all(|kind| meta::condition(csr, kind).is_none())
        && csr["status"]["certificate"].as_str().unwrap_or_default().is_empty()
}

fn read(csr: &Value) -> Option<Requested> {
    let pem = STANDARD.decode(object::text(csr, "/spec/request")).ok()?;
    Requested::from_pem(std::str::from_utf8(&pem).ok()?).ok()
}

/// What the requester may be permitted by, most special first: a node renews its own certificate, or somebody asks for a
/// node's first one.
fn permissions(csr: &Value, requested: &Requested) -> Vec<(&'static str, &'static str)> {
    let for_itself = object::text(csr, "/spec/username") == requested.common_name;
    let own = ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
    let any = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
    if for_itself { vec![own, any] } else { vec![any] }
}

fn review(csr: &Value, permission: &str) -> Value {
    let spec = &csr["spec"];
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": spec["username"], "uid": spec["uid"], "groups": spec["groups"], "extra": spec["extra"],
            "resourceAttributes": {"group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                                   "verb": "create", "subresource": permission, "version": "*"},
        },
    })
}

fn approved(csr: &Value, message: &str, now: Timestamp) -> Value {
    let now = time::rfc3339(now);
    let condition = json!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message,
                           "lastUpdateTime": now});
    let mut conditions = object::list(csr, "/status/conditions").to_vec();
    object::set_condition(&mut conditions, condition, &now);
    let mut new = csr.clone();
    new["status"]["conditions"] = conditions.into();
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_may_renew_and_others_may_ask() {
        let requested = Requested { common_name: "system:node:a".to_owned(), ..Requested::default() };
        let csr = |user: &str| json!({"spec": {"username": user, "signerName": KUBELET_CLIENT}});
        let names = |user: &str| permissions(&csr(user), &requested).into_iter().map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(names("system:node:a"), ["selfnodeclient", "nodeclient"]);
        assert_eq!(names("system:bootstrap:x"), ["nodeclient"]);
        assert!(is_open(&csr("x")));
        let done = approved(&csr("x"), "m", Timestamp::UNIX_EPOCH);
        assert!(!is_open(&done));
        assert_eq!(review(&csr("x"), "nodeclient")["spec"]["resourceAttributes"]["subresource"], "nodeclient");
    }
}
