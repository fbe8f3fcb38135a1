//! Int-or-string fields: a number, or a percentage or name.

use serde_json::Value;

/// A value that is neither an integer nor a percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntStrError {
    /// A string that is not a percentage.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotAPercentage,
    /// Neither a number nor a string.
    #[error("invalid type: neither int nor percentage")]
    WrongType,
}

/// Which way to round a percentage of a total that does not come out even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To the next greater whole number.
    Up,
    /// To the next smaller whole number.
    Down,
}

/// The number itself, or the percentage of `total`: how maxSurge and maxUnavailable are meant.
pub fn scaled_value(value: &Value, total: i64, round: Round) -> Result<i64, IntStrError> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let percent = percent(value)?;
    let product = percent * total;
    Ok(match round {
        Round::Up => product.div_euclid(100) + i64::from(product.rem_euclid(100) != 0),
        Round::Down => product.div_euclid(100),
    })
}

/// The number of a percentage such as "25%".
pub fn percent(value: &Value) -> Result<i64, IntStrError> {
    let text = value.as_str().ok_or(IntStrError::WrongType)?;
    text.strip_suffix('%').and_then(|number| number.parse().ok()).ok_or(IntStrError::NotAPercentage)
}

/// The text form: `8080` or `http`.
pub fn to_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn percentages_round_as_asked() {
        let cases = [
            (json!(3), 10, Ok((3, 3))),
            (json!("25%"), 10, Ok((3, 2))),
            (json!("25%"), 4, Ok((1, 1))),
            (json!("0%"), 4, Ok((0, 0))),
            (json!("25"), 4, Err(IntStrError::NotAPercentage)),
            (json!(null), 4, Err(IntStrError::WrongType)),
        ];
        for (value, total, want) in cases {
            let up = scaled_value(&value, total, Round::Up);
            let down = scaled_value(&value, total, Round::Down);
            assert_eq!(up.and_then(|up| down.map(|down| (up, down))), want, "{value}");
        }
    }
}
