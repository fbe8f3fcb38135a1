//! The kernel's arguments, as far as PID 1 reads them.

/// Where this init runs and what it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// Inside namespaces of a host instead of on a machine: no modules, no disks, no power.
    pub in_namespace: bool,
    /// `corten.console=all`: every line of every service on the console, for whoever looks for a fault.
    pub echo_all: bool,
    /// `corten.log=`: the log filter handed to our own services (RUST_LOG).
    pub log: Option<String>,
}

impl Cmdline {
    /// Reads /proc/cmdline, or in a namespace what the driver put into the environment.
    pub fn read() -> Cmdline {
        let in_namespace = std::env::var("CORTEN_DRIVER").is_ok_and(|driver| driver == "namespace");
        let text = if in_namespace {
            std::env::var("CORTEN_CMDLINE").ok()
        } else {
            std::fs::read_to_string("/proc/cmdline").ok()
        };
        Cmdline { in_namespace, ..parse(&text.unwrap_or_default()) }
    }
}

fn parse(text: &str) -> Cmdline {
    let mut cmdline = Cmdline::default();
    for word in text.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("corten.console", "all")) => cmdline.echo_all = true,
            Some(("corten.log", filter)) if !filter.is_empty() => cmdline.log = Some(filter.to_owned()),
            _ => {}
        }
    }
    cmdline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_read_and_others_ignored() {
        let got = parse("console=ttyS0 corten.log=debug,h2=info corten.console=all corten.config=/x quiet\n");
        assert_eq!(got, Cmdline { in_namespace: false, echo_all: true, log: Some("debug,h2=info".into()) });
        assert_eq!(parse("corten.console=none corten.log="), Cmdline::default());
    }
}
