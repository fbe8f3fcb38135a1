//! Small things a node needs before its first service: kernel parameters, the files /etc links to, the machine id.

use crate::boot::{Error, Outcome};
use std::path::Path;

/// Kernel parameters. What the kubelet's `protectKernelDefaults` checks is here as well.
const PARAMETERS: &[(&str, &str)] = &[
    // Modules are loaded from a list; without this the kernel would try to execute a modprobe that is not there.
    ("kernel.modprobe", ""),
    // Warnings of the kernel reach the console, its chatter only the log.
    ("kernel.printk", "4 4 1 4"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.pid_max", "4194304"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("vm.max_map_count", "262144"),
    ("fs.inotify.max_user_instances", "8192"),
    ("fs.inotify.max_user_watches", "524288"),
    ("net.core.somaxconn", "4096"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.neigh.default.gc_thresh1", "1024"),
    ("net.ipv4.neigh.default.gc_thresh2", "4096"),
    ("net.ipv4.neigh.default.gc_thresh3", "8192"),
];

const MACHINE_ID: &str = "/var/lib/corten/machine-id";

/// Sets the parameters; a kernel (or a namespace) may lack one, which is said and is no reason to stop.
pub fn kernel_parameters() -> String {
    let refused: Vec<&str> = PARAMETERS
        .iter()
        .filter(|(name, value)| linux::sysctl::set(name, value).is_err())
        .map(|(name, _)| *name)
        .collect();
    if refused.is_empty() {
        format!("{} set", PARAMETERS.len())
    } else {
        format!("{} set, not here: {}", PARAMETERS.len() - refused.len(), refused.join(" "))
    }
}

/// Writes what the links in /etc point to. machined replaces hosts and resolv.conf when it knows better.
pub fn write() -> Outcome {
    write_if_missing("/run/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    write_if_missing("/run/resolv.conf", "")?;
    let id = machine_id()?;
    write_file("/run/machine-id", &format!("{id}\n"))?;
    Ok(format!("machine id {id}"))
}

/// The id made at the first boot, kept on the data disk. Without one it lasts until the next boot.
fn machine_id() -> Result<String, Error> {
    if let Ok(text) = std::fs::read_to_string(MACHINE_ID)
        && is_machine_id(text.trim())
    {
        return Ok(text.trim().to_owned());
    }
    let random = "/proc/sys/kernel/random/uuid";
    let uuid = std::fs::read_to_string(random).map_err(|e| Error::Other(format!("{random}: {e}")))?;
    let id: String = uuid.trim().chars().filter(|c| *c != '-').collect();
    write_file(MACHINE_ID, &format!("{id}\n"))?;
    Ok(id)
}

/// 32 lower-case hexadecimal digits, as machine-id(5) has it.
fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn write_if_missing(path: &str, text: &str) -> Result<(), Error> {
    if Path::new(path).exists() { Ok(()) } else { write_file(path, text) }
}

fn write_file(path: &str, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|e| Error::Other(format!("{path}: {e}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn machine_ids() {
        assert!(super::is_machine_id("0123456789abcdef0123456789abcdef"));
        assert!(!super::is_machine_id("0123456789ABCDEF0123456789abcdef"));
        assert!(!super::is_machine_id(""));
    }
}
