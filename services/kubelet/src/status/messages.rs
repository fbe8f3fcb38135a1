//! Termination messages: the end of what a container left in its file, or of its log.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::observed::Instance;
use crate::server::logs::line;

const FILE_LIMIT: u64 = 4096;
const LOG_LIMIT: usize = 2048;
const LOG_LINES: usize = 80;
/// Enough of a log for that many lines.
const LOG_PART: u64 = 64 * 1024;

/// The message of an ended container, after what the runtime says of its end; empty if there is neither.
pub fn read(instance: &Instance) -> String {
    let file = instance.message_file.as_deref().and_then(|p| end(Path::new(p), FILE_LIMIT));
    let mut text = file.map(|data| String::from_utf8_lossy(&data).into_owned()).unwrap_or_default();
    if text.is_empty() && instance.message_from_logs && instance.exit_code != 0 {
        text = log_end(Path::new(&instance.log_path)).unwrap_or_default();
    }
    match (instance.message.as_str(), text) {
        ("", text) => text,
        (runtime, text) if text.is_empty() => runtime.to_owned(),
        (runtime, text) => format!("{runtime}: {text}"),
    }
}

/// The last bytes of a file.
fn end(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit))).ok()?;
    let mut data = Vec::new();
    file.take(limit).read_to_end(&mut data).ok()?;
    Some(data)
}

/// The last lines of a log, without their prefixes.
fn log_end(path: &Path) -> Option<String> {
    let data = end(path, LOG_PART)?;
    let mut lines: Vec<String> = data
        .split(|b| *b == b'\n')
        .filter_map(line::parse)
        .map(|l| String::from_utf8_lossy(l.content).into_owned())
        .collect();
    lines.drain(..lines.len().saturating_sub(LOG_LINES));
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    let excess = text.len().saturating_sub(LOG_LIMIT);
    let start = (excess..text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
    Some(text.split_off(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri_api::v1;

    #[test]
    fn a_message_is_the_end_of_the_file_or_of_the_log_after_the_runtimes_words() {
        let base = std::env::temp_dir().join(format!("kubelet-messages-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(base.join(name), text).unwrap();
            base.join(name).to_string_lossy().into_owned()
        };
        let long = file("long", &format!("{}end", "x".repeat(5000)));
        let (short, empty) = (file("short", "done"), file("empty", ""));
        let log = file("log", "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n");
        let of = |message: &str, file: &str, from_logs: bool, exit_code: i32| {
            let mut instance = Instance::from_cri(v1::ContainerStatus::default(), String::new());
            (instance.message, instance.message_file) = (message.into(), Some(file.into()));
            (instance.message_from_logs, instance.exit_code, instance.log_path) = (from_logs, exit_code, log.clone());
            read(&instance)
        };
        let cut = of("", &long, false, 0);
        assert_eq!((cut.len(), &cut[4090..]), (4096, "xxxend"));
        let table = [
            (("", short.as_str(), false, 0), "done"),
            (("oci error", short.as_str(), true, 1), "oci error: done"),
            (("oci error", empty.as_str(), false, 1), "oci error"),
            (("", empty.as_str(), true, 1), "one\ntwo\n"),
            (("", empty.as_str(), true, 0), ""),
            (("", empty.as_str(), false, 1), ""),
        ];
        for ((message, file, from_logs, code), expected) in table {
            assert_eq!(of(message, file, from_logs, code), expected, "{message:?} {file} {from_logs} {code}");
        }
        std::fs::remove_dir_all(base).unwrap();
    }
}
