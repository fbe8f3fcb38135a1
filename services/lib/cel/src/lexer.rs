//! Text to tokens.

use crate::Issue;
use crate::value::Value;

/// A word of the language.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// A name; the second says that it was quoted by backticks, so that it can only be a field.
    Name(String, bool),
    /// A number, a text or bytes.
    Literal(Value),
    /// An operator or a bracket.
    Sign(&'static str),
    /// Nothing more.
    End,
}

/// Longer signs first.
const SIGNS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "=", "&",
];

/// The tokens of a text with their places.
pub fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Issue> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.token()?;
        let ended = token == Token::End;
        tokens.push((at, token));
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, at: usize, what: impl Into<String>) -> Issue {
        Issue::new(at, what)
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']).len();
            let comment = if rest[blank..].starts_with("//") {
                rest[blank..].find('\n').unwrap_or(rest.len() - blank)
            } else {
                0
            };
            if blank + comment == 0 {
                return;
            }
            self.at += blank + comment;
        }
    }

    fn token(&mut self) -> Result<Token, Issue> {
        let Some(first) = self.rest().chars().next() else { return Ok(Token::End) };
        if let Some(found) = self.quoted()? {
            return Ok(Token::Literal(found));
        }
        let second = self.rest().as_bytes().get(1).copied().unwrap_or(0);
        if first.is_ascii_digit() || first == '.' && second.is_ascii_digit() {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = self.rest().find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest().len());
            let name = self.rest()[..end].to_owned();
            self.at += end;
            return Ok(Token::Name(name, false));
        }
        if first == '`' {
            let Some(end) = self.rest()[1..].find('`') else {
                return Err(self.wrong(self.at, "Syntax error: token recognition error at: '`'"));
            };
            let name = self.rest()[1..=end].to_owned();
            self.at += end + 2;
            return Ok(Token::Name(name, true));
        }
        match SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
            Some(sign) if !matches!(*sign, "=" | "&") => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            _ => Err(self.wrong(self.at, format!("Syntax error: token recognition error at: '{first}'"))),
        }
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let (at, rest) = (self.at, self.rest());
        let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        let unsigned = |end: usize| matches!(rest.as_bytes().get(end), Some(b'u' | b'U'));
        if rest.starts_with("0x") || rest.starts_with("0X") {
            let end = 2 + rest[2..].bytes().take_while(u8::is_ascii_hexdigit).count();
            self.at += end + usize::from(unsigned(end));
            return self.integer(at, &rest[2..end], 16, unsigned(end));
        }
        let mut end = digits(0);
        let whole = end;
        if rest[end..].starts_with('.') && digits(end + 1) > 0 {
            end += 1 + digits(end + 1);
        }
        if matches!(rest.as_bytes().get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.as_bytes().get(end + 1), Some(b'+' | b'-')));
            let exponent = digits((end + 1 + sign).min(rest.len()));
            if exponent > 0 {
                end += 1 + sign + exponent;
            }
        }
        if end == whole {
            self.at += end + usize::from(unsigned(end));
            return self.integer(at, &rest[..end], 10, unsigned(end));
        }
        self.at += end;
        let value = rest[..end].parse().map_err(|_| self.wrong(at, "invalid double literal"))?;
        Ok(Token::Literal(Value::Double(value)))
    }

    /// The smallest integer has a sign, which is not read here: its absolute value stays unsigned until the parser sees it.
    fn integer(&self, at: usize, digits: &str, radix: u32, unsigned: bool) -> Result<Token, Issue> {
        let kind = if unsigned { "uint" } else { "int" };
        let value =
            u64::from_str_radix(digits, radix).map_err(|_| self.wrong(at, format!("invalid {kind} literal")))?;
        if unsigned {
            return Ok(Token::Literal(Value::Uint(value)));
        }
        match i64::try_from(value) {
            Ok(value) => Ok(Token::Literal(Value::Int(value))),
            Err(_) if value == i64::MIN.unsigned_abs() && self.text[..at].trim_end().ends_with('-') => {
                Ok(Token::Literal(Value::Int(i64::MIN)))
            }
            Err(_) => Err(self.wrong(at, "invalid int literal")),
        }
    }

    /// A text or bytes, if one begins here.
    fn quoted(&mut self) -> Result<Option<Value>, Issue> {
        let (at, rest) = (self.at, self.rest());
        let prefix = rest.bytes().take(2).take_while(|b| matches!(b, b'r' | b'R' | b'b' | b'B')).count();
        let is = |letters: [u8; 2]| rest.bytes().take(prefix).any(|b| letters.contains(&b));
        let (raw, bytes) = (is([b'r', b'R']), is([b'b', b'B']));
        let quotes = ["\"\"\"", "'''", "\"", "'"];
        let Some(quote) = quotes.iter().find(|quote| rest[prefix..].starts_with(**quote)) else { return Ok(None) };
        let mut out: Vec<u8> = Vec::new();
        let mut chars = rest[prefix + quote.len()..].char_indices();
        let body = prefix + quote.len();
        while let Some((i, c)) = chars.next() {
            if rest[body + i..].starts_with(quote) {
                self.at += body + i + quote.len();
                if bytes {
                    return Ok(Some(Value::Bytes(out.into())));
                }
                let text = String::from_utf8(out).map_err(|_| self.wrong(at, "invalid string literal"))?;
                return Ok(Some(text.into()));
            }
            if c == '\n' && quote.len() == 1 {
                break;
            }
            if c != '\\' || raw {
                out.extend(c.encode_utf8(&mut [0; 4]).bytes());
                continue;
            }
            let escaped = escape(&rest[body + i + 1..], bytes).ok_or_else(|| {
                self.wrong(self.at + body + i, format!("Syntax error: token recognition error at: '{quote}'"))
            })?;
            out.extend_from_slice(&escaped.0);
            for _ in 0..escaped.1 {
                chars.next();
            }
        }
        Err(self
            .wrong(at, format!("Syntax error: token recognition error at: '{}'", rest.lines().next().unwrap_or(rest))))
    }
}

/// What an escape stands for, and how many letters it has behind its backslash.
fn escape(rest: &str, bytes: bool) -> Option<(Vec<u8>, usize)> {
    let code = |from: usize, len: usize, radix: u32| {
        let digits = rest.get(from..from + len)?;
        let fits = digits.chars().all(|c| c.is_digit(radix));
        u32::from_str_radix(digits, radix).ok().filter(|_| fits)
    };
    let letter = |code: u32| Some(char::from_u32(code)?.to_string().into_bytes());
    let byte_or_letter = |code: u32| if bytes { Some(vec![u8::try_from(code).ok()?]) } else { letter(code) };
    let simple = |byte: u8| Some((vec![byte], 1));
    match rest.chars().next()? {
        'a' => simple(7),
        'b' => simple(8),
        'f' => simple(12),
        'n' => simple(b'\n'),
        'r' => simple(b'\r'),
        't' => simple(b'\t'),
        'v' => simple(11),
        c @ ('\\' | '\'' | '"' | '`' | '?') => simple(u8::try_from(c).ok()?),
        'x' | 'X' => Some((byte_or_letter(code(1, 2, 16)?)?, 3)),
        'u' if !bytes => Some((letter(code(1, 4, 16)?)?, 5)),
        'U' if !bytes => Some((letter(code(1, 8, 16)?)?, 9)),
        '0'..='3' => Some((byte_or_letter(code(0, 3, 8)?)?, 3)),
        _ => None,
    }
}
