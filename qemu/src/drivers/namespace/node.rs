//! The two processes of a node: one on the host's side that holds the namespaces, one inside that becomes init.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use anyhow::{Context, Result, anyhow};
use linux::mount::{self, MsFlags};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;

use super::cgroups;

/// What both processes are told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The node's network namespace.
    #[arg(long)]
    namespace: PathBuf,
    /// The root file system's image.
    #[arg(long)]
    root_image: PathBuf,
    /// An empty folder to mount it on.
    #[arg(long)]
    root: PathBuf,
    /// The folder that stands for the data disk.
    #[arg(long)]
    var: PathBuf,
    /// The machine configuration.
    #[arg(long)]
    config: PathBuf,
    /// What `corten.config=` says.
    #[arg(long)]
    config_argument: Option<String>,
    /// The name of the node's control groups.
    #[arg(long)]
    cgroup: String,
}

/// Where a node finds its configuration.
const CONFIG_INSIDE: &str = "run/corten-config/config.yaml";
/// Devices that the node has in common with its host.
const DEVICES: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "kmsg", "fuse", "net/tun"];

/// Enters new namespaces and waits for the node to end; its exit code is the node's.
///
/// # Errors
/// A namespace could not be entered.
pub fn host_side(arguments: &Arguments) -> Result<()> {
    let hierarchies = cgroups::hierarchies()?;
    cgroups::enter(&hierarchies, &arguments.cgroup)?;
    let network = File::open(&arguments.namespace).with_context(|| arguments.namespace.display().to_string())?;
    setns(network, CloneFlags::CLONE_NEWNET).context("network namespace")?;
    let new = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(new).context("new namespaces")?;
    // The next child is the first process of the new process namespace.
    let mut own = std::env::args_os();
    let program = own.next().ok_or_else(|| anyhow!("no program name"))?;
    let status = Command::new(std::env::current_exe().unwrap_or_else(|_| program.into()))
        .arg("namespace-init")
        .args(own.skip(1))
        .status()
        .context("namespace-init")?;
    exit(status.code().unwrap_or(1));
}

/// Builds the node's file system tree, enters it and becomes init.
///
/// # Errors
/// Something could not be mounted; init could not be executed.
pub fn inside(arguments: &Arguments) -> Result<()> {
    // The power button: whoever ends the process on the host's side ends the node.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("parent-death signal")?;
    mount::propagation(Path::new("/"), MsFlags::MS_PRIVATE)?;
    let root = arguments.root.as_path();
    fs::create_dir_all(root).with_context(|| root.display().to_string())?;
    mount_image(&arguments.root_image, root)?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount::mount(Some("proc"), &root.join("proc"), Some("proc"), safe, None)?;
    mount::mount(Some("sysfs"), &root.join("sys"), Some("sysfs"), safe, None)?;
    mount::mount(Some("tmpfs"), &root.join("run"), Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"))?;
    // As a device mount, because image layers may hold device files; volumes and containers live below.
    mount::bind(&arguments.var, &root.join("var"))?;
    cgroups::mount_all(&cgroups::hierarchies()?, root)?;
    devices(root)?;
    give_file(
        root,
        CONFIG_INSIDE,
        &fs::read(&arguments.config).with_context(|| arguments.config.display().to_string())?,
    )?;
    adapt_containerd(root)?;
    mount::pivot_into(root)?;
    let config = arguments.config_argument.clone().unwrap_or_else(|| format!("/{CONFIG_INSIDE}"));
    let error = Command::new("/sbin/init")
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CORTEN_DRIVER", "namespace")
        .env("CORTEN_CMDLINE", format!("corten.config={config}"))
        .exec();
    Err(error).context("/sbin/init")
}

fn mount_image(image: &Path, root: &Path) -> Result<()> {
    let device = linux::loopdev::attach_read_only(image, false)?;
    let device_path = device.path.display().to_string();
    let kind = match image.extension().and_then(|e| e.to_str()) {
        Some("squashfs") => "squashfs",
        _ => "erofs",
    };
    mount::mount(Some(&device_path), root, Some(kind), MsFlags::MS_RDONLY, None)?;
    Ok(())
}

fn devices(root: &Path) -> Result<()> {
    let dev = root.join("dev");
    mount::mount(Some("tmpfs"), &dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"))?;
    for folder in ["pts", "shm", "mqueue", "net"] {
        fs::create_dir_all(dev.join(folder))?;
    }
    for device in DEVICES {
        let host = Path::new("/dev").join(device);
        if host.exists() {
            let target = dev.join(device);
            File::create(&target).with_context(|| target.display().to_string())?;
            mount::bind(&host, &target)?;
        }
    }
    std::os::unix::fs::symlink("pts/ptmx", dev.join("ptmx"))?;
    Ok(())
}

fn give_file(root: &Path, path: &str, content: &[u8]) -> Result<()> {
    let target = root.join(path);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(&target, content).with_context(|| target.display().to_string())
}

/// A host may deny negative OOM scores even to root; runc then fails with a message about something else.
fn adapt_containerd(root: &Path) -> Result<()> {
    const TABLE: &str = "[plugins.\"io.containerd.grpc.v1.cri\"]";
    let path = root.join("etc/containerd/config.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let adapted = text.replacen(TABLE, &format!("{TABLE}\n  restrict_oom_score_adj = true"), 1);
    give_file(root, "run/corten-config/containerd.toml", adapted.as_bytes())?;
    mount::bind(&root.join("run/corten-config/containerd.toml"), &path)?;
    Ok(())
}
