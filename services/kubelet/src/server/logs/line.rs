//! One line of a container log as the CRI defines it: time, stream, tag, content. Pure.

/// A parsed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// Standard error instead of standard output.
    pub is_stderr: bool,
    /// The container's line goes on in the next one.
    pub partial: bool,
    /// What the container wrote.
    pub content: &'a [u8],
}

/// Parses a line without its newline; nothing if it is not of the format.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = parts.next()?;
    let tag = parts.next()?;
    let is_stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    // Tags are separated by colons; the first says whether the line is complete.
    let partial = tag.split(|b| *b == b':').next() == Some(b"P");
    Some(Line { time, is_stderr, partial, content: parts.next().unwrap_or_default() })
}

/// What a reader wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Nothing before this.
    pub since: Option<jiff::Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only this stream: standard error if true.
    pub stream: Option<bool>,
}

/// Turns lines of the file into what the reader gets. Knows whether the line before was partial.
#[derive(Clone, Debug, Default)]
pub struct Formatter {
    filter: Filter,
    within: bool,
}

impl Formatter {
    /// Starts at the beginning of a line.
    pub fn new(filter: Filter) -> Self {
        Formatter { filter, within: false }
    }

    /// Appends what the reader gets of one line of the file.
    pub fn line(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(raw) else { return };
        if self.filter.stream.is_some_and(|wanted| wanted != line.is_stderr) {
            return;
        }
        if let Some(since) = self.filter.since
            && line.time.parse::<jiff::Timestamp>().is_ok_and(|t| t < since)
        {
            return;
        }
        if self.filter.timestamps && !self.within {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
        self.within = line.partial;
    }
}

/// Where the last `count` lines of `data` start.
pub fn tail_start(data: &[u8], count: usize) -> usize {
    if count == 0 {
        return data.len();
    }
    // A newline at the very end ends the last line; it does not begin another.
    let end = data.strip_suffix(b"\n").unwrap_or(data).len();
    let newlines = data[..end].iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    newlines.map(|(at, _)| at + 1).nth(count - 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "2026-01-01T00:00:00.5Z";

    #[test]
    fn lines_are_parsed() {
        let line = parse(b"2026-01-01T00:00:00.5Z stderr P a  b").unwrap();
        assert_eq!(line, Line { time: T, is_stderr: true, partial: true, content: b"a  b" });
        assert_eq!(parse(b"2026-01-01T00:00:00.5Z stdout F").unwrap().content, b"");
        for bad in [&b""[..], b"nonsense", b"t stdin F x"] {
            assert_eq!(parse(bad), None);
        }
    }

    fn format(filter: Filter, lines: &[&str]) -> String {
        let mut formatter = Formatter::new(filter);
        let mut out = Vec::new();
        lines.iter().for_each(|l| formatter.line(l.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn partial_lines_are_joined_and_stamped_once() {
        let lines = [format!("{T} stdout P ab"), format!("{T} stdout F cd"), format!("{T} stderr F e")];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(format(Filter::default(), &lines), "abcd\ne\n");
        let stamped = Filter { timestamps: true, ..Filter::default() };
        assert_eq!(format(stamped, &lines), format!("{T} abcd\n{T} e\n"));
        let only = Filter { stream: Some(true), ..Filter::default() };
        assert_eq!(format(only, &lines), "e\n");
    }

    #[test]
    fn older_lines_are_left_out() {
        let filter = Filter { since: Some("2026-01-01T00:00:01Z".parse().unwrap()), ..Filter::default() };
        let lines = ["2026-01-01T00:00:00.9Z stdout F old", "2026-01-01T00:00:01.1Z stdout F new"];
        assert_eq!(format(filter, &lines), "new\n");
    }

    #[test]
    fn tails_count_lines() {
        let data = b"1\n2\n3\n";
        for (count, start) in [(0, 6), (1, 4), (2, 2), (3, 0), (9, 0)] {
            assert_eq!(tail_start(data, count), start, "{count}");
        }
        assert_eq!(tail_start(b"1\n2", 1), 2);
    }
}
