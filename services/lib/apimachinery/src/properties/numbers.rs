//! Quantities against decimal arithmetic as it is done on paper, durations and times against their own definition.

use super::random::Random;
use super::{one, times};
use crate::quantity::{Quantity, Style};
use crate::{duration, time};
use std::cmp::Ordering;
use std::time::Duration;

const TRIES: u64 = 20_000;
/// Suffixes: by what power of ten or of two they multiply.
const SUFFIXES: [(&str, i32, u32); 22] = [
    ("n", -9, 0),
    ("u", -6, 0),
    ("m", -3, 0),
    ("", 0, 0),
    ("k", 3, 0),
    ("M", 6, 0),
    ("G", 9, 0),
    ("T", 12, 0),
    ("P", 15, 0),
    ("E", 18, 0),
    ("Ki", 0, 10),
    ("Mi", 0, 20),
    ("Gi", 0, 30),
    ("Ti", 0, 40),
    ("Pi", 0, 50),
    ("Ei", 0, 60),
    ("e0", 0, 0),
    ("e3", 3, 0),
    ("E-3", -3, 0),
    ("e+1", 1, 0),
    ("e-7", -7, 0),
    ("e11", 11, 0),
];
/// How many decimals the exact numbers here have: more than any text below has.
const DECIMALS: usize = 40;

/// An exact number of 10^-40ths, as its decimal digits without zeros in front.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exact {
    negative: bool,
    digits: Vec<u8>,
}

impl Exact {
    /// A number with a suffix.
    fn read(text: &str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let text = text.strip_prefix('+').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (ten, two) = match SUFFIXES.iter().find(|(known, _, _)| *known == suffix) {
            Some((_, ten, two)) => (*ten, *two),
            // What is printed may have another exponent than what was read.
            None => (suffix[1..].parse().expect("an exponent"), 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
        let zeros = DECIMALS as i32 + ten - fraction.len() as i32;
        digits.extend(vec![0; usize::try_from(zeros).expect("few enough decimals")]);
        for _ in 0..two {
            double(&mut digits);
        }
        digits.drain(..digits.iter().take_while(|d| **d == 0).count());
        Self { negative: negative && !digits.is_empty(), digits }
    }

    /// Away from zero to whole nanos, as upstream rounds what it reads.
    fn rounded(mut self) -> Self {
        const CUT: usize = DECIMALS - 9;
        let at = self.digits.len().saturating_sub(CUT);
        let lost = self.digits.split_off(at).iter().any(|d| *d != 0);
        if lost {
            increment(&mut self.digits);
        }
        if !self.digits.is_empty() {
            self.digits.extend([0; CUT]);
        }
        self
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let size = |e: &Self| (e.digits.len(), e.digits.clone());
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
        }
    }

    fn nanos(&self) -> i128 {
        let whole = &self.digits[..self.digits.len().saturating_sub(DECIMALS - 9)];
        let size = whole.iter().fold(0i128, |sum, d| sum * 10 + i128::from(*d));
        if self.negative { -size } else { size }
    }
}

fn double(digits: &mut Vec<u8>) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let sum = *digit * 2 + carry;
        (*digit, carry) = (sum % 10, sum / 10);
    }
    if carry > 0 {
        digits.insert(0, carry);
    }
}

fn increment(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        *digit = (*digit + 1) % 10;
        if *digit > 0 {
            return;
        }
    }
    digits.insert(0, 1);
}

/// A quantity of at most 10^29, so that nanos fit into 128 bits; of two that are read, some are close to each other.
fn text(random: &mut Random) -> String {
    let number = |random: &mut Random, digits: usize| -> String {
        (0..digits).map(|_| char::from(b'0' + *one(random, &[0, 0, 0, 1, 2, 4, 5, 9]))).collect()
    };
    let whole = random.below(10);
    let whole = number(random, whole);
    let decimals = random.below(12);
    let fraction = match random.below(3) {
        0 => format!(".{}", number(random, decimals)),
        _ => String::new(),
    };
    let whole = if whole.is_empty() && fraction.len() < 2 { "7".to_owned() } else { whole };
    format!("{}{whole}{fraction}{}", one(random, &["", "", "-", "+"]), one(random, &SUFFIXES).0)
}

/// As the reference reads it: binary ones end at 2^63-1.
fn reference(text: &str) -> Exact {
    let exact = Exact::read(text).rounded();
    let most = Exact::read("9223372036854775807");
    let size = Exact { negative: false, ..exact.clone() };
    if text.ends_with('i') && size.cmp(&most) == Ordering::Greater {
        Exact { negative: exact.negative, ..most }
    } else {
        exact
    }
}

#[test]
fn quantities_are_read_exactly_and_printed_canonically() {
    times(TRIES, |random| {
        let text = text(random);
        let quantity = Quantity::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let printed = quantity.to_string();
        assert_eq!(Exact::read(&printed), reference(&text), "{text} printed {printed}");
        let again = Quantity::parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}"));
        assert_eq!((again, again.to_string()), (quantity, printed.clone()), "{text}");
        assert!(!printed.contains('.') && !printed.starts_with('+'), "{text} printed {printed}");
        if quantity.style() == Style::DecimalSi {
            let digits = printed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            assert!(
                !digits.ends_with("000") || printed.contains('e') || printed.ends_with('E'),
                "{printed} has a larger suffix"
            );
        }
    });
}

#[test]
fn quantities_compare_and_add_as_numbers() {
    times(TRIES, |random| {
        let (a, b) = (text(random), text(random));
        let b = if random.below(4) == 0 { Quantity::parse(&a).expect("one").to_string() } else { b };
        let (one, two) = (Quantity::parse(&a).expect("one"), Quantity::parse(&b).expect("one"));
        let (exact_one, exact_two) = (reference(&a), reference(&b));
        assert_eq!(one.cmp(&two), exact_one.cmp(&exact_two), "{a} and {b}");
        let (sum, difference) = (exact_one.nanos() + exact_two.nanos(), exact_one.nanos() - exact_two.nanos());
        assert_eq!(Exact::read(&one.add(two).to_string()).nanos(), sum, "{a} + {b}");
        assert_eq!(Exact::read(&one.sub(two).to_string()).nanos(), difference, "{a} - {b}");
        assert_eq!(one.add(two).sub(two), one, "{a} + {b} - {b}");
        let style = if one.is_zero() { two.style() } else { one.style() };
        assert_eq!(one.add(two).style(), style, "{a} + {b}");
        assert_eq!(one.sign(), exact_one.nanos().signum() as i32, "{a}");
    });
}

#[test]
fn durations_are_read_as_they_were_printed() {
    times(TRIES, |random| {
        let bits = random.below(64) as u32;
        let wanted = Duration::from_nanos(random.next() >> 1 >> bits);
        let printed = duration::to_text(wanted);
        assert_eq!(duration::parse(&printed), Ok(wanted), "{printed}");
        let parts: Vec<u64> = (0..6).map(|_| random.next() % 1000).collect();
        let text = format!("{}h{}m{}s{}ms{}us{}ns", parts[0], parts[1], parts[2], parts[3], parts[4], parts[5]);
        let seconds = parts[0] * 3600 + parts[1] * 60 + parts[2];
        let sum =
            Duration::from_secs(seconds) + Duration::from_nanos(parts[3] * 1_000_000 + parts[4] * 1000 + parts[5]);
        assert_eq!(duration::parse(&text), Ok(sum), "{text}");
    });
}

/// Days from the first of March of the year zero, which makes leap days the last of their year.
fn days(year: u64, month: u64, day: u64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    (365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day) as i64
}

#[test]
fn times_are_read_in_any_zone_and_printed_in_ours() {
    times(TRIES, |random| {
        let mut below = |n: usize| random.below(n) as u64;
        let (year, month, day) = (1900 + below(300), 1 + below(12), 1 + below(28));
        let (hour, minute, second, micros) = (below(24), below(60), below(60), below(1_000_000));
        let (east, zone_hour, zone_minute) = (below(2) == 0, below(15), below(60));
        let head = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}");
        let sign = if east { '+' } else { '-' };
        let text = format!("{head}{sign}{zone_hour:02}:{zone_minute:02}");
        let offset = (zone_hour * 3600 + zone_minute * 60) as i64 * if east { 1 } else { -1 };
        let seconds =
            (days(year, month, day) - days(1970, 1, 1)) * 86400 + (hour * 3600 + minute * 60 + second) as i64 - offset;
        let read = time::parse_rfc3339(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(read.as_microsecond(), seconds * 1_000_000 + micros as i64, "{text}");
        let utc = time::rfc3339_micro(read);
        assert_eq!(time::parse_rfc3339(&utc), Ok(read), "{text} printed {utc}");
        let short = time::rfc3339(read);
        assert_eq!(short, format!("{}Z", &utc[..19]), "{text}");
        assert_eq!(time::parse_rfc3339(&short).map(|t| t.as_second()), Ok(seconds), "{text} printed {short}");
        for (from, to) in
            [(format!(":{second:02}."), ":60."), (format!("T{hour:02}"), "T24"), (format!("-{month:02}-"), "-13-")]
        {
            let wrong = text.replacen(&from, to, 1);
            assert!(time::parse_rfc3339(&wrong).is_err(), "{wrong}");
        }
    });
}
