//! Where an object lives in the store: `<prefix>/<storage>/[<namespace>/]<name>`, as upstream lays it out.

use crate::registry::Resource;

/// The part of a key below the resource's own prefix.
pub fn relative(res: &Resource, namespace: &str, name: &str) -> String {
    if res.namespaced { format!("{namespace}/{name}") } else { name.to_string() }
}

/// The prefix of all of a resource's keys, with its trailing slash.
pub fn prefix(root: &str, res: &Resource) -> String {
    format!("{root}/{}/", res.storage)
}

/// The first key after every key that starts with `prefix`: the end of a range request.
pub fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_ranges() {
        assert_eq!(range_end(b"/a/"), b"/a0");
        assert_eq!(range_end(b"a\xff"), b"b");
        assert_eq!(range_end(b"\xff\xff"), b"\0");
    }
}
