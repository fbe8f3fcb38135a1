//! Gives Services their addresses and node ports. It stands at the end of admission because claims are writes to the store, which
//! must be the last step before the Service itself is written.

use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::registry::strategy::service::SERVICE;
use crate::registry::{Context, Strategy, alloc};

/// The plugin; Corten's own name, upstream does this inside its Service storage.
pub struct ServiceAddresses;

impl Plugin for ServiceAddresses {
    fn name(&self) -> &'static str {
        "ServiceAddresses"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            if !request.is("", "services") {
                return Ok(());
            }
            // The same preparation follows again in the pipeline; it changes nothing the second time.
            let errors = match (request.operation, request.old) {
                (Operation::Create, _) => {
                    SERVICE.prepare_for_create(cx, request.object)?;
                    SERVICE.validate(request.object)
                }
                (Operation::Update, Some(old)) => {
                    SERVICE.prepare_for_update(cx, None, request.object, old)?;
                    SERVICE.validate_update(None, request.object, old)
                }
                _ => return Ok(()),
            };
            // The pipeline will say what is wrong; claiming anything for it would only be undone.
            if errors.is_empty() { alloc::assign(cx, request.object, request.old).await } else { Ok(()) }
        })
    }
}
