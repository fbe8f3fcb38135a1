//! Short stable names for contents, as they stand in labels and in names of ReplicaSets, revisions and slices.

/// FNV-1a, 32 bits.
pub fn fnv32(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The hash of a text in letters that form no words. `collisions` counts how often the name was found taken.
pub fn label(text: &str, collisions: Option<i64>) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let hash = match collisions {
        Some(collisions) => fnv32(&format!("{text}{collisions}")),
        None => fnv32(text),
    };
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_safe_and_different_after_a_collision() {
        assert_eq!(fnv32("a"), 0xe40c_292c, "the published test vector");
        let first = label("template", None);
        assert_eq!(first, label("template", None));
        assert_ne!(first, label("template", Some(1)));
        assert!(first.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
    }
}
