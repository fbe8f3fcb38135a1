//! certificatesigningrequest-signing-controller: signs what was approved, with the authorities of `--cluster-signing-*`.

pub mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::{meta, time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::WorkQueue;
use jiff::Timestamp;
use pki::{Ca, Requested};
use serde_json::{Value, json};
use tracing::info;

use crate::context::Context;
use crate::error::Error;
use crate::object;
use crate::resource::CERTIFICATESIGNINGREQUESTS;
use crate::worker::{self, Next};

/// The authorities, and how long their certificates live at most.
pub struct Signing {
    /// By the names of the signers whose certificates they sign.
    pub authorities: HashMap<&'static str, Arc<Ca>>,
    /// In seconds.
    pub longest: i64,
}

impl Signing {
    fn authority(&self, csr: &Value) -> Option<&Ca> {
        self.authorities.get(object::text(csr, "/spec/signerName")).map(|ca| &**ca)
    }
}

/// Runs the controller; without an authority there is nothing to sign with.
pub async fn run(context: Context) {
    let Some(signing) = context.signing.clone() else {
        info!("no --cluster-signing-*-file: certificate signing requests are left to others");
        return context.shutdown.wait().await;
    };
    let requests = context.informers.get(CERTIFICATESIGNINGREQUESTS);
    requests.synced().await;
    let queue = WorkQueue::new();
    let (this, to) = (Arc::clone(&signing), queue.clone());
    worker::on_change(&requests, move |change| {
        if plan::is_to_be_signed(change.object()) && this.authority(change.object()).is_some() {
            to.add(meta::name(change.object()).to_owned());
        }
    });
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(csr) = requests.get("", &name).filter(|csr| plan::is_to_be_signed(csr)) else {
            return Ok(Next::Done);
        };
        let Some(ca) = signing.authority(&csr) else { return Ok(Next::Done) };
        let new = sign(ca, signing.longest, &csr, Timestamp::now());
        context.client.update_sub(CERTIFICATESIGNINGREQUESTS, None, &name, "status", &new).await?;
        Ok(Next::Done)
    };
    worker::run("csr-signing", queue, 2, sync).await;
}

/// The request with its certificate, or with the reason why it will never have one.
fn sign(ca: &Ca, longest: i64, csr: &Value, now: Timestamp) -> Value {
    let mut new = csr.clone();
    match certificate(ca, longest, csr, now) {
        Ok(pem) => new["status"]["certificate"] = STANDARD.encode(pem).into(),
        Err((reason, message)) => {
            let now = time::rfc3339(now);
            let condition = json!({"type": "Failed", "status": "True", "reason": reason, "message": message, "lastUpdateTime": now});
            let mut conditions = object::list(csr, "/status/conditions").to_vec();
            object::set_condition(&mut conditions, condition, &now);
            new["status"]["conditions"] = conditions.into();
        }
    }
    new
}

fn certificate(ca: &Ca, longest: i64, csr: &Value, now: Timestamp) -> Result<String, (&'static str, String)> {
    let invalid = |message: String| ("SignerValidationFailure", message);
    let pem = STANDARD.decode(object::text(csr, "/spec/request")).map_err(|e| invalid(format!("spec.request: {e}")))?;
    let pem = String::from_utf8(pem).map_err(|e| invalid(format!("spec.request: {e}")))?;
    let requested = Requested::from_pem(&pem).map_err(|e| invalid(e.to_string()))?;
    let uses = plan::permit(csr, &requested).map_err(invalid)?;
    let until = now.as_second().saturating_add(plan::lifetime(csr, longest));
    ca.sign_as_requested(&pem, uses, until).map_err(|e| ("SigningError", e.to_string()))
}
