//! Virtual machines under QEMU, without host privileges: user-mode network, direct kernel boot.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};

use crate::artifacts::Artifacts;
use anyhow::{Context, Result, bail};

use super::Remembered;
use super::disk::Disk;
use crate::cluster::{Cluster, Node};
use crate::driver::Driver;

const MEMORY_MIB: u32 = 4096;
const PROCESSORS: u32 = 2;
/// Where the kernel shows a fw_cfg file.
const CONFIG_IN_GUEST: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/corten/config/raw";

/// The driver.
#[derive(Debug)]
pub struct Qemu;

fn process(cluster: &Cluster, node: &Node) -> Remembered {
    let file = cluster.folder.join(format!("{}.pid", node.name));
    // The pid file's path stands in QEMU's own command line.
    let mark = file.display().to_string();
    Remembered::new(file, mark)
}

fn disk(cluster: &Cluster, node: &Node) -> Disk {
    Disk::new(&cluster.folder, &node.name)
}

impl Driver for Qemu {
    fn prepare(&self, _: &Cluster, _: &Artifacts) -> Result<()> {
        Ok(())
    }

    fn power_on(&self, cluster: &Cluster, node: &Node, image: &Artifacts) -> Result<()> {
        disk(cluster, node).power_on()?;
        // Keep what the console said before: a test compares boots.
        let console = cluster.console_log(node);
        let mut output = Command::new("qemu-system-x86_64");
        output.args(arguments(cluster, node, image)).stdin(Stdio::null());
        let output = output.output().context("qemu-system-x86_64")?;
        if !output.status.success() {
            bail!("qemu-system-x86_64: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        fs::metadata(&console).with_context(|| console.display().to_string())?;
        Ok(())
    }

    fn power_off(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        // The disk first: it must not hear that its user is gone.
        disk(cluster, node).power_off()?;
        process(cluster, node).kill()
    }

    fn is_on(&self, cluster: &Cluster, node: &Node) -> bool {
        process(cluster, node).pid().is_some()
    }

    fn clean_up(&self, _: &Cluster) -> Result<()> {
        Ok(())
    }
}

/// The command line: pure, so that it can be read in one place.
fn arguments(cluster: &Cluster, node: &Node, image: &Artifacts) -> Vec<OsString> {
    let file = |suffix: &str| cluster.folder.join(format!("{}.{suffix}", node.name)).display().to_string();
    let forwards = format!(
        "user,id=net0,hostfwd=tcp:127.0.0.1:{}-:6443,hostfwd=tcp:127.0.0.1:{}-:50000",
        node.kubernetes_port, node.machine_port
    );
    let config = cluster.config_argument.as_deref().unwrap_or(CONFIG_IN_GUEST);
    let pairs = [
        ("-name", format!("corten-{}", node.name)),
        // Emulation on purpose: a /dev/kvm that exists may still not run a kernel.
        ("-machine", "q35,accel=tcg".to_owned()),
        ("-cpu", "max".to_owned()),
        ("-smp", PROCESSORS.to_string()),
        ("-m", MEMORY_MIB.to_string()),
        ("-kernel", image.image.kernel.display().to_string()),
        ("-initrd", image.image.initramfs.display().to_string()),
        ("-append", format!("{} corten.config={config}", image.image.board.kernel_arguments.join(" "))),
        ("-fw_cfg", format!("name=opt/corten/config,file={}", cluster.machine_config(node).display())),
        ("-drive", format!("if=none,id=disk0,format=raw,discard=unmap,{}", disk(cluster, node).file_options())),
        ("-device", "virtio-blk-pci,drive=disk0".to_owned()),
        ("-netdev", forwards),
        ("-device", "virtio-net-pci,netdev=net0".to_owned()),
        ("-device", "virtio-rng-pci".to_owned()),
        ("-chardev", format!("file,id=console0,append=on,path={}", cluster.console_log(node).display())),
        ("-serial", "chardev:console0".to_owned()),
        ("-display", "none".to_owned()),
        ("-monitor", "none".to_owned()),
        ("-qmp", format!("unix:{},server=on,wait=off", file("qmp"))),
        ("-pidfile", file("pid")),
    ];
    let flat = pairs.into_iter().flat_map(|(option, value)| [OsString::from(option), OsString::from(value)]);
    flat.chain([OsString::from("-nodefaults"), OsString::from("-daemonize")]).collect()
}
