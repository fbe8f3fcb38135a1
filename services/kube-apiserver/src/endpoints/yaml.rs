//! YAML texts as trees. A key that stands twice in a map keeps its last value, and is complained about.

use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

/// A tree and what a strict client wants to hear: `line 9: key "foo" already set in map`.
pub fn parse(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    match read(text, DuplicateKeyPolicy::Error) {
        Ok(tree) => Ok((tree, Vec::new())),
        Err(error) => {
            let Some(complaint) = duplicate(&error) else { return Err(said(&error)) };
            read(text, DuplicateKeyPolicy::LastWins).map(|tree| (tree, vec![complaint])).map_err(|e| said(&e))
        }
    }
}

fn read(text: &[u8], duplicate_keys: DuplicateKeyPolicy) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! { duplicate_keys: duplicate_keys };
    serde_saphyr::from_slice_with_options(text, options)
}

fn said(error: &serde_saphyr::Error) -> String {
    format!("yaml: {}", error.without_snippet())
}

fn duplicate(error: &serde_saphyr::Error) -> Option<String> {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key.clone().unwrap_or_default();
            Some(format!("line {}: key {key:?} already set in map", location.line()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_that_stand_twice() {
        let (tree, complaints) = parse(b"\na: 1\nb:\n  c: x\n  c: z\n").expect("a tree");
        assert_eq!(
            (tree, complaints),
            (json!({"a": 1, "b": {"c": "z"}}), vec!["line 5: key \"c\" already set in map".to_string()])
        );
        assert!(parse(b"a: [").is_err());
    }
}
