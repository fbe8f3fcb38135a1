//! Tokens to expressions: the grammar of cel-spec, binary operators by precedence.

use crate::Issue;
use crate::ast::{Expr, Node};
use crate::lexer::{Token, tokens};
use crate::macros;
use crate::value::Value;

/// Deeper expressions are refused: everything here that walks them uses the stack. cel-go's limit is of the same order.
const DEPTH_MAX: usize = 200;

/// Names that the language keeps for itself.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Operators that bind equally: their signs, and what they are called as functions.
const LEVELS: [&[(&str, &str)]; 3] = [
    &[("<", "_<_"), ("<=", "_<=_"), (">", "_>_"), (">=", "_>=_"), ("==", "_==_"), ("!=", "_!=_"), ("in", "@in")],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

/// Reads an expression.
pub fn parse(text: &str) -> Result<Expr, Issue> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, level: 0 };
    let root = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(root),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

/// Where the reading is.
pub struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    level: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |(at, _)| *at)
    }

    fn unexpected(&self, wanted: &str) -> Issue {
        let found = match self.peek() {
            Token::Name(name, _) => name.clone(),
            Token::Literal(value) => value.to_string(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::End => "<EOF>".to_owned(),
        };
        Issue::new(self.at(), format!("Syntax error: mismatched input '{found}' expecting {wanted}"))
    }

    /// Whether a sign comes next, which is then read.
    fn takes(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Issue> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    fn made(&self, at: usize, node: Node) -> Result<Expr, Issue> {
        limited(Expr::new(at, node))
    }

    /// `or ? or : expression`.
    fn expression(&mut self) -> Result<Expr, Issue> {
        self.level += 1;
        if self.level > DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        let condition = self.any_of()?;
        let at = self.at();
        let read = if self.takes("?") {
            let yes = self.any_of()?;
            self.expect(":")?;
            let no = self.expression()?;
            self.made(at, Node::If(Box::new([condition, yes, no])))
        } else {
            Ok(condition)
        };
        self.level -= 1;
        read
    }

    fn any_of(&mut self) -> Result<Expr, Issue> {
        self.chain("||", Parser::all_of, Node::Or)
    }

    fn all_of(&mut self) -> Result<Expr, Issue> {
        self.chain("&&", |parser| parser.binary(0), Node::And)
    }

    /// Parts with a sign between them, which become one node however many they are.
    fn chain(
        &mut self,
        sign: &str,
        part: fn(&mut Parser) -> Result<Expr, Issue>,
        node: fn(Vec<Expr>) -> Node,
    ) -> Result<Expr, Issue> {
        let first = part(self)?;
        let at = self.at();
        let mut parts = vec![first];
        while self.takes(sign) {
            parts.push(part(self)?);
        }
        match parts.pop() {
            Some(only) if parts.is_empty() => Ok(only),
            Some(last) => {
                parts.push(last);
                self.made(at, node(parts))
            }
            None => Err(self.unexpected("an expression")),
        }
    }

    fn binary(&mut self, level: usize) -> Result<Expr, Issue> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let next = match self.peek() {
                Token::Sign(sign) => *sign,
                Token::Name(name, false) if name == "in" => "in",
                _ => return Ok(left),
            };
            let Some((_, name)) = operators.iter().find(|(sign, _)| *sign == next) else { return Ok(left) };
            let at = self.at();
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = limited(Expr::operator(at, name, vec![left, right]))?;
        }
    }

    fn unary(&mut self) -> Result<Expr, Issue> {
        for (sign, name) in [("!", "!_"), ("-", "-_")] {
            let at = self.at();
            let mut odd = false;
            let mut any = false;
            while self.takes(sign) {
                (odd, any) = (!odd, true);
            }
            if !any {
                continue;
            }
            let of = self.member()?;
            return match of.node {
                _ if !odd => Ok(of),
                Node::Literal(Value::Int(i64::MIN)) if sign == "-" => Ok(of),
                Node::Literal(Value::Int(n)) if sign == "-" => self.made(at, Node::Literal(Value::Int(-n))),
                Node::Literal(Value::Double(n)) if sign == "-" => self.made(at, Node::Literal(Value::Double(-n))),
                _ => limited(Expr::operator(at, name, vec![of])),
            };
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, Issue> {
        let mut of = self.primary()?;
        loop {
            let at = self.at();
            if self.takes(".") {
                let optional = self.takes("?");
                let field = self.field()?;
                let open = self.at();
                of = if !optional && self.takes("(") {
                    let args = self.list(")", Parser::expression)?;
                    limited(macros::member(open, of, field, args)?)?
                } else {
                    self.made(at, Node::Select { of: Box::new(of), field: field.into(), optional })?
                };
            } else if self.takes("[") {
                let name = if self.takes("?") { "_[?_]" } else { "_[_]" };
                let index = self.expression()?;
                self.expect("]")?;
                of = limited(Expr::operator(at, name, vec![of, index]))?;
            } else {
                return Ok(of);
            }
        }
    }

    fn field(&mut self) -> Result<String, Issue> {
        match self.peek() {
            Token::Name(name, quoted) if *quoted || !matches!(&**name, "in" | "true" | "false" | "null") => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    /// Parts up to a closing bracket; a comma may stand behind the last.
    fn list<T>(&mut self, close: &'static str, part: fn(&mut Parser) -> Result<T, Issue>) -> Result<Vec<T>, Issue> {
        let mut parts = Vec::new();
        while !self.takes(close) {
            parts.push(part(self)?);
            if !self.takes(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(parts)
    }

    fn primary(&mut self) -> Result<Expr, Issue> {
        let at = self.at();
        match self.peek().clone() {
            Token::Literal(value) => {
                self.next += 1;
                self.made(at, Node::Literal(value))
            }
            Token::Sign("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                self.next += 1;
                let parts = self.list("]", |parser| Ok((parser.takes("?"), parser.expression()?)))?;
                self.made(at, Node::List(parts))
            }
            Token::Sign("{") => {
                self.next += 1;
                let parts = self.list("}", |parser| {
                    let optional = parser.takes("?");
                    let key = parser.expression()?;
                    parser.expect(":")?;
                    Ok((optional, key, parser.expression()?))
                })?;
                self.made(at, Node::Map(parts))
            }
            Token::Name(_, false) => self.named(),
            // A leading dot names something of the outermost container, which is the only one here.
            Token::Sign(".") if matches!(self.tokens.get(self.next + 1), Some((_, Token::Name(_, false)))) => {
                self.next += 1;
                self.named()
            }
            _ => Err(self.unexpected("an expression")),
        }
    }

    /// A variable, a word with a meaning, or a call.
    fn named(&mut self) -> Result<Expr, Issue> {
        let at = self.at();
        let Token::Name(name, _) = self.peek().clone() else { return Err(self.unexpected("IDENTIFIER")) };
        let word = match &*name {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            "in" => return Err(self.unexpected("an expression")),
            _ => None,
        };
        self.next += 1;
        if let Some(value) = word {
            return self.made(at, Node::Literal(value));
        }
        if RESERVED.contains(&&*name) {
            return Err(Issue::new(at, format!("reserved identifier: {name}")));
        }
        let open = self.at();
        if self.takes("(") {
            let args = self.list(")", Parser::expression)?;
            return limited(macros::global(open, name, args)?);
        }
        self.made(at, Node::Name(name))
    }
}

fn too_deep(at: usize) -> Issue {
    Issue::new(at, format!("expression recursion limit exceeded: {DEPTH_MAX}"))
}

fn limited(made: Expr) -> Result<Expr, Issue> {
    if made.depth > DEPTH_MAX { Err(too_deep(made.at)) } else { Ok(made) }
}
