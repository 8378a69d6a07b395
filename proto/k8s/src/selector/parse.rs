//! The grammar of label selectors.

use super::label::{Operator, Requirement};
use crate::{FieldError, names};

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    End,
    Open,
    Close,
    Comma,
    Not,
    /// `=`, `==`, `!=`, `>`, `<`
    Sign(Operator, &'a str),
    /// `in` and `notin` are words too where a key or value may stand.
    Word(&'a str),
}

impl<'a> Token<'a> {
    fn text(&self) -> &'a str {
        match self {
            Token::End => "",
            Token::Open => "(",
            Token::Close => ")",
            Token::Comma => ",",
            Token::Not => "!",
            Token::Sign(_, text) | Token::Word(text) => text,
        }
    }
}

/// The requirements of a selector, in the order they stand there.
pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(requirements),
            Token::Word(_) | Token::Not => {}
            other => {
                let other = other.text();
                return Err(format!(
                    "found '{other}', expected: !, identifier, or 'end of string'"
                ));
            }
        }
        let requirement =
            parser.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
        requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Comma => match parser.peek() {
                Token::Word(_) | Token::Not => {}
                other => {
                    let other = other.text();
                    return Err(format!("found '{other}', expected: identifier after ','"));
                }
            },
            other => {
                let other = other.text();
                return Err(format!("found '{other}', expected: ',' or 'end of string'"));
            }
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let is_sign = |c: char| "=!(),<>".contains(c);
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next() else {
            tokens.push(Token::End);
            return tokens;
        };
        let (token, bytes) = match (first, rest.as_bytes().get(1)) {
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            (',', _) => (Token::Comma, 1),
            ('>', _) => (Token::Sign(Operator::GreaterThan, ">"), 1),
            ('<', _) => (Token::Sign(Operator::LessThan, "<"), 1),
            ('=', Some(b'=')) => (Token::Sign(Operator::DoubleEquals, "=="), 2),
            ('=', _) => (Token::Sign(Operator::Equals, "="), 1),
            ('!', Some(b'=')) => (Token::Sign(Operator::NotEquals, "!="), 2),
            ('!', _) => (Token::Not, 1),
            _ => {
                let end = rest.find(|c| is_space(c) || is_sign(c)).unwrap_or(rest.len());
                (Token::Word(&rest[..end]), end)
            }
        };
        tokens.push(token);
        rest = &rest[bytes..];
    }
}

struct Parser<'a> {
    /// The last one is [`Token::End`].
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut absent = false;
        let key = match self.next() {
            Token::Not => {
                absent = true;
                self.next()
            }
            token => token,
        };
        let Token::Word(key) = key else {
            return Err(format!("found '{}', expected: identifier", key.text()));
        };
        let wrong = names::is_qualified_name(key);
        if !wrong.is_empty() {
            // Upstream has no path here and says so.
            let error = FieldError::invalid("<nil>", key.into(), wrong.join("; "));
            return Err(error.to_string());
        }
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = match self.next() {
            Token::Sign(operator, _) => operator,
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            other => {
                let other = other.text();
                return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        values.sort();
        values.dedup();
        Requirement::new(key, operator, values)
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => Ok(value.to_string()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// `(a, b)`; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        match self.peek() {
            Token::Word(_) | Token::Comma => {}
            Token::Close => {
                self.next();
                return Ok(vec![String::new()]);
            }
            other => {
                let other = other.text();
                return Err(format!("found '{other}', expected: ',', ')' or identifier"));
            }
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.push(value.to_string());
                    match self.peek() {
                        Token::Comma => {}
                        Token::Close => {
                            self.next();
                            return Ok(values);
                        }
                        other => {
                            let other = other.text();
                            return Err(format!("found '{other}', expected: ',' or ')'"));
                        }
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.peek() {
                        Token::Close => {
                            self.next();
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => values.push(String::new()),
                        _ => {}
                    }
                }
                other => {
                    let other = other.text();
                    return Err(format!("found '{other}', expected: ',', or identifier"));
                }
            }
        }
    }
}
