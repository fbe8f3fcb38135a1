//! The data disk: find it, or make it out of a blank disk, check it and mount it on /var.
//!
//! A disk that holds anything is never formatted. When there is no usable data disk, /var becomes a tmpfs so that machined can run and
//! tell, and only the Maintenance target is accepted: a store or containers in memory would be lost without a word at the next boot.

use crate::boot::{Booted, Error, Outcome};
use linux::mount::{self, MsFlags};
use linux::process::{Exit, run_tool};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const LABEL: &str = "CORTEN-DATA";
const TARGET: &str = "/var";
/// How much is looked at, at each end of a disk, before it is called blank: partition tables, file system and RAID signatures live there.
const LOOK: u64 = 1024 * 1024;
/// No smaller disk is formatted: it would hold no container image.
const SMALLEST: u64 = 1 << 30;

/// What a block device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Our data file system.
    Data,
    /// Nothing but zeroes where anything would be.
    Blank,
    /// Something of somebody's.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    name: String,
    size: u64,
    read_only: bool,
    is_partition: bool,
    has_partitions: bool,
    content: Content,
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Use(String),
    Format(String),
    None(String),
}

/// The step: mounts the data disk, or remembers why there is none and mounts a tmpfs.
pub fn mount_data(booted: &mut Booted) -> Outcome {
    let outcome = find_and_mount(booted);
    if let Err(error) = &outcome {
        booted.data_error = Some(error.to_string());
        mount::mount(
            Some("tmpfs"),
            Path::new(TARGET),
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=0755"),
        )?;
    }
    outcome
}

fn find_and_mount(booted: &mut Booted) -> Outcome {
    let (name, made) = match choose(&scan()) {
        Choice::Use(name) => (name, false),
        Choice::Format(name) => {
            booted.console.line(&format!("data disk: {name} is blank, formatting it"));
            (name, true)
        }
        Choice::None(why) => return Err(Error::Other(why)),
    };
    let device = device_of(&name);
    let checked = if made {
        format(&device)?;
        ", new"
    } else if is_clean(&device) {
        ""
    } else {
        check(&device)?;
        ", checked"
    };
    mount::mount(Some(&device), Path::new(TARGET), Some("ext4"), MsFlags::MS_NOATIME | MsFlags::MS_NODEV, None)?;
    Ok(format!("{device}{checked}"))
}

/// Which disk to use. Pure.
fn choose(disks: &[Disk]) -> Choice {
    let writable: Vec<&Disk> = disks.iter().filter(|disk| !disk.read_only).collect();
    let ours: Vec<&str> = writable.iter().filter(|d| d.content == Content::Data).map(|d| d.name.as_str()).collect();
    match ours[..] {
        [one] => return Choice::Use(one.to_owned()),
        [] => {}
        _ => return Choice::None(format!("{} are all labelled {LABEL}; remove all but one", ours.join(", "))),
    }
    let blank = |d: &&&Disk| d.content == Content::Blank && !d.is_partition && !d.has_partitions && d.size >= SMALLEST;
    match writable.iter().find(blank) {
        Some(disk) => Choice::Format(disk.name.clone()),
        None => Choice::None(format!(
            "no disk is labelled {LABEL} and none of {} is blank and at least {} MiB",
            if disks.is_empty() {
                "no disks".to_owned()
            } else {
                disks.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ")
            },
            SMALLEST >> 20
        )),
    }
}

fn scan() -> Vec<Disk> {
    let Ok(entries) = std::fs::read_dir("/sys/class/block") else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names.retain(|name| !["loop", "ram", "zram", "sr", "fd", "nbd"].iter().any(|kind| name.starts_with(kind)));
    names.iter().filter_map(|name| examine(name)).collect()
}

fn examine(name: &str) -> Option<Disk> {
    let folder = Path::new("/sys/class/block").join(name);
    let number = |file: &str| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let size = number("size")?.checked_mul(512).filter(|size| *size > 0)?;
    let children = std::fs::read_dir(&folder).ok()?.flatten();
    let has_partitions = children.map(|e| e.path()).any(|path| path.join("partition").exists());
    let in_use = std::fs::read_dir(folder.join("holders")).is_ok_and(|mut holders| holders.next().is_some());
    let content = if in_use { Content::Other } else { content(&device_of(name), size).unwrap_or(Content::Other) };
    Some(Disk {
        name: name.to_owned(),
        size,
        read_only: number("ro") == Some(1),
        is_partition: folder.join("partition").exists(),
        has_partitions,
        content,
    })
}

fn content(device: &str, size: u64) -> std::io::Result<Content> {
    let mut file = File::open(device)?;
    let mut head = Vec::new();
    (&mut file).take(LOOK).read_to_end(&mut head)?;
    if label(&head) == Some(LABEL) {
        return Ok(Content::Data);
    }
    if head.iter().any(|byte| *byte != 0) {
        return Ok(Content::Other);
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(size.saturating_sub(LOOK)))?;
    file.take(LOOK).read_to_end(&mut tail)?;
    Ok(if tail.iter().all(|byte| *byte == 0) { Content::Blank } else { Content::Other })
}

/// The label in an ext4 superblock, which stands at byte 1024: its magic at 56, its 16-byte volume name at 120.
fn label(head: &[u8]) -> Option<&str> {
    let superblock = head.get(1024..2048)?;
    if superblock[56..58] != [0x53, 0xEF] {
        return None;
    }
    let name = &superblock[120..136];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    std::str::from_utf8(&name[..end]).ok()
}

/// True when the file system was unmounted in order: its state is "valid" and no journal waits to be replayed. Then e2fsck would only start,
/// look at the same two fields and end.
fn is_clean(device: &str) -> bool {
    let mut head = Vec::new();
    let read = File::open(device).and_then(|file| file.take(2048).read_to_end(&mut head));
    read.is_ok() && clean_superblock(&head)
}

/// The state is at 58 in the superblock (1 is valid), the incompatible features at 96 (4 is "needs recovery").
fn clean_superblock(head: &[u8]) -> bool {
    const RECOVER: u8 = 4;
    head.get(1024..2048).is_some_and(|superblock| superblock[58..60] == [1, 0] && superblock[96] & RECOVER == 0)
}

/// sysfs writes a slash of a device's name as an exclamation mark.
fn device_of(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

fn format(device: &str) -> Result<(), Error> {
    // Inode tables and journal are zeroed later, in the background: the disk was blank, and a first boot should be quick.
    let argv = [
        "/usr/sbin/mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-m",
        "1",
        "-L",
        LABEL,
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1",
        device,
    ];
    match run_tool(&argv)? {
        (Exit::Code(0), _) => Ok(()),
        (exit, output) => Err(Error::Other(format!("mke2fs {device}: {exit}: {}", output.trim()))),
    }
}

fn check(device: &str) -> Result<(), Error> {
    // Exit codes: 0 clean, 1 repaired, 2 repaired and the machine should restart (only for a mounted root, which this is not).
    match run_tool(&["/usr/sbin/e2fsck", "-p", device])? {
        (Exit::Code(0..=2), _) => Ok(()),
        (exit, output) => Err(Error::Other(format!("e2fsck {device} could not repair it: {exit}: {}", output.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, content: Content) -> Disk {
        Disk { name: name.into(), size: 8 << 30, read_only: false, is_partition: false, has_partitions: false, content }
    }

    #[test]
    fn the_labelled_disk_wins_and_data_is_never_formatted() {
        use Content::{Blank, Data, Other};
        let use_ = |name: &str| Choice::Use(name.into());
        let partition = |name, content| Disk { is_partition: true, ..disk(name, content) };
        let cases = [
            (vec![disk("vda", Blank), disk("vdb", Data)], use_("vdb")),
            (vec![disk("vda", Other), partition("vda2", Data)], use_("vda2")),
            (vec![disk("vda", Other), disk("vdb", Blank), disk("vdc", Blank)], Choice::Format("vdb".into())),
        ];
        for (disks, want) in cases {
            assert_eq!(choose(&disks), want, "{disks:?}");
        }
        let refused = [
            vec![],
            vec![disk("vda", Other)],
            vec![partition("vda1", Blank)],
            vec![Disk { has_partitions: true, ..disk("vda", Blank) }],
            vec![Disk { size: SMALLEST - 1, ..disk("vda", Blank) }],
            vec![Disk { read_only: true, ..disk("vda", Data) }],
            vec![disk("vda", Data), disk("vdb", Data)],
        ];
        for disks in refused {
            assert!(matches!(choose(&disks), Choice::None(_)), "{disks:?}");
        }
    }

    #[test]
    fn the_label_is_read_from_the_superblock() {
        let mut head = vec![0; 4096];
        assert_eq!(label(&head), None);
        head[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xEF]);
        head[1024 + 120..1024 + 131].copy_from_slice(LABEL.as_bytes());
        assert_eq!(label(&head), Some(LABEL));
        assert_eq!(label(&head[..1500]), None);
        assert!(!clean_superblock(&head));
        head[1024 + 58] = 1;
        assert!(clean_superblock(&head));
        head[1024 + 96] = 4;
        assert!(!clean_superblock(&head));
    }

    #[test]
    fn only_a_disk_with_zero_ends_is_blank() {
        let path = std::env::temp_dir().join(format!("corten-disk-{}", std::process::id()));
        let name = path.to_str().unwrap();
        let size = 8 * LOOK;
        let write = |at: u64, bytes: &[u8]| {
            use std::os::unix::fs::FileExt;
            let file = File::options().write(true).create(true).truncate(true).open(&path).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(bytes, at).unwrap();
        };
        write(0, &[]);
        assert_eq!(content(name, size).unwrap(), Content::Blank);
        for at in [0, 510, LOOK - 1, size - 1, size - 512] {
            write(at, &[0x55]);
            assert_eq!(content(name, size).unwrap(), Content::Other, "{at}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
