//! The form of an image's name: `[HOST[:PORT]/]PATH[:TAG][@ALGORITHM:HEX]`, in the grammar that registries agree on (the OCI
//! distribution specification, and what runtimes refuse beyond it). Pure.

const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// Whether a runtime could look for it.
///
/// # Errors
/// Upstream's text about what is wrong.
pub fn check(image: &str) -> Result<(), String> {
    let refused = || Err("invalid reference format".to_owned());
    let is_id = image.len() == 64 && image.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_id {
        return Err(format!("invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"));
    }
    let (host, rest) = split(image);
    let (rest, digest) = rest.split_once('@').map_or((rest, None), |(rest, digest)| (rest, Some(digest)));
    let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
    if path.chars().any(char::is_uppercase) {
        return Err(format!("invalid reference format: repository name ({path}) must be lowercase"));
    }
    if !host.is_none_or(is_host) || !path.split('/').all(is_component) {
        return refused();
    }
    if !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
        return refused();
    }
    if host.map_or(0, str::len) + path.len() > LONGEST_NAME {
        return Err(format!("repository name must not be more than {LONGEST_NAME} characters"));
    }
    Ok(())
}

/// The first part names a host if it cannot be a path's.
fn split(image: &str) -> (Option<&str>, &str) {
    match image.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, image),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let known = match address {
        Some(address) => address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') && !address.is_empty(),
        None => name.split('.').all(label),
    };
    known && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Letters and digits, parted by one dot, one or two underscores or any number of dashes.
fn is_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !part.starts_with(plain) || !part.ends_with(plain) {
        return false;
    }
    let separators = part.split(plain).filter(|between| !between.is_empty());
    separators.into_iter().all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    bytes.next().is_some_and(word) && tag.len() <= LONGEST_TAG && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let named = algorithm.split(['+', '.', '-', '_']).all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    named && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_that_runtimes_take() {
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        let both = format!("host:5000/a/b:v1@sha256:{}", "0".repeat(64));
        for image in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "corten.local/test-web:v1",
            "localhost/x",
            "[fd00::1]:5000/x",
            "registry.k8s.io/e2e-test-images/agnhost:2.53",
            "a.b/c__d/e--f/g.h:T_1.2-3",
            "sha256:abc",
            "MyHost/x",
            &digest,
            &both,
        ] {
            assert_eq!(check(image), Ok(()), "{image}");
        }
    }

    #[test]
    fn names_that_no_runtime_could_look_for() {
        let plain = "invalid reference format";
        let id = "0".repeat(64);
        let long = format!("host.example/{}", "a".repeat(250));
        for (image, text) in [
            ("", plain),
            ("nginx:", plain),
            ("nginx@sha256:00", plain),
            ("a//b", plain),
            ("-a", plain),
            ("a..b", plain),
            ("a___b", plain),
            ("host:port/x", plain),
            ("nginx:a b", plain),
            (":v1", plain),
            ("Nginx", "invalid reference format: repository name (Nginx) must be lowercase"),
            ("UPPER/Bad::x", "invalid reference format: repository name (Bad) must be lowercase"),
            (&long, "repository name must not be more than 255 characters"),
            (&id, &format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings")),
        ] {
            assert_eq!(check(image).unwrap_err(), text, "{image}");
        }
    }
}
