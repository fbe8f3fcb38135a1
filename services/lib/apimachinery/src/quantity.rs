//! Resource quantities ("500m", "1.5Gi", "12e6"): exact fixed-point numbers in steps of 10⁻⁹ with a remembered style of suffix.
//!
//! Parsing and printing agree with upstream to the letter: a finer fraction rounds away from zero, a binary quantity is capped at 2⁶³-1, and printing
//! chooses the largest suffix that needs no fraction.

use std::cmp::Ordering;
use std::fmt;

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form number and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is not a number.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// There is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Which suffixes a quantity is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// n, u, m, none, k, M, G, T, P, E.
    DecimalSi,
    /// none, Ki, Mi, Gi, Ti, Pi, Ei.
    BinarySi,
    /// e-3, none, e3, e6 and so on.
    DecimalExponent,
}

/// A quantity.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    style: Style,
}

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

impl Quantity {
    /// Zero, in decimal style.
    pub const ZERO: Quantity = Quantity { nanos: 0, style: Style::DecimalSi };

    /// Parses a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let (negative, unsigned) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let whole_end = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
        let (whole, rest) = unsigned.split_at(whole_end);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
            None => ("", rest),
        };
        check_suffix_form(suffix)?;
        let (scale, style) = interpret(suffix).ok_or(QuantityError::Suffix)?;
        if whole.is_empty() && fraction.is_empty() && !(rest.is_empty() && text.len() == 1) {
            return Err(QuantityError::Number);
        }
        let mut nanos = magnitude(whole, fraction, scale);
        let mut style = style;
        if style == Style::BinarySi {
            nanos = nanos.min(i128::from(i64::MAX) * NANO);
            if nanos > 0 && nanos < NANO {
                style = Style::DecimalSi;
            }
        }
        Ok(Self { nanos: if negative { -nanos } else { nanos }, style })
    }

    /// A whole number, in decimal style.
    pub fn from_value(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANO, style: Style::DecimalSi }
    }

    /// Thousandths, in decimal style.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * 1_000_000, style: Style::DecimalSi }
    }

    /// A number of bytes, in binary style.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, style: Style::BinarySi }
    }

    /// In thousandths, rounded up.
    pub fn milli(&self) -> i128 {
        divide_up(self.nanos, 1_000_000)
    }

    /// As a whole number, rounded up and capped to the range.
    pub fn value(&self) -> i64 {
        let value = divide_up(self.nanos, NANO);
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The style of suffix.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Sum; zero takes over the other's style.
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "saturating, and an operator would hide which side gives the style"
    )]
    pub fn add(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            style: if self.is_zero() { other.style } else { self.style },
        }
    }

    /// Difference; zero takes over the other's style.
    #[must_use]
    #[expect(
        clippy::should_implement_trait,
        reason = "saturating, and an operator would hide which side gives the style"
    )]
    pub fn sub(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(other.nanos),
            style: if self.is_zero() { other.style } else { self.style },
        }
    }
}

/// Away from the fraction, towards positive infinity for positive and negative infinity for negative numbers, as upstream rounds.
fn divide_up(number: i128, by: i128) -> i128 {
    let quotient = number / by;
    if number % by == 0 { quotient } else { quotient + number.signum() }
}

fn check_suffix_form(suffix: &str) -> Result<(), QuantityError> {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    if rest.bytes().all(|b| b.is_ascii_digit()) { Ok(()) } else { Err(QuantityError::Format) }
}

fn interpret(suffix: &str) -> Option<(Scale, Style)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Scale::Ten(*exponent), Style::DecimalSi));
    }
    if let Some(power) = BINARY.iter().position(|s| *s == suffix) {
        return Some((Scale::Two(power as u32 * 10), Style::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
    Some((Scale::Ten(exponent), Style::DecimalExponent))
}

/// The absolute value in nanos: rounded up, saturating.
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let mut digits: i128 = 0;
    let mut dropped = 0i32;
    let mut lost = false;
    for digit in whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0')) {
        match digits.checked_mul(10).and_then(|d| d.checked_add(digit)) {
            Some(next) if dropped == 0 => digits = next,
            _ => {
                dropped += 1;
                lost |= digit != 0;
            }
        }
    }
    // value = digits × 10^exponent × factor; nanos have nine more decimal places
    let (exponent, factor) = match scale {
        Scale::Ten(exponent) => (exponent, 1i128),
        Scale::Two(bits) => (0, 1i128 << bits),
    };
    let fraction_places = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let exponent = exponent.saturating_add(9).saturating_add(dropped).saturating_sub(fraction_places);
    scale_by(digits, factor, exponent, lost)
}

fn scale_by(digits: i128, factor: i128, exponent: i32, lost: bool) -> i128 {
    if digits == 0 {
        return 0;
    }
    let power = 10i128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        return power.and_then(|p| digits.checked_mul(p)).and_then(|d| d.checked_mul(factor)).unwrap_or(i128::MAX);
    }
    let Some(power) = power else { return 1 };
    match digits.checked_mul(factor) {
        Some(product) => product / power + i128::from(product % power != 0 || lost),
        // too many digits to multiply first: the fraction below a nano is far beyond what a double could tell
        None => (digits / power)
            .saturating_mul(factor)
            .saturating_add((digits % power).saturating_mul(factor) / power)
            .saturating_add(1),
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.style == Style::BinarySi && !small && self.nanos % NANO == 0 {
            let mut value = self.nanos / NANO;
            let mut power = 0;
            while value % 1024 == 0 && power < BINARY.len() - 1 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", BINARY[power]);
        }
        let mut value = self.nanos;
        let mut exponent = -9;
        while value % 1000 == 0 {
            value /= 1000;
            exponent += 3;
        }
        match DECIMAL.iter().find(|(_, e)| *e == exponent) {
            Some((suffix, _)) if self.style != Style::DecimalExponent => write!(f, "{value}{suffix}"),
            _ if exponent == 0 => write!(f, "{value}"),
            _ => write!(f, "{value}e{exponent}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        let cases = [
            ("0", "0"),
            ("0Gi", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1024", "1024"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("0.001Ki", "1024m"),
            ("1000", "1k"),
            ("1000000k", "1G"),
            ("1500k", "1500k"),
            ("12e6", "12e6"),
            ("12000e3", "12e6"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("100e-3", "100e-3"),
            ("1e-1", "100e-3"),
            ("1E", "1E"),
            ("1000E", "1e21"),
            ("8Ei", "9223372036854775807"),
            ("0.9n", "1n"),
            ("1.00000000001", "1000000001n"),
            ("-1.5", "-1500m"),
            ("1.2345", "1234500u"),
            ("18446744073709551616", "18446744073709551616"),
            ("00012", "12"),
            ("128974848", "128974848"),
            ("129M", "129M"),
            ("123Mi", "123Mi"),
        ];
        for (text, want) in cases {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(want.to_string()), "{text}");
        }
    }

    #[test]
    fn refused() {
        use QuantityError::*;
        for (text, want) in [
            ("", Format),
            ("1.1.1", Format),
            ("1+", Suffix),
            ("a", Format),
            ("1Xi", Format),
            ("1mm", Suffix),
            ("1ki", Suffix),
            ("1KI", Format),
            ("1 ", Format),
            ("1e", Suffix),
            ("m", Number),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Err(want), "{text}");
        }
    }

    #[test]
    fn arithmetic() {
        let q = |text: &str| Quantity::parse(text).unwrap_or(Quantity::ZERO);
        assert_eq!(q("100m").add(q("0.9")).to_string(), "1");
        assert_eq!(q("0").add(q("1Mi")).to_string(), "1Mi");
        assert_eq!(q("2Gi").sub(q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1.1").value(), q("-1.1").value(), q("1n").milli(), q("0.5").milli()), (2, -2, 1, 500));
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1"));
    }
}
