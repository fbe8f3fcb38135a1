//! Checks of the API server alone: a real one with a real store, as processes of this host, reached over TLS like any client reaches it.
//! Floods, thousands of connections and broken input are no good company for a cluster that other scenarios use.

mod answers;
mod audit;
mod connections;
mod encryption;
mod flood;
mod golden;
mod hostile;
mod identity;
mod kms;
mod kube_rs;
mod kubectl;
mod python;
mod requests;
mod session;
mod surface;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use futures_util::future::BoxFuture;

use crate::bench::stack::{Stack, Store};

/// One check, with the arguments its server needs.
struct Check {
    name: &'static str,
    store: Store,
    /// `{folder}` stands for the folder of its files.
    arguments: &'static [&'static str],
    /// Files it reads: names and texts.
    files: &'static [(&'static str, &'static str)],
    run: fn(Stack) -> BoxFuture<'static, Result<()>>,
}

const CHECKS: &[Check] = &[
    Check {
        name: "flood",
        store: Store::Corten,
        // Few seats: a small machine can fill them.
        arguments: &["--max-requests-inflight=20", "--max-mutating-requests-inflight=10"],
        files: &[],
        run: |stack| Box::pin(flood::run(stack)),
    },
    Check {
        name: "connections",
        store: Store::Corten,
        arguments: &["--shutdown-delay-duration=1s"],
        files: &[],
        run: |stack| Box::pin(connections::run(stack)),
    },
    plain("surface", Store::Corten, |stack| Box::pin(surface::run(stack))),
    plain("answers", Store::Corten, |stack| Box::pin(answers::run(stack))),
    plain("golden", Store::Corten, |stack| Box::pin(golden::run(stack))),
    plain("golden-etcd", Store::Etcd, |stack| Box::pin(golden::run(stack))),
    plain("kubectl", Store::Corten, |stack| Box::pin(kubectl::run(stack))),
    plain("kube-rs", Store::Corten, |stack| Box::pin(kube_rs::run(stack))),
    plain("python", Store::Corten, |stack| Box::pin(python::run(stack))),
    plain("hostile", Store::Corten, |stack| Box::pin(hostile::run(stack))),
    Check {
        name: "identity",
        store: Store::Corten,
        arguments: identity::ARGUMENTS,
        files: &[("authentication.yaml", requests::AUTHENTICATION)],
        run: |stack| Box::pin(identity::run(stack)),
    },
    Check {
        name: "encryption",
        store: Store::Corten,
        arguments: &[
            "--encryption-provider-config={folder}/encryption.yaml",
            "--encryption-provider-config-automatic-reload=true",
        ],
        files: &[("encryption.yaml", encryption::FIRST)],
        run: |stack| Box::pin(encryption::run(stack)),
    },
    Check {
        name: "audit",
        store: Store::Corten,
        arguments: audit::ARGUMENTS,
        files: &[("audit.yaml", audit::POLICY)],
        run: |stack| Box::pin(audit::run(stack)),
    },
    Check {
        name: "kms",
        store: Store::Corten,
        arguments: &[
            "--encryption-provider-config={folder}/encryption.yaml",
            "--encryption-provider-config-automatic-reload=true",
        ],
        files: &[("encryption.yaml", kms::PLAIN)],
        run: |stack| Box::pin(kms::run(stack)),
    },
    Check {
        name: "requests",
        store: Store::Corten,
        arguments: &[
            "--authentication-config={folder}/authentication.yaml",
            "--audit-policy-file={folder}/audit.yaml",
            "--audit-log-path={folder}/audit.log",
        ],
        files: &[("authentication.yaml", requests::AUTHENTICATION), ("audit.yaml", requests::AUDIT)],
        run: |stack| Box::pin(requests::run(stack)),
    },
];

/// One whose server is as it comes.
const fn plain(name: &'static str, store: Store, run: fn(Stack) -> BoxFuture<'static, Result<()>>) -> Check {
    Check { name, store, arguments: &[], files: &[], run }
}

/// Runs the named checks, or all.
///
/// # Errors
/// An unknown name, or the first check that fails.
pub fn run(names: &[String]) -> Result<()> {
    let known = || CHECKS.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = names.iter().find(|name| CHECKS.iter().all(|c| c.name != **name)) {
        bail!("there is no check {unknown}; there are: {}", known());
    }
    let corten = std::env::current_exe()?.with_file_name("corten");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for check in CHECKS.iter().filter(|c| names.is_empty() || names.iter().any(|name| name == c.name)) {
        let start = Instant::now();
        runtime.block_on(one(check, &corten)).with_context(|| format!("the API server's check {}", check.name))?;
        println!("check {} ... {:.1} s", check.name, start.elapsed().as_secs_f64());
    }
    Ok(())
}

async fn one(check: &Check, corten: &Path) -> Result<()> {
    let arguments: Vec<String> = check.arguments.iter().map(|a| (*a).to_owned()).collect();
    (check.run)(Stack::start_api_on(check.store, corten, &arguments, check.files).await?).await
}
