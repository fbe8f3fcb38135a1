//! The text form of label selectors, token by token, so that odd input fails with upstream's words:
//!
//! ```text
//! selector    = requirement { "," requirement }
//! requirement = [ "!" ] key | key ( "=" | "==" | "!=" | ">" | "<" ) value | key ( "in" | "notin" ) "(" values ")"
//! ```

use super::SelectorError;
use super::label::{Operator, Requirement, check_key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "(" => Token::Open,
        _ => return None,
    })
}

/// The next token and its text; the longest symbol wins.
fn next_token(rest: &mut &str) -> (Token, String) {
    *rest = rest.trim_start_matches(is_space);
    let Some(first) = rest.chars().next() else { return (Token::End, String::new()) };
    if is_special(first) {
        // No symbol is longer; looking further would make a long row of them cost its square.
        let run = rest.bytes().take(2).take_while(|byte| is_special(char::from(*byte))).count();
        for length in [2, 1] {
            if let Some(token) = rest.get(..length.min(run)).and_then(symbol) {
                let (text, after) = rest.split_at(length.min(run));
                *rest = after;
                return (token, text.to_string());
            }
        }
        let (text, after) = rest.split_at(run);
        *rest = after;
        return (Token::Error, format!("error expected: keyword found '{text}'"));
    }
    let end = rest.find(|c| is_special(c) || is_space(c)).unwrap_or(rest.len());
    let (text, after) = rest.split_at(end);
    *rest = after;
    let token = match text {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, text.to_string())
}

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

impl Parser {
    /// The token ahead, where `in` and `notin` are ordinary words.
    fn peek(&self) -> (Token, &str) {
        let (token, text) = &self.tokens[self.position.min(self.tokens.len() - 1)];
        (if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { *token }, text)
    }

    fn take(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let taken = (token, text.to_string());
        self.position += 1;
        taken
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take();
        }
        if token != Token::Identifier {
            return Err(found(&key, "expected: identifier"));
        }
        check_key(&key)?;
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(&key, if negated { Operator::DoesNotExist } else { Operator::Exists }, Vec::new());
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        let operator = self.operator()?;
        let values = if matches!(operator, Operator::In | Operator::NotIn) { self.values()? } else { self.value()? };
        Requirement::new(&key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let (token, text) = self.tokens[self.position.min(self.tokens.len() - 1)].clone();
        self.position += 1;
        Ok(match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(found(&text, &format!("expected: {BINARY_OPERATORS}"))),
        })
    }

    /// `(a,b)`; an empty place is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let (token, text) = self.take();
        if token != Token::Open {
            return Err(SelectorError::Syntax(format!("found '{text}' expected: '('")));
        }
        let mut values = Vec::new();
        let mut expect_value = true;
        loop {
            let (token, text) = self.take();
            match token {
                Token::Identifier if expect_value => {
                    values.push(text);
                    expect_value = false;
                }
                Token::Comma => {
                    if expect_value {
                        values.push(String::new());
                    }
                    expect_value = true;
                }
                Token::Close => {
                    if expect_value {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                _ if expect_value && values.is_empty() => return Err(found(&text, "expected: ',', ')' or identifier")),
                _ if expect_value => return Err(found(&text, "expected: ',', or identifier")),
                _ => return Err(found(&text, "expected: ',' or ')'")),
            }
        }
    }

    fn value(&mut self) -> Result<Vec<String>, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(vec![String::new()]);
        }
        match self.take() {
            (Token::Identifier, text) => Ok(vec![text]),
            (_, text) => Err(found(&text, "expected: identifier")),
        }
    }
}

fn found(text: &str, expected: &str) -> SelectorError {
    SelectorError::Syntax(format!("found '{text}', {expected}"))
}

/// All requirements of a selector text.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut rest = text;
    let mut tokens = Vec::new();
    loop {
        let token = next_token(&mut rest);
        let last = token.0 == Token::End;
        tokens.push(token);
        if last {
            break;
        }
    }
    let mut parser = Parser { tokens, position: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            (Token::Identifier | Token::Not, _) => {}
            (Token::End, _) => return Ok(requirements),
            (_, text) => return Err(found(text, "expected: !, identifier, or 'end of string'")),
        }
        let requirement =
            parser.requirement().map_err(|e| SelectorError::Syntax(format!("unable to parse requirement: {e}")))?;
        requirements.push(requirement);
        match parser.take() {
            (Token::End, _) => return Ok(requirements),
            (Token::Comma, _) => match parser.peek() {
                (Token::Identifier | Token::Not, _) => {}
                (_, text) => return Err(found(text, "expected: identifier after ','")),
            },
            (_, text) => return Err(found(&text, "expected: ',' or 'end of string'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::selector::LabelSelector;

    #[test]
    fn round_trips_and_errors() {
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("", Ok("")),
            (" b , a ", Ok("a,b")),
            ("x in (foo,,baz),y,z notin ()", Ok("x in (,baz,foo),y,z notin ()")),
            ("in in (in)", Ok("in in (in)")),
            ("x= a", Ok("x=a")),
            ("x==a,!y", Ok("x==a,!y")),
            ("x!=,y", Ok("x!=,y")),
            ("example.com/a=b", Ok("example.com/a=b")),
            ("x>1,z<5", Ok("x>1,z<5")),
            (",", Err("found ',', expected: !, identifier, or 'end of string'")),
            ("a,", Err("found '', expected: identifier after ','")),
            ("a b", Err("unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt")),
            ("a in b", Err("unable to parse requirement: found 'b' expected: '('")),
            ("a in (b", Err("unable to parse requirement: found '', expected: ',' or ')'")),
            ("a=b=c", Err("found '=', expected: ',' or 'end of string'")),
            ("a==!b", Err("unable to parse requirement: found '!', expected: identifier")),
            (
                "x>a",
                Err(
                    "unable to parse requirement: values: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
                ),
            ),
        ];
        for (text, want) in cases {
            let got = LabelSelector::parse(text).map(|s| s.to_string()).map_err(|e| e.to_string());
            assert_eq!(got.as_deref().map_err(|e| e.as_str()), *want, "{text:?}");
        }
        assert!(LabelSelector::parse("a=b$").is_err_and(|e| e.to_string().contains("a valid label must be")));
        assert!(LabelSelector::parse("a$").is_err_and(|e| e.to_string().contains("name part must consist of")));
    }
}
