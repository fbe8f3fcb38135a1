//! gen config: a new cluster's secrets, machine configurations and administrator's credentials.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use machine_config::{Authority, NewCluster, Secrets};
use pki::{Ca, IssueRequest};

use super::write_secret;
use crate::context;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Gen {
    /// Write controlplane.yaml, worker.yaml and cortenctl.yaml of a new cluster
    Config(Config),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    /// The cluster's name
    name: String,
    /// Where clients will reach its API server, https://host:6443
    endpoint: String,
    /// Folder for the files
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    output: PathBuf,
    /// Further names and addresses for the machines' and the API server's certificates
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    additional_sans: Vec<String>,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
}

/// The administrator's certificate: a year, as upstream's.
const ADMIN_DAYS: u32 = 365;

pub(crate) fn run(Gen::Config(args): Gen) -> anyhow::Result<()> {
    let (secrets, machine_ca) = secrets()?;
    let cluster =
        NewCluster { name: args.name.clone(), endpoint: args.endpoint.clone(), cert_sans: args.additional_sans };
    let documents = machine_config::generate(&cluster, &secrets).map_err(|problems| anyhow!("{problems}"))?;
    let endpoint = machine_config::parse("controlplane.yaml", &documents.controlplane)
        .map_err(|p| anyhow!("{p}"))?
        .cluster
        .endpoint
        .host;
    let admin = machine_ca.issue(IssueRequest {
        common_name: "admin".to_owned(),
        organizations: vec![machine_api::ADMIN.to_owned()],
        valid_for_days: ADMIN_DAYS,
        ..IssueRequest::default()
    })?;
    let credentials = context::render(&args.name, &endpoint, machine_ca.cert_pem(), &admin);
    let files = [
        ("controlplane.yaml", documents.controlplane),
        ("worker.yaml", documents.worker),
        ("cortenctl.yaml", credentials),
    ];
    std::fs::create_dir_all(&args.output).with_context(|| args.output.display().to_string())?;
    // All or none: half of one cluster's files beside half of another's would fit nothing.
    if let Some((name, _)) = files.iter().find(|(name, _)| !args.force && args.output.join(name).exists()) {
        bail!("{} exists already (--force overwrites it)", args.output.join(name).display());
    }
    for (name, content) in files {
        let path = args.output.join(name);
        write_secret(&path, content.as_bytes(), args.force)?;
        println!("{}", path.display());
    }
    Ok(())
}

fn secrets() -> anyhow::Result<(Secrets, Ca)> {
    let (machine, cluster, etcd) = (Ca::generate("corten")?, Ca::generate("kubernetes")?, Ca::generate("etcd")?);
    let authority = |ca: &Ca| Authority { cert: ca.cert_pem().to_owned(), key: ca.key_pem().to_owned() };
    let secrets = Secrets {
        machine_ca: authority(&machine),
        cluster_ca: authority(&cluster),
        etcd_ca: authority(&etcd),
        service_account_key: pki::service_account_key()?.private_pem().to_owned(),
        // A letter first: YAML must not take it for a number.
        token: format!("t{:032x}", rand::random::<u128>()),
    };
    Ok((secrets, machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_has_three_files_once() {
        let folder = tempfile::tempdir().unwrap();
        let args = |name: &str, force| {
            Gen::Config(Config {
                name: name.into(),
                endpoint: "https://10.0.2.15:6443".into(),
                output: folder.path().into(),
                additional_sans: vec!["127.0.0.1".into()],
                force,
            })
        };
        run(args("demo", false)).unwrap();
        let text = std::fs::read_to_string(folder.path().join("controlplane.yaml")).unwrap();
        let config = machine_config::parse("c", &text).unwrap();
        let machine_config::Role::ControlPlane(keys) = &config.role else { panic!("not a control plane") };
        Ca::from_pem(&config.machine.ca_cert, &keys.machine_ca_key).unwrap();
        assert!(run(args("demo", false)).unwrap_err().to_string().contains("exists already"));
        run(args("demo", true)).unwrap();
        assert_eq!(run(args("De mo", true)).unwrap_err().to_string(), "name: \"De mo\" is not a DNS name");
    }
}
