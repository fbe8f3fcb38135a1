//! Everything that continuous integration runs, cheapest first.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use image::Tool;
use qemu::{Artifacts, DriverName};

/// What the checks themselves need: the list of files comes from git, the store is compared with etcd and exchanged for it, its
/// clocks jump, disks lose what was not flushed, and pip brings the official Python client. The packages have the same names
/// in Debian 12 (etcd 3.4) and 13 (etcd 3.5).
const TOOLS: &[Tool] = &[
    Tool::new("git", "git"),
    Tool::new("etcd", "etcd-server"),
    Tool::new("etcdctl", "etcd-client"),
    Tool::new("faketime", "faketime"),
    Tool::new("nbdkit", "nbdkit"),
    Tool::new("pip3", "python3-pip"),
];

/// The checks that cargo itself does.
const CARGO_CHECKS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]),
    ("unit tests", &["test", "--workspace", "--quiet"]),
];

/// Runs all checks; stops at the first that fails.
pub fn run() -> Result<()> {
    let start = Instant::now();
    image::ensure_tools(TOOLS)?;
    image::ensure_tools(image::COMPILERS)?;
    for (name, arguments) in CARGO_CHECKS {
        step(start, name);
        let status =
            image::cargo().args(*arguments).current_dir(qemu::cluster::workspace()).status().context("cargo")?;
        if !status.success() {
            bail!("{name}: cargo {} failed", arguments.join(" "));
        }
    }
    step(start, "the wire forms of every kind");
    wire_forms()?;
    step(start, "the same image twice");
    same_bytes()?;
    step(start, "the API server alone");
    crate::api::run(&[])?;
    step(start, "controllers and scheduler alone");
    crate::control::run(&[], &[])?;
    step(start, "end-to-end tests in QEMU");
    crate::e2e::run(DriverName::Qemu, false, &[])?;
    step(start, "end-to-end tests in namespaces");
    if is_root()? {
        crate::e2e::run(DriverName::Namespace, false, &[])?;
    } else {
        println!("left out: the namespace driver needs root");
    }
    step(start, "all checks passed");
    Ok(())
}

/// Reads and writes what upstream wrote, in JSON, YAML and protobuf.
fn wire_forms() -> Result<()> {
    let folder = image::package_folder("golang-k8s-api-dev", "usr/share/gocode/src/k8s.io/api/testdata/HEAD")?;
    let status = image::cargo()
        .args(["test", "--workspace", "--quiet", "wire_fixtures", "--", "--ignored"])
        .env("CORTEN_WIRE_FIXTURES", folder)
        .current_dir(qemu::cluster::workspace())
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("the wire forms differ from upstream's");
    }
    Ok(())
}

/// Builds the image twice from the same input; every file must have the same bytes.
fn same_bytes() -> Result<()> {
    let build = || -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let built = Artifacts::build()?.image;
        let files = [built.kernel, built.initramfs, built.root_image, built.test_web, built.sbom];
        files
            .into_iter()
            .map(|file| {
                let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
                Ok((file, bytes))
            })
            .collect()
    };
    let first = build()?;
    for (file, _) in &first {
        // What is there already might not be made again.
        fs::remove_file(file).with_context(|| file.display().to_string())?;
    }
    let second = build()?;
    let differ = first.iter().zip(&second).find(|(a, b)| a != b);
    match differ {
        Some(((file, _), _)) => bail!("{} differs between two builds from the same input", file.display()),
        None => Ok(()),
    }
}

fn is_root() -> Result<bool> {
    Ok(qemu::kubectl::output(std::process::Command::new("id").arg("-u"))?.trim() == "0")
}

fn step(start: Instant, name: &str) {
    println!("\n== {:.0} s: {name}", start.elapsed().as_secs_f64());
}
