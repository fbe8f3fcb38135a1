//! `/logs/`: the machine's own logs. Either a file below /var/log by its path, or with `query` the log of a service of this
//! machine (KEP-2258).

use std::path::{Component, Path, PathBuf};

use axum::extract::RawQuery;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::Refusal;
use super::query::pairs;

const FOLDER: &str = "/var/log";
const SERVICES: &str = "/var/log/services";
const TAIL_LIMIT: usize = 100_000;

/// What is wanted of a service's log.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    services: Vec<String>,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    tail: Option<usize>,
    pattern: Option<String>,
}

impl Wanted {
    fn parse(query: &str) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        let time = |key: &str, value: &str| {
            value.parse().map(Some).map_err(|_| format!("{key}: {value:?} is not a time of RFC 3339"))
        };
        for (key, value) in pairs(query) {
            match key {
                "query" if is_name(&value) => wanted.services.push(value),
                "query" => return Err(format!("query: {value:?} is not the name of a service")),
                "sinceTime" => wanted.since = time(key, &value)?,
                "untilTime" => wanted.until = time(key, &value)?,
                "tailLines" => {
                    let count = value.parse().ok().filter(|n| *n <= TAIL_LIMIT);
                    wanted.tail =
                        Some(count.ok_or(format!("tailLines: {value:?} is not a number from 0 to {TAIL_LIMIT}"))?);
                }
                "pattern" => wanted.pattern = Some(value),
                "boot" if matches!(value.as_str(), "" | "0") => {}
                "boot" => return Err("boot: only logs of the current boot, 0, can be told apart".into()),
                other => return Err(format!("{other}: unknown option")),
            }
        }
        if wanted.since.zip(wanted.until).is_some_and(|(since, until)| since > until) {
            return Err("sinceTime must not be after untilTime".into());
        }
        Ok(wanted)
    }

    /// The lines that are wanted. A line without a time belongs to the one before it.
    fn select<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut within = self.since.is_none();
        let mut lines: Vec<&str> = Vec::new();
        for line in text.lines() {
            if let Some(time) = line.split_whitespace().next().and_then(|t| t.parse::<jiff::Timestamp>().ok()) {
                within = self.since.is_none_or(|s| time >= s) && self.until.is_none_or(|u| time <= u);
            }
            if within && self.pattern.as_ref().is_none_or(|p| line.contains(p.as_str())) {
                lines.push(line);
            }
        }
        let surplus = self.tail.map_or(0, |n| lines.len().saturating_sub(n));
        lines.split_off(surplus)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Answers a request.
///
/// # Errors
/// Options that make no sense, or a log that is not there.
pub async fn serve(uri: Uri, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let path = uri.path().trim_start_matches("/logs").trim_matches('/');
    if !path.is_empty() {
        return file(path).await;
    }
    let wanted = Wanted::parse(&query).map_err(Refusal::bad_request)?;
    if wanted.services.is_empty() {
        return listing(Path::new(FOLDER));
    }
    let mut out = String::new();
    for service in &wanted.services {
        let base = Path::new(SERVICES).join(format!("{service}.log"));
        let newest = tokio::fs::read(&base).await;
        let newest = newest.map_err(|_| Refusal::not_found(format!("no log of a service {service:?} on this node")))?;
        // What was written before the file was last rotated comes first.
        let mut text = tokio::fs::read(base.with_extension("log.1")).await.unwrap_or_default();
        text.extend(newest);
        for line in wanted.select(&String::from_utf8_lossy(&text)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(plain(out))
}

fn plain(text: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn file(path: &str) -> Result<Response, Refusal> {
    let missing = || Refusal::not_found("404 page not found");
    let relative = PathBuf::from(path);
    if !relative.components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(missing());
    }
    // A link below the folder must not lead out of it.
    let full = tokio::fs::canonicalize(Path::new(FOLDER).join(relative)).await.map_err(|_| missing())?;
    if !full.starts_with(FOLDER) {
        return Err(missing());
    }
    if full.is_dir() {
        return listing(&full);
    }
    tokio::fs::read(&full).await.map(plain).map_err(|_| missing())
}

fn listing(folder: &Path) -> Result<Response, Refusal> {
    let entries = std::fs::read_dir(folder).map_err(|_| Refusal::not_found("404 page not found"))?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|e| {
            let slash = if e.path().is_dir() { "/" } else { "" };
            format!("{}{slash}", e.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let escape = |n: &String| n.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let lines: String = names.iter().map(escape).map(|n| format!("<a href=\"{n}\">{n}</a>\n")).collect();
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], format!("<pre>\n{lines}</pre>\n")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str =
        "2026-01-01T00:00:00Z INFO a\n2026-01-01T00:00:01Z WARN b\n  more of b\n2026-01-01T00:00:02Z INFO c\n";

    fn select(query: &str) -> Vec<&'static str> {
        Wanted::parse(query).unwrap().select(LOG)
    }

    #[test]
    fn lines_are_chosen_by_time_pattern_and_number() {
        assert_eq!(select("query=x").len(), 4);
        let later = select("query=x&sinceTime=2026-01-01T00:00:01Z");
        assert_eq!(later.len(), 3);
        assert_eq!(select("query=x&sinceTime=2026-01-01T00:00:01Z&untilTime=2026-01-01T00:00:01Z"), later[..2]);
        assert_eq!(select("query=x&pattern=WARN"), ["2026-01-01T00:00:01Z WARN b"]);
        assert_eq!(select("query=x&tailLines=1"), ["2026-01-01T00:00:02Z INFO c"]);
        assert!(select("query=x&tailLines=0").is_empty());
    }

    #[test]
    fn wrong_options_are_named() {
        for (query, name) in [
            ("query=../x", "query"),
            ("query=", "query"),
            ("sinceTime=yesterday", "sinceTime"),
            ("tailLines=-1", "tailLines"),
            ("tailLines=100001", "tailLines"),
            ("boot=-1", "boot"),
            ("follow=1", "follow"),
            ("sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00Z", "sinceTime"),
        ] {
            let error = Wanted::parse(query).unwrap_err();
            assert!(error.starts_with(name), "{query}: {error}");
        }
    }

    #[tokio::test]
    async fn nothing_outside_the_folder_is_read() {
        for path in ["../../etc/passwd", "a/../../../etc/passwd", "no such file"] {
            assert_eq!(file(path).await.unwrap_err().0, axum::http::StatusCode::NOT_FOUND, "{path}");
        }
    }
}
