//! One variable of a file of variables (KEP-3721). Pure.
//!
//! A line is `NAME='value'`: what is between the single quotes is the value as it stands and may go over several lines.
//! Blank lines and lines that begin with `#` say nothing.

/// The value of `key`, if the file has it.
///
/// # Errors
/// The line that is not of this form.
pub fn find(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut found = None;
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let wrong = || format!("invalid environment variable format at line {line}");
        let (name, value) = rest.split_once('=').filter(|(name, _)| !name.contains('\n')).ok_or_else(wrong)?;
        let name = name.trim();
        let value = value.trim_start_matches([' ', '\t']).strip_prefix('\'').ok_or_else(wrong)?;
        let (value, tail) = value.split_once('\'').ok_or_else(wrong)?;
        let (end, after) = tail.split_once('\n').unwrap_or((tail, ""));
        if name.is_empty() || !(end.trim().is_empty() || end.trim_start().starts_with('#')) {
            return Err(wrong());
        }
        if name == key {
            found = Some(value.to_owned());
        }
        line += 1 + value.matches('\n').count();
        rest = after;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_single_quotes() {
        for (text, expected) in [
            ("A='1'\nB='2'\n", Ok(Some("2"))),
            ("# B='0'\n\n  B = 'x y' # why\n", Ok(Some("x y"))),
            ("B='one\ntwo=$3\\n'\nA='z'", Ok(Some("one\ntwo=$3\\n"))),
            ("B=''", Ok(Some(""))),
            ("A='1'", Ok(None)),
            ("A='1'\nB=2", Err("invalid environment variable format at line 2")),
            ("A='1\n2'\nB='3", Err("invalid environment variable format at line 3")),
            ("A='1' 2\n", Err("invalid environment variable format at line 1")),
            ("just words\nB='1'", Err("invalid environment variable format at line 1")),
            ("='1'", Err("invalid environment variable format at line 1")),
        ] {
            let found = find(text, "B");
            assert_eq!(found.as_ref().map(Option::as_deref).map_err(String::as_str), expected, "{text}");
        }
    }
}
