//! Termination messages: what a container left in its file, or the end of its log.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::observed::Instance;
use crate::server::logs::line;

const FILE_LIMIT: u64 = 4096;
const LOG_LIMIT: usize = 2048;
const LOG_LINES: usize = 80;

/// The message of an ended container; empty if it left none.
pub fn read(instance: &Instance) -> String {
    let mut text = instance.message_file.as_deref().and_then(|p| head(Path::new(p))).unwrap_or_default();
    if text.is_empty() && instance.message_from_logs && instance.exit_code != 0 {
        text = log_end(Path::new(&instance.log_path)).unwrap_or_default();
    }
    if text.is_empty() { instance.message.clone() } else { text }
}

fn head(path: &Path) -> Option<String> {
    let mut data = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_LIMIT).read_to_end(&mut data).ok()?;
    Some(String::from_utf8_lossy(&data).into_owned())
}

/// The last lines of a log, without their prefixes.
fn log_end(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024))).ok()?;
    let mut data = Vec::new();
    file.read_to_end(&mut data).ok()?;
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
