//! Store, API server and scheduler as processes of this host, with certificates of their own and nothing else: what a
//! benchmark measures when it is not pointed at a cluster.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use client::Client;
use pki::{Ca, IssueRequest, Usage};
use tempfile::TempDir;
use tokio_rustls::rustls;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What keeps the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Ours.
    Corten,
    /// The etcd of this machine, which takes the same flags.
    Etcd,
}

/// A process that moves the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    ControllerManager,
    Scheduler,
}

impl System {
    /// Its applet.
    pub fn name(self) -> &'static str {
        match self {
            System::ControllerManager => "kube-controller-manager",
            System::Scheduler => "kube-scheduler",
        }
    }

    /// Whom it acts as.
    pub fn user(self) -> &'static str {
        match self {
            System::ControllerManager => "system:kube-controller-manager",
            System::Scheduler => "system:kube-scheduler",
        }
    }
}

/// The running processes; they end with it.
pub struct Stack {
    folder: TempDir,
    ca: Ca,
    /// Of proxies in front of the API server.
    front: Ca,
    /// The binary and the arguments that the API server is started with.
    api: (PathBuf, Vec<String>),
    children: Vec<(&'static str, Child)>,
    api_port: u16,
    /// Where the scheduler serves its metrics.
    metrics_port: u16,
}

impl Stack {
    /// The multi-call binary, which is built beside this program.
    pub fn corten() -> Result<PathBuf> {
        Ok(std::env::current_exe()?.with_file_name("corten"))
    }

    /// Starts everything and waits until it is ready. `corten` is the multi-call binary.
    pub async fn start(corten: &Path) -> Result<Stack> {
        let mut stack = Self::start_api(corten, &[], &[]).await?;
        let file = |name: &str| stack.path(name).display().to_string();
        let arguments = [
            format!("--kubeconfig={}", file("scheduler.conf")),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", stack.metrics_port),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
        ];
        stack.spawn(corten, "kube-scheduler", &arguments)?;
        stack.ready(&stack.scheduler()?).await?;
        Ok(stack)
    }

    /// Starts one of the processes that move the cluster, as the stack's own.
    pub fn start_system(&mut self, system: System) -> Result<()> {
        let child = self.spawn_system(system, self.api_port, &["--leader-elect=false"])?;
        self.children.push((system.name(), child));
        Ok(())
    }

    /// Starts such a process for the caller, with an API server at that port of this host.
    pub fn spawn_system(&self, system: System, port: u16, more: &[&str]) -> Result<Child> {
        let file = |name: &str| self.path(name).display().to_string();
        let user = system.user().replace(':', "-");
        self.issue(&user, system.user(), &[], Usage::Client)?;
        let name = system.name();
        fs::write(self.path(&format!("{name}.conf")), kubeconfig(port, &user))?;
        let mut command = applet(&self.api.0, name);
        command.args([format!("--kubeconfig={}", file(&format!("{name}.conf"))), "--secure-port=0".to_owned()]);
        if system == System::ControllerManager {
            let root_ca = format!("--root-ca-file={}", file("ca.crt"));
            command.args([root_ca, "--use-service-account-credentials=true".to_owned()]);
        }
        let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log")))?;
        let command = command.args(more).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("{command:?}"))
    }

    /// The last lines that such a process has logged.
    pub fn log_tail(&self, system: System) -> String {
        let log = fs::read_to_string(self.path(&format!("{}.log", system.name()))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Starts the store and an API server with more arguments than it needs, and waits until it is ready. `files` are names and texts
    /// in the folder that `{folder}` stands for in arguments.
    pub async fn start_api(corten: &Path, more: &[String], files: &[(&str, &str)]) -> Result<Stack> {
        Self::start_api_on(Store::Corten, corten, more, files).await
    }

    /// The same on another store.
    pub async fn start_api_on(kind: Store, corten: &Path, more: &[String], files: &[(&str, &str)]) -> Result<Stack> {
        ensure!(corten.exists(), "{} is not built; run cargo build --workspace --bins", corten.display());
        let folder = tempfile::tempdir().context("a folder for the processes")?;
        let ports = [free_port()?, free_port()?, free_port()?, free_port()?];
        let [store, peer, api_port, metrics_port] = ports;
        let ca = Ca::generate("bench")?;
        let front = Ca::generate("front")?;
        let mut stack =
            Stack { folder, ca, front, api: Default::default(), children: Vec::new(), api_port, metrics_port };
        stack.write_credentials()?;
        let (mut program, name) = match kind {
            Store::Corten => (applet(corten, "store"), "store"),
            Store::Etcd => (Command::new("etcd"), "etcd"),
        };
        stack.run(
            program.args([
                format!("--data-dir={}", stack.path("store").display()),
                format!("--listen-client-urls=http://127.0.0.1:{store}"),
                format!("--advertise-client-urls=http://127.0.0.1:{store}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
            ]),
            name,
        )?;
        let file = |name: &str| stack.path(name).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{store}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=192.0.2.1".to_owned(),
            format!("--secure-port={api_port}"),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
        ];
        let own = stack.folder.path().display().to_string();
        arguments.extend(more.iter().map(|a| a.replace("{folder}", &own)));
        stack.api = (corten.to_owned(), arguments);
        for (name, text) in files {
            stack.write(name, text)?;
        }
        stack.run_api().await?;
        Ok(stack)
    }

    /// Starts the API server, again after [`Self::stop_api`].
    pub async fn run_api(&mut self) -> Result<()> {
        let (corten, arguments) = self.api.clone();
        self.spawn(&corten, "kube-apiserver", &arguments)?;
        self.ready(&self.client()?).await
    }

    /// What the API server is started with the next time.
    pub fn api_arguments(&mut self) -> &mut Vec<String> {
        &mut self.api.1
    }

    /// Puts a file into the processes' folder.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.path(name), text)?)
    }

    /// The folder of the store's files.
    pub fn store_folder(&self) -> PathBuf {
        self.path("store")
    }

    /// Where the API server listens.
    pub fn api_address(&self) -> SocketAddr {
        (LOOPBACK, self.api_port).into()
    }

    /// TLS as a user of this name, who has a certificate.
    pub fn tls_of(&self, user: &str, groups: &[&str]) -> Result<Arc<rustls::ClientConfig>> {
        let file = user.replace(':', "-");
        self.issue(&file, user, groups, Usage::Client)?;
        let [certificate, key] = ["crt", "key"].map(|end| self.path(&format!("{file}.{end}")));
        Ok(daemon::tls::client_config(&self.path("ca.crt"), Some((&certificate, &key)))?)
    }

    /// TLS as a proxy of this name, who speaks for others.
    pub fn tls_of_front(&self, name: &str) -> Result<Arc<rustls::ClientConfig>> {
        self.tls_by(&self.front, name, &[])
    }

    /// TLS with a certificate that an authority of the same name has made.
    pub fn tls_of_stranger(&self, user: &str, groups: &[&str]) -> Result<Arc<rustls::ClientConfig>> {
        self.tls_by(&Ca::generate("bench")?, user, groups)
    }

    fn tls_by(&self, ca: &Ca, user: &str, groups: &[&str]) -> Result<Arc<rustls::ClientConfig>> {
        let file = format!("by-another-{user}");
        self.issue_by(ca, &file, user, groups, Usage::Client)?;
        let [certificate, key] = ["crt", "key"].map(|end| self.path(&format!("{file}.{end}")));
        Ok(daemon::tls::client_config(&self.path("ca.crt"), Some((&certificate, &key)))?)
    }

    /// TLS without a certificate.
    pub fn tls_of_nobody(&self) -> Result<Arc<rustls::ClientConfig>> {
        Ok(daemon::tls::client_config(&self.path("ca.crt"), None)?)
    }

    /// Asks the API server to end; how it ended.
    pub fn stop_api(&mut self) -> Result<std::process::ExitStatus> {
        let at = self.children.iter().position(|(name, _)| *name == "kube-apiserver");
        let (_, mut child) = self.children.remove(at.context("there is no API server")?);
        let status = Command::new("kill").arg(child.id().to_string()).status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(child.wait()?)
    }

    /// The administrator's client; each call opens connections of its own.
    pub fn client(&self) -> Result<Client> {
        self.client_of(self.api_port, "admin.conf")
    }

    /// A client of the scheduler's own endpoints.
    pub fn scheduler(&self) -> Result<Client> {
        self.client_of(self.metrics_port, "metrics.conf")
    }

    /// Resident memory of each process in MiB.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        self.children.iter().map(|(name, child)| (*name, resident_mib(child.id()))).collect()
    }

    /// Of each process what is resident, and what of that is its own, in MiB.
    pub fn memory_in_detail(&self) -> Vec<(&'static str, [u64; 2])> {
        let of = |child: &Child| [resident_mib(child.id()), anonymous_mib(child.id())];
        self.children.iter().map(|(name, child)| (*name, of(child))).collect()
    }

    /// Processor seconds that each process has used.
    pub fn processor(&self) -> Vec<(&'static str, f64)> {
        self.children.iter().map(|(name, child)| (*name, processor_seconds(child.id()))).collect()
    }

    fn client_of(&self, port: u16, name: &str) -> Result<Client> {
        let path = self.path(name);
        fs::write(&path, kubeconfig(port, "admin"))?;
        Client::from_kubeconfig(&path).with_context(|| path.display().to_string())
    }

    /// A file of the processes; `ca.crt`, `admin.crt`, `admin.key` and `admin.conf` are the administrator's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_credentials(&self) -> Result<()> {
        fs::write(self.path("ca.crt"), self.ca.cert_pem())?;
        fs::write(self.path("front-ca.crt"), self.front.cert_pem())?;
        let who = [
            ("server", "kube-apiserver", [].as_slice(), Usage::Server),
            ("admin", "bench", &["system:masters"], Usage::Client),
            ("scheduler", "system:kube-scheduler", &[], Usage::Client),
        ];
        for (file, name, groups, usage) in who {
            self.issue(file, name, groups, usage)?;
        }
        let key = pki::service_account_key()?;
        fs::write(self.path("sa.key"), key.private_pem())?;
        fs::write(self.path("sa.pub"), key.public_pem())?;
        fs::write(self.path("scheduler.conf"), kubeconfig(self.api_port, "scheduler"))?;
        Ok(())
    }

    fn issue(&self, file: &str, name: &str, groups: &[&str], usage: Usage) -> Result<()> {
        self.issue_by(&self.ca, file, name, groups, usage)
    }

    fn issue_by(&self, ca: &Ca, file: &str, name: &str, groups: &[&str], usage: Usage) -> Result<()> {
        let issued = ca.issue(IssueRequest {
            common_name: name.to_owned(),
            organizations: groups.iter().map(|g| (*g).to_owned()).collect(),
            ips: vec![LOOPBACK],
            usage,
            valid_for_days: 2,
            ..IssueRequest::default()
        })?;
        fs::write(self.path(&format!("{file}.crt")), issued.cert_pem)?;
        fs::write(self.path(&format!("{file}.key")), issued.key_pem)?;
        Ok(())
    }

    fn spawn(&mut self, corten: &Path, name: &'static str, arguments: &[String]) -> Result<()> {
        self.run(applet(corten, name).args(arguments), name)
    }

    fn run(&mut self, command: &mut Command, name: &'static str) -> Result<()> {
        let log = File::create(self.path(&format!("{name}.log")))?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().with_context(|| format!("{command:?}"))?;
        self.children.push((name, child));
        Ok(())
    }

    /// Waits for /readyz; the end of a log says why it never comes.
    async fn ready(&self, client: &Client) -> Result<()> {
        let waiting = async {
            while client.get_text("/readyz").await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_ok() {
            return Ok(());
        }
        let name = self.children.last().map_or("", |(name, _)| *name);
        let log = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        anyhow::bail!("{name} is not ready: {}", log.lines().last().unwrap_or("its log is empty"))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for (_, child) in self.children.iter_mut().rev() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One program of the multi-call binary.
fn applet(corten: &Path, name: &str) -> Command {
    let mut command = Command::new(corten);
    command.arg(name);
    command
}

fn kubeconfig(port: u16, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: bench\ncontexts:\n- name: bench\n  context: {{cluster: bench, user: {user}}}\n\
         clusters:\n- name: bench\n  cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: ca.crt}}\n\
         users:\n- name: {user}\n  user: {{client-certificate: {user}.crt, client-key: {user}.key}}\n"
    )
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((LOOPBACK, 0))?.local_addr()?.port())
}

/// Resident memory of a process in MiB; 0 if it is gone.
pub fn resident_mib(pid: u32) -> u64 {
    memory_mib(pid, "VmRSS:")
}

/// The part of it that is the process's own, not of a file; see proc_pid_status(5).
pub fn anonymous_mib(pid: u32) -> u64 {
    memory_mib(pid, "RssAnon:")
}

fn memory_mib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Processor seconds that a process has used; 0 if it is gone.
fn processor_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime, in hundredths of a second on every Linux that runs this.
    let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
    ticks / 100.0
}
