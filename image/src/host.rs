//! What the building machine must have. Missing tools are installed by apt when we are root; otherwise the exact command is printed.
//!
//! A tool that Debian's own suite has too old comes from the backports suite of the mirror that apt already uses.

use crate::{run, say};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
    /// The oldest major version that works, when not every version does.
    at_least: Option<u32>,
}

impl Tool {
    /// Any version will do.
    pub const fn new(program: &'static str, package: &'static str) -> Tool {
        Tool { program, package, at_least: None }
    }

    /// Only this major version (of `program --version` and of the package) or a later one will do.
    pub const fn at_least(program: &'static str, package: &'static str, major: u32) -> Tool {
        Tool { program, package, at_least: Some(major) }
    }

    fn is_there(&self) -> bool {
        let Some(path) = on_path(self.program) else { return false };
        let Some(least) = self.at_least else { return true };
        let version = run(Command::new(path).arg("--version")).unwrap_or_default();
        major_version(&String::from_utf8_lossy(&version)).is_some_and(|major| major >= least)
    }
}

/// Installs what is missing, or says how.
pub fn ensure_tools(tools: &[Tool]) -> Result<()> {
    let missing: Vec<Tool> = tools.iter().copied().filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        let wish = tool.at_least.map(|v| format!(", version {v} or later")).unwrap_or_default();
        say(&format!("{} is missing{wish} (Debian package {})", tool.program, tool.package));
    }
    let apt = Apt::find()?;
    let (backported, plain): (Vec<Tool>, Vec<Tool>) = missing.iter().partition(|tool| apt.needs_backports(tool));
    if !plain.is_empty() {
        apt.install(&plain, None)?;
    }
    if !backported.is_empty() {
        apt.install_from_backports(&backported)?;
    }
    match tools.iter().find(|tool| !tool.is_there()) {
        Some(tool) => bail!("{} is still not usable after installing {}", tool.program, tool.package),
        None => Ok(()),
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // mkfs and friends are not on an ordinary user's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// The first number followed by a dot: `QEMU emulator version 10.0.2 (Debian ...)` is 10.
fn major_version(text: &str) -> Option<u32> {
    text.split_ascii_whitespace()
        .find_map(|word| word.split_once('.')?.0.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok())
}

struct Apt {
    codename: String,
    is_root: bool,
}

impl Apt {
    fn find() -> Result<Apt> {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field =
            |name: &str| release.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_matches('"').to_owned()));
        if field("ID=").as_deref() != Some("debian") || on_path("apt-get").is_none() {
            bail!(
                "only Debian's packages are known by name here; install the tools above with this system's package manager"
            );
        }
        let codename = field("VERSION_CODENAME=").context("/etc/os-release names no VERSION_CODENAME")?;
        let uid = run(Command::new("id").arg("-u"))?;
        Ok(Apt { codename, is_root: uid.trim_ascii() == b"0" })
    }

    /// True when the version that apt would install is too old.
    fn needs_backports(&self, tool: &Tool) -> bool {
        let Some(least) = tool.at_least else { return false };
        let policy = run(Command::new("apt-cache").args(["policy", tool.package])).unwrap_or_default();
        let policy = String::from_utf8_lossy(&policy);
        let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        candidate.and_then(package_major).is_none_or(|major| major < least)
    }

    fn install(&self, tools: &[Tool], suite: Option<&str>) -> Result<()> {
        let mut words: Vec<&str> = vec!["install", "-y", "--no-install-recommends"];
        if let Some(suite) = suite {
            words.extend(["-t", suite]);
        }
        words.extend(tools.iter().map(|tool| tool.package));
        if !self.is_root {
            bail!("not root; run this, then try again:\n  sudo apt-get update && sudo apt-get {}", words.join(" "));
        }
        say(&format!("apt-get {}", words.join(" ")));
        apt_get(&["update"])?;
        apt_get(&words)
    }

    fn install_from_backports(&self, tools: &[Tool]) -> Result<()> {
        let suite = format!("{}-backports", self.codename);
        let sources = read_sources(Path::new("/etc/apt"));
        if !sources.iter().any(|source| source.suites.contains(&suite)) {
            let list = Path::new("/etc/apt/sources.list.d/corten-backports.sources");
            let main = sources.iter().find(|source| source.suites.contains(&self.codename));
            let main =
                main.with_context(|| format!("no apt source has {}, so its backports cannot be found", self.codename))?;
            let text = main.with_suite(&suite);
            if !self.is_root {
                bail!(
                    "not root; write this into {}:\n{text}then run: sudo apt-get update && sudo apt-get install -t {suite} {}",
                    list.display(),
                    tools.iter().map(|t| t.package).collect::<Vec<_>>().join(" ")
                );
            }
            say(&format!("adding {suite} of {} in {}", main.uri, list.display()));
            std::fs::write(list, text).with_context(|| format!("write {}", list.display()))?;
        }
        self.install(tools, Some(&suite))
    }
}

fn apt_get(words: &[&str]) -> Result<()> {
    run(Command::new("apt-get").args(["-q"]).args(words).env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

/// `1:10.0.2+ds-2` is 10: an epoch stands before a colon.
fn package_major(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// One place apt fetches from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AptSource {
    uri: String,
    suites: Vec<String>,
    signed_by: Option<String>,
}

impl AptSource {
    fn with_suite(&self, suite: &str) -> String {
        let signed = self.signed_by.as_ref().map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
        format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{signed}", self.uri)
    }
}

fn read_sources(folder: &Path) -> Vec<AptSource> {
    let mut files = vec![folder.join("sources.list")];
    files.extend(
        std::fs::read_dir(folder.join("sources.list.d")).into_iter().flatten().flatten().map(|entry| entry.path()),
    );
    files.sort();
    let parse = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if path.extension().is_some_and(|e| e == "sources") { parse_deb822(&text) } else { parse_list(&text) }
    };
    files.iter().flat_map(parse).collect()
}

/// `deb [signed-by=KEY arch=amd64] URI SUITE COMPONENT...`, one a line.
fn parse_list(text: &str) -> Vec<AptSource> {
    let parse = |line: &str| {
        let mut rest = line.trim().strip_prefix("deb ")?.trim_start();
        let mut signed_by = None;
        if let Some(options) = rest.strip_prefix('[') {
            let (options, after) = options.split_once(']')?;
            signed_by = options.split_ascii_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_owned);
            rest = after;
        }
        let mut words = rest.split_ascii_whitespace();
        Some(AptSource { uri: words.next()?.to_owned(), suites: vec![words.next()?.to_owned()], signed_by })
    };
    text.lines().filter_map(parse).collect()
}

/// Stanzas of `Field: value`, separated by empty lines.
fn parse_deb822(text: &str) -> Vec<AptSource> {
    let parse = |stanza: &str| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|v| v.trim().to_owned()))
        };
        let disabled = field("Enabled").is_some_and(|value| value == "no");
        if disabled || !field("Types")?.split_ascii_whitespace().any(|kind| kind == "deb") {
            return None;
        }
        Some(AptSource {
            uri: field("URIs")?.split_ascii_whitespace().next()?.to_owned(),
            suites: field("Suites")?.split_ascii_whitespace().map(str::to_owned).collect(),
            signed_by: field("Signed-By").filter(|key| key.starts_with('/')),
        })
    };
    text.split("\n\n").filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(major_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some(10));
        assert_eq!(major_version("no number"), None);
        for (version, major) in [("1:10.0.2+ds-2+deb13u1~bpo12+1", Some(10)), ("7.2+dfsg", Some(7)), ("(none)", None)] {
            assert_eq!(package_major(version), major, "{version}");
        }
    }

    #[test]
    fn both_source_formats() {
        let list = "# comment\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror/debian bookworm main\ndeb-src http://mirror/debian bookworm main\n";
        let want = AptSource {
            uri: "http://mirror/debian".into(),
            suites: vec!["bookworm".into()],
            signed_by: Some("/k.gpg".into()),
        };
        assert_eq!(parse_list(list), std::slice::from_ref(&want));
        let deb822 = "Types: deb\n# note\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\nTypes: deb-src\nURIs: x\nSuites: y\n\nTypes: deb\nEnabled: no\nURIs: z\nSuites: q\n";
        let got = parse_deb822(deb822);
        assert_eq!(got, [AptSource { suites: vec!["bookworm".into(), "bookworm-updates".into()], ..want.clone() }]);
        assert_eq!(
            got[0].with_suite("bookworm-backports"),
            "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n"
        );
    }
}
