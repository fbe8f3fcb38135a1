//! What is on a node, as tables: the root file system and the initramfs. Nothing here touches the disk but to follow libraries.

use crate::binaries::Binaries;
use crate::elf;
use crate::kernel::{Module, Modules};
use crate::packages::Packages;
use crate::tree::Tree;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The Debian packages files are taken from.
pub const PACKAGES: &[&str] =
    &["ca-certificates", "containerd", "e2fsprogs", "libgcc-s1", "libstdc++6", "nftables", "runc"];

/// The sandbox image; its name is the upstream one, so that every kubelet and containerd finds it under the name they expect.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.1";
/// The image end-to-end tests run.
pub const TEST_WEB_IMAGE: &str = "corten.local/test-web:v1";

/// Programs taken from packages: path on the node, path in the package.
const PROGRAMS: &[(&str, &str)] = &[
    ("usr/bin/containerd", "usr/bin/containerd"),
    ("usr/bin/containerd-shim-runc-v2", "usr/bin/containerd-shim-runc-v2"),
    ("usr/sbin/runc", "usr/sbin/runc"),
    ("usr/sbin/nft", "usr/sbin/nft"),
    ("usr/sbin/mke2fs", "usr/sbin/mke2fs"),
    ("usr/sbin/e2fsck", "usr/sbin/e2fsck"),
];

/// Applets of the multi-call binary.
const APPLETS: &[&str] = &[
    "machined",
    "store",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "metal-controller-manager",
    "kubelet",
    "pod-network",
    "kube-proxy",
    "cluster-dns",
];

/// Empty folders: mount points, mostly.
const FOLDERS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("etc/kubernetes", 0o700),
    ("root", 0o700),
    ("mnt", 0o755),
    ("opt/cni/bin", 0o755),
];

/// Links: merged /usr as in Debian, and files of /etc that change, which live in /run.
const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("usr/sbin/mkfs.ext4", "mke2fs"),
    ("usr/sbin/fsck.ext4", "e2fsck"),
    ("usr/bin/runc", "../sbin/runc"),
    ("etc/resolv.conf", "/run/resolv.conf"),
    ("etc/hosts", "/run/hosts"),
    ("etc/machine-id", "/run/machine-id"),
    ("etc/mtab", "/proc/self/mounts"),
    ("opt/cni/bin/corten-cni", "../../../usr/bin/corten"),
    // containerd brings up every sandbox's loopback by itself, through a plugin of this name.
    ("opt/cni/bin/loopback", "../../../usr/bin/corten"),
];

/// Files that are ours.
const FILES: &[(&str, &str)] = &[
    ("etc/containerd/config.toml", include_str!("../files/containerd.toml")),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/protocols", "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n"),
];

/// Files taken from packages as they are.
const TAKEN: &[&str] = &["etc/mke2fs.conf"];

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const MODULES: &str = "usr/lib/modules/corten";
const CERTIFICATES: &str = "usr/share/ca-certificates/mozilla";

/// What a root file system is made of.
pub struct Parts<'a> {
    pub packages: &'a Packages,
    pub ours: &'a Binaries,
    pub modules: &'a Modules,
    pub pause: &'a [u8],
}

/// The root file system.
pub fn root(parts: &Parts) -> Result<Tree> {
    let mut tree = Tree::default();
    for (path, mode) in FOLDERS {
        tree.dir(path, *mode);
    }
    for (path, to) in LINKS {
        tree.link(path, to);
    }
    for (path, text) in FILES {
        tree.bytes(path, 0o644, *text);
    }
    for path in TAKEN {
        tree.file(path, 0o644, &parts.packages.file(path)?);
    }
    tree.file("usr/sbin/init", 0o755, &parts.ours.init);
    tree.file("usr/bin/corten", 0o755, &parts.ours.corten);
    for applet in APPLETS {
        tree.link(&format!("usr/bin/{applet}"), "corten");
    }
    let mut programs = vec![parts.ours.corten.clone()];
    for (path, from) in PROGRAMS {
        let file = parts.packages.file(from)?;
        tree.file(path, 0o755, &file);
        programs.push(file);
    }
    libraries(&mut tree, parts.packages, &programs)?;
    modules(&mut tree, "drivers", &parts.modules.drivers);
    modules(&mut tree, "node", &parts.modules.node);
    tree.bytes("etc/ssl/certs/ca-certificates.crt", 0o644, certificates(parts.packages)?);
    tree.bytes("usr/share/corten/images/pause.tar", 0o644, parts.pause);
    tree.bytes("etc/os-release", 0o644, os_release());
    Ok(tree)
}

/// The initramfs: init, what it loads, and the root file system as one file.
pub fn initramfs(init: &Path, early: &[Module], root_image: &Path) -> Tree {
    let mut tree = Tree::default();
    for folder in ["dev", "proc", "sys", "run", "newroot"] {
        tree.dir(folder, 0o755);
    }
    // The kernel opens it for PID 1 before anything is mounted: without it a first panic would be silent.
    tree.char("dev/console", 0o600, 5, 1);
    tree.file("init", 0o755, init);
    modules(&mut tree, "drivers", early);
    tree.file("root.img", 0o644, root_image);
    tree
}

/// Modules and a list that init loads them by; at the same path in both file systems.
fn modules(tree: &mut Tree, list_name: &str, modules: &[Module]) {
    let mut list = String::new();
    for module in modules {
        let name = format!("{}.ko", module.name);
        tree.file(&format!("{MODULES}/{name}"), 0o644, &module.file);
        list.push_str(&name);
        list.push('\n');
    }
    tree.bytes(&format!("{MODULES}/{list_name}"), 0o644, list);
}

/// Exactly the libraries the programs reach, and the dynamic linker they name.
fn libraries(tree: &mut Tree, packages: &Packages, programs: &[PathBuf]) -> Result<()> {
    let paths: Vec<&Path> = programs.iter().map(PathBuf::as_path).collect();
    let mut linker = None;
    for program in &paths {
        let bytes = crate::read(program)?;
        let elf = elf::Elf::parse(&bytes).with_context(|| program.display().to_string())?;
        linker = linker.or(elf.interpreter()?.map(str::to_owned));
    }
    for (name, file) in elf::closure(&paths, |name| packages.library(name))? {
        tree.file(&format!("{LIBRARIES}/{name}"), 0o755, &file);
    }
    if let Some(linker) = linker {
        let name = linker.rsplit('/').next().unwrap_or_default();
        tree.file(&format!("{LIBRARIES}/{name}"), 0o755, &packages.file(&format!("{LIBRARIES}/{name}"))?);
        tree.link(&format!("usr{linker}"), &format!("../lib/x86_64-linux-gnu/{name}"));
    }
    Ok(())
}

/// The authorities of the Mozilla list in one file, where everything looks for them.
fn certificates(packages: &Packages) -> Result<Vec<u8>> {
    let mut bundle = Vec::new();
    for file in packages.below(CERTIFICATES)?.values() {
        bundle.extend(crate::read(file)?);
        if bundle.last() != Some(&b'\n') {
            bundle.push(b'\n');
        }
    }
    Ok(bundle)
}

fn os_release() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("NAME=\"Corten\"\nID=corten\nVERSION_ID={version}\nPRETTY_NAME=\"Corten {version}\"\n")
}
