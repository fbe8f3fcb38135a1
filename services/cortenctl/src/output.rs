//! What people read: one-line errors and tables.

use std::io::Write as _;

/// An error and its causes on one line. Causes that only repeat what was said are left out.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = match cause.downcast_ref::<tonic::Status>() {
            Some(status) => status_text(status),
            None => cause.to_string(),
        };
        if part == "transport error" || text.contains(&part) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    if is_refused_certificate(&text) {
        return format!("the machine does not accept this client certificate (of another cluster, or expired): {text}");
    }
    if text.contains("invalid peer certificate: UnknownIssuer")
        || text.contains("invalid peer certificate: BadSignature")
    {
        return format!(
            "the machine's certificate is not of this cluster (another machine, or one in maintenance mode): {text}"
        );
    }
    text
}

/// TLS alerts by which a server turns down a client's certificate.
fn is_refused_certificate(text: &str) -> bool {
    ["UnknownCA", "DecryptError", "BadCertificate", "CertificateExpired", "CertificateUnknown"]
        .iter()
        .any(|alert| text.contains(&format!("alert: {alert}")))
}

/// A machine's message is a sentence already; a broken connection shows in the status's causes.
fn status_text(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let part = cause.to_string();
        if part != "transport error" && !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = cause.source();
    }
    if text.is_empty() { status.code().to_string() } else { text }
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Output {
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// Columns for people
    #[default]
    Table,
    /// A list of objects for programs
    Json,
}

/// Prints rows in the chosen form.
pub(crate) fn print(output: Output, heading: &[&str], rows: &[Vec<String>]) {
    match output.format {
        Format::Table => table(heading, rows),
        Format::Json => println!("{}", objects(heading, rows)),
    }
}

/// Each row as an object: `RSS BYTES` becomes the field `rssBytes`, whole numbers become numbers.
fn objects(heading: &[&str], rows: &[Vec<String>]) -> serde_json::Value {
    let field = |name: &str| -> String {
        let words = name.to_lowercase();
        let mut words = words.split(' ');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |all, word| all + &word[..1].to_uppercase() + &word[1..])
    };
    let value = |cell: &str| cell.parse::<u64>().map_or_else(|_| cell.into(), serde_json::Value::from);
    let object = |row: &Vec<String>| {
        let fields = heading.iter().zip(row).map(|(name, cell)| (field(name), value(cell)));
        serde_json::Value::Object(fields.collect())
    };
    rows.iter().map(object).collect()
}

/// Prints rows under headings, each column as wide as its widest cell.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) {
    // A closed pipe is the reader's wish.
    let _ = std::io::stdout().write_all(render(heading, rows).as_bytes());
}

fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading: Vec<String> = heading.iter().map(|h| (*h).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// Copies a stream of bytes to standard output until it ends or nobody reads any more.
pub(crate) async fn copy(mut stream: tonic::Streaming<machine_api::v1::Data>) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    while let Some(data) = stream.message().await? {
        if out.write_all(&data.bytes).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = [vec!["store".to_owned(), "Running".to_owned()], vec!["kube-apiserver".to_owned(), String::new()]];
        assert_eq!(
            render(&["NAME", "STATE"], &rows),
            "NAME             STATE\nstore            Running\nkube-apiserver\n"
        );
    }

    #[test]
    fn objects_have_fields_and_numbers() {
        let rows = [vec!["store".to_owned(), "4096".to_owned()]];
        assert_eq!(objects(&["NAME", "RSS BYTES"], &rows), serde_json::json!([{"name": "store", "rssBytes": 4096}]));
    }

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("connection refused").context("transport error").context("cannot connect to h");
        assert_eq!(one_line(&error), "cannot connect to h: connection refused");
    }
}
