//! Links in what a backend answers, changed so that they lead through this server again. Pure.

/// Which element's attributes hold links (HTML, and what went before it).
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text and no markup.
const RAW: &[&str] = &["script", "style", "textarea", "title", "xmp"];
/// A tag longer than this is passed on as it is.
const TAG_LIMIT: usize = 64 * 1024;

/// Where a backend's answers are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The path in front of the backend's own, without a slash at its end.
    pub prefix: String,
    /// Hosts that mean the backend: its own address, and this server's.
    pub hosts: Vec<String>,
}

impl Mount {
    /// A link as clients must see it. Relative links and those to other hosts stay as they are.
    pub fn link(&self, link: &str) -> String {
        let (host, path) = split_host(link);
        let elsewhere = host.is_some_and(|h| !self.hosts.iter().any(|own| own == h));
        if elsewhere || !path.starts_with('/') {
            return link.to_owned();
        }
        if path.starts_with(&self.prefix) { path.to_owned() } else { format!("{}{path}", self.prefix) }
    }
}

/// `http://host/path` and `//host/path` apart; the path keeps its query and fragment.
fn split_host(link: &str) -> (Option<&str>, &str) {
    let rest = ["http://", "https://", "//"].iter().find_map(|p| link.strip_prefix(p));
    match rest {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        None => (None, link),
    }
}

/// Where in a document the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Text,
    Comment,
    Raw(&'static str),
}

/// Rewrites a document as it comes.
#[derive(Debug)]
pub struct Rewriter {
    mount: Mount,
    inside: Inside,
    held: Vec<u8>,
}

impl Rewriter {
    /// Begins a document.
    pub fn new(mount: Mount) -> Self {
        Self { mount, inside: Inside::Text, held: Vec::new() }
    }

    /// Takes a piece and returns what is settled.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::with_capacity(held.len());
        let mut rest = held.as_slice();
        while let Some(used) = self.step(rest, &mut out) {
            rest = &rest[used..];
        }
        self.held = rest.to_vec();
        out
    }

    /// What was held back when the document has ended.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Settles a part of `rest` and returns its length; `None` until more has come.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let used = match self.inside {
            _ if rest.is_empty() => return None,
            Inside::Text if rest[0] == b'<' => return self.markup(rest, out),
            Inside::Text => rest.iter().position(|b| *b == b'<').unwrap_or(rest.len()),
            Inside::Comment => self.until(rest, b"-->")?,
            Inside::Raw(name) => self.until(rest, format!("</{name}").as_bytes())?,
        };
        out.extend_from_slice(&rest[..used]);
        Some(used)
    }

    /// The length up to and with `end`, or of what cannot be part of it.
    fn until(&mut self, rest: &[u8], end: &[u8]) -> Option<usize> {
        match rest.windows(end.len()).position(|w| w.eq_ignore_ascii_case(end)) {
            Some(at) => {
                self.inside = Inside::Text;
                Some(at + end.len())
            }
            None => Some(rest.len().saturating_sub(end.len() - 1)).filter(|n| *n > 0),
        }
    }

    fn markup(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let used = if b"<!--".starts_with(&rest[..rest.len().min(4)]) {
            if rest.len() < 4 {
                return None;
            }
            self.inside = Inside::Comment;
            4
        } else if !rest.get(1)?.is_ascii_alphabetic() {
            1
        } else if let Some(length) = tag_length(rest) {
            let (tag, name) = self.tag(&rest[..length]);
            out.extend_from_slice(&tag);
            if let Some(raw) = RAW.iter().find(|r| **r == name) {
                self.inside = Inside::Raw(raw);
            }
            return Some(length);
        } else if rest.len() > TAG_LIMIT {
            1
        } else {
            return None;
        };
        out.extend_from_slice(&rest[..used]);
        Some(used)
    }

    /// A tag with its links changed, and its name.
    fn tag(&self, tag: &[u8]) -> (Vec<u8>, String) {
        let name_end =
            tag.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>')).unwrap_or(tag.len());
        let name = String::from_utf8_lossy(&tag[1..name_end]).to_ascii_lowercase();
        let Some((_, links)) = LINKS.iter().find(|(element, _)| *element == name) else { return (tag.to_vec(), name) };
        let mut out = tag[..name_end].to_vec();
        let mut at = name_end;
        while let Some(attribute) = Attribute::after(tag, at) {
            out.extend_from_slice(&tag[at..attribute.value.start]);
            let value = &tag[attribute.value.clone()];
            match std::str::from_utf8(value) {
                Ok(text) if links.iter().any(|l| *l == attribute.name) => {
                    out.extend_from_slice(self.mount.link(text).as_bytes());
                }
                _ => out.extend_from_slice(value),
            }
            at = attribute.value.end;
        }
        out.extend_from_slice(&tag[at..]);
        (out, name)
    }
}

/// The length of the tag that `text` begins with; quoted values may contain `>`.
fn tag_length(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') if text[at - 1] == b'=' || text[at - 1].is_ascii_whitespace() => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

/// An attribute that has a value.
struct Attribute {
    name: String,
    value: std::ops::Range<usize>,
}

impl Attribute {
    /// The next one from `at` on.
    fn after(tag: &[u8], mut at: usize) -> Option<Attribute> {
        loop {
            at += tag[at..].iter().position(|b| !b.is_ascii_whitespace() && !matches!(b, b'/' | b'"' | b'\''))?;
            let start = at;
            at += tag[at..].iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'=' | b'>' | b'/'))?;
            let name = String::from_utf8_lossy(&tag[start..at]).to_ascii_lowercase();
            at += tag[at..].iter().position(|b| !b.is_ascii_whitespace())?;
            match tag[at] {
                b'>' => return None,
                b'=' => {}
                _ => continue,
            }
            at += 1;
            at += tag[at..].iter().position(|b| !b.is_ascii_whitespace())?;
            let value = match tag[at] {
                quote @ (b'"' | b'\'') => at + 1..at + 1 + tag[at + 1..].iter().position(|b| *b == quote)?,
                _ => at..at + tag[at..].iter().position(|b| b.is_ascii_whitespace() || *b == b'>')?,
            };
            return Some(Attribute { name, value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount() -> Mount {
        Mount { prefix: "/p/proxy".into(), hosts: vec!["10.0.0.1:80".into(), "api:6443".into()] }
    }

    #[test]
    fn links() {
        let table = [
            ("/a", "/p/proxy/a"),
            ("/", "/p/proxy/"),
            ("/a/?x=/y#z", "/p/proxy/a/?x=/y#z"),
            ("/p/proxy/a", "/p/proxy/a"),
            ("a/b", "a/b"),
            ("?x", "?x"),
            ("#top", "#top"),
            ("http://10.0.0.1:80/a", "/p/proxy/a"),
            ("https://api:6443/a", "/p/proxy/a"),
            ("//api:6443/a", "/p/proxy/a"),
            ("http://example.com/a", "http://example.com/a"),
            ("//example.com/a", "//example.com/a"),
            ("http://10.0.0.1:80", "http://10.0.0.1:80"),
            ("mailto:a@b", "mailto:a@b"),
        ];
        for (link, want) in table {
            assert_eq!(mount().link(link), want, "{link}");
        }
    }

    fn rewrite(document: &str, step: usize) -> String {
        let mut rewriter = Rewriter::new(mount());
        let mut out = Vec::new();
        for piece in document.as_bytes().chunks(step) {
            out.extend(rewriter.push(piece));
        }
        out.extend(rewriter.finish());
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn documents() {
        let table = [
            (r#"<a href="/x">/x</a>"#, r#"<a href="/p/proxy/x">/x</a>"#),
            ("<A class=c HREF='/x' id=i>", "<A class=c HREF='/p/proxy/x' id=i>"),
            (
                "<img src=/x alt=\"a > b\" usemap = \"/m\">",
                "<img src=/p/proxy/x alt=\"a > b\" usemap = \"/p/proxy/m\">",
            ),
            ("<input disabled src=\"/x\"/>", "<input disabled src=\"/p/proxy/x\"/>"),
            ("<p title=\"/x\">", "<p title=\"/x\">"),
            ("<!-- <a href=\"/x\"> --><a href=\"/y\">", "<!-- <a href=\"/x\"> --><a href=\"/p/proxy/y\">"),
            (
                "<script src=\"/s\">'<a href=\"/x\">'</SCRIPT><a href=\"/y\">",
                "<script src=\"/p/proxy/s\">'<a href=\"/x\">'</SCRIPT><a href=\"/p/proxy/y\">",
            ),
            ("1 < 2 <3 <", "1 < 2 <3 <"),
            ("<a href=\"/x", "<a href=\"/x"),
            ("<!DOCTYPE html><html><body>é</body></html>", "<!DOCTYPE html><html><body>é</body></html>"),
        ];
        for (document, want) in table {
            for step in [1, 2, 3, 7, document.len()] {
                assert_eq!(rewrite(document, step), want, "{document} by {step}");
            }
        }
    }

    #[test]
    fn a_tag_without_end_is_not_kept_for_ever() {
        let document = format!("<a href=\"/x\" {}", "x".repeat(2 * TAG_LIMIT));
        let mut rewriter = Rewriter::new(mount());
        let out = rewriter.push(document.as_bytes());
        assert!(out.len() >= TAG_LIMIT && rewriter.held.len() <= TAG_LIMIT);
    }
}
