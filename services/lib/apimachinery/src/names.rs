//! The rules for names, label keys and label values, with the messages upstream gives.
//!
//! Every check returns the list of what is wrong, empty when nothing is.

/// The longest DNS label.
pub const DNS_LABEL_MAX: usize = 63;
/// The longest DNS subdomain.
pub const DNS_SUBDOMAIN_MAX: usize = 253;

const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const LABEL_1123_RE: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const SUBDOMAIN_1123_RE: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const LABEL_1035_RE: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const QUALIFIED_RE: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_RE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const CONFIG_KEY_RE: &str = "[-._a-zA-Z0-9]+";
const ENV_VAR: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn max_length(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

fn regex_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    // The doubled space before "or" is upstream's, and clients compare the text.
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label_1123(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if lower_alnum(*a) && lower_alnum(*z))
        && bytes.iter().all(|b| lower_alnum(*b) || *b == b'-')
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A DNS-1123 label: most names that become part of a host name.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > DNS_LABEL_MAX {
        errors.push(max_length(DNS_LABEL_MAX));
    }
    if !is_label_1123(text) {
        errors.push(regex_error(LABEL_1123, LABEL_1123_RE, &["my-name", "123-abc"]));
    }
    errors
}

/// A DNS-1123 subdomain: the rule for most object names.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > DNS_SUBDOMAIN_MAX {
        errors.push(max_length(DNS_SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_label_1123) {
        errors.push(regex_error(SUBDOMAIN_1123, SUBDOMAIN_1123_RE, &["example.com"]));
    }
    errors
}

/// A DNS-1035 label: the rule for Service names.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > DNS_LABEL_MAX {
        errors.push(max_length(DNS_LABEL_MAX));
    }
    if !is_label_1123(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        errors.push(regex_error(LABEL_1035, LABEL_1035_RE, &["my-name", "abc-123"]));
    }
    errors
}

/// Checks a generateName prefix with the rule of the whole name: what the suffix hides (a trailing dash) is allowed.
pub fn prefix(check: fn(&str) -> Vec<String>, text: &str) -> Vec<String> {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => check(&format!("{rest}-a")),
        _ => check(text),
    }
}

/// The rule for RBAC and other names that are only a path segment.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// A label or annotation key, resource name, or finalizer: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_string());
            } else {
                errors.extend(dns1123_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            *name
        }
        _ => {
            let rule = regex_error(QUALIFIED, QUALIFIED_RE, &["MyName", "my.name", "123-abc"]);
            return vec![format!(
                "a qualified name {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_string());
    } else if name.len() > DNS_LABEL_MAX {
        errors.push(format!("name part {}", max_length(DNS_LABEL_MAX)));
    }
    if !is_qualified(name) {
        errors.push(format!("name part {}", regex_error(QUALIFIED, QUALIFIED_RE, &["MyName", "my.name", "123-abc"])));
    }
    errors
}

/// A label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > DNS_LABEL_MAX {
        errors.push(max_length(DNS_LABEL_MAX));
    }
    if !text.is_empty() && !is_qualified(text) {
        errors.push(regex_error(LABEL_VALUE, LABEL_VALUE_RE, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > DNS_SUBDOMAIN_MAX {
        errors.push(max_length(DNS_SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        errors.push(regex_error(CONFIG_KEY, CONFIG_KEY_RE, &["key.name", "KEY_NAME", "key-name"]));
    }
    if text == "." {
        errors.push("must not be '.'".to_string());
    } else if text.starts_with("..") {
        errors.push(if text == ".." { "must not be '..'".to_string() } else { "must not start with '..'".to_string() });
    }
    errors
}

/// The name of an environment variable.
pub fn env_var_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_string()];
    }
    if text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') { Vec::new() } else { vec![ENV_VAR.to_string()] }
}

/// The name of a container or service port: at most 15 of `[a-z0-9-]`, with a letter, no double dash, no dash at an end.
pub fn port_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 15 {
        errors.push(max_length(15));
    }
    if text.is_empty() || !text.bytes().all(|b| lower_alnum(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_string());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_string());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_string());
    }
    errors
}

/// A port number.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".to_string()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        type Check = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let cases: &[(Check, &str, usize)] = &[
            (dns1123_label, "a", 0),
            (dns1123_label, "0-a", 0),
            (dns1123_label, "", 1),
            (dns1123_label, "A", 1),
            (dns1123_label, "a.b", 1),
            (dns1123_label, "-a", 1),
            (dns1123_label, &long, 1),
            (dns1123_subdomain, "a.b-c.d", 0),
            (dns1123_subdomain, "a..b", 1),
            (dns1123_subdomain, &long, 0),
            (dns1035_label, "0a", 1),
            (dns1035_label, "a0", 0),
            (qualified_name, "example.com/My_Name.x", 0),
            (qualified_name, "/x", 1),
            (qualified_name, "x/", 2),
            (qualified_name, "a/b/c", 1),
            (qualified_name, "UPPER/x", 1),
            (label_value, "", 0),
            (label_value, "a b", 1),
            (config_map_key, "..data", 1),
            (config_map_key, "a/b", 1),
            (port_name, "http-2", 0),
            (port_name, "80", 1),
            (path_segment, "system:node", 0),
            (path_segment, "a/b", 1),
        ];
        for (check, text, errors) in cases {
            assert_eq!(check(text).len(), *errors, "{text}: {:?}", check(text));
        }
        assert!(prefix(dns1123_subdomain, "pod-").is_empty());
        assert_eq!(
            dns1123_label("A")[0],
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        );
    }
}
