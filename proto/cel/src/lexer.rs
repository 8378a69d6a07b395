//! Text into tokens, as cel-spec's lexis has them. Linear in the text.

use crate::{Error, ast::Pos};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    Int(i64),
    /// `9223372036854775808` and hex alike: only right behind a minus.
    IntMin,
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Longer before shorter.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "=", "+", "-", "*", "/", "%", "!", "?", ":", ".",
    ",", "(", ")", "[", "]", "{", "}",
];

pub(crate) fn tokens(source: &str) -> Result<Vec<(Pos, Token)>, Error> {
    let mut lexer = Lexer { source, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blank();
        let start = lexer.at as Pos;
        let token = lexer.next()?;
        let ends = token == Token::End;
        found.push((start, token));
        if ends {
            return Ok(found);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn error<T>(&self, at: usize, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::at(self.source, at as Pos, format!("Syntax error: {}", message.into())))
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let text = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
            self.at += rest.len() - text.len();
            if !self.rest().starts_with("//") {
                return;
            }
            let length = self.rest().find('\n').unwrap_or(self.rest().len());
            self.at += length;
        }
    }

    fn next(&mut self) -> Result<Token, Error> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        let digit_after_dot = first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || digit_after_dot {
            return self.number();
        }
        if let Some((raw, bytes, quote)) = string_start(rest) {
            return self.string(raw, bytes, quote);
        }
        if first == '_' || first.is_ascii_alphabetic() {
            let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
            let length = rest.find(|c: char| !word(c)).unwrap_or(rest.len());
            let name = rest[..length].to_string();
            self.at += length;
            return Ok(Token::Ident(name));
        }
        match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => self.error(self.at, format!("token recognition error at: '{first}'")),
        }
    }

    fn number(&mut self) -> Result<Token, Error> {
        let start = self.at;
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let length = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            let digits = hex[..length].to_string();
            self.at += 2 + length;
            return self.integer(start, &digits, 16);
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let mut length = digits(rest);
        let mut double = false;
        let after = &rest[length..];
        if after.starts_with('.') && after[1..].starts_with(|c: char| c.is_ascii_digit()) {
            double = true;
            length += 1 + digits(&after[1..]);
        }
        if rest[length..].starts_with(['e', 'E']) {
            let exponent = &rest[length + 1..];
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let count = digits(&exponent[sign..]);
            if count > 0 {
                double = true;
                length += 1 + sign + count;
            }
        }
        let text = rest[..length].to_string();
        self.at += length;
        if !double {
            return self.integer(start, &text, 10);
        }
        match text.parse::<f64>() {
            Ok(number) => Ok(Token::Double(number)),
            Err(_) => self.error(start, "invalid double literal"),
        }
    }

    fn integer(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, Error> {
        let number = u64::from_str_radix(digits, radix);
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            return number.map(Token::Uint).or_else(|_| self.error(start, "invalid uint literal"));
        }
        const MIN: u64 = i64::MIN.unsigned_abs();
        match number {
            Ok(MIN) => Ok(Token::IntMin),
            Ok(number) if number < MIN => Ok(Token::Int(number as i64)),
            _ => self.error(start, "invalid int literal"),
        }
    }

    fn string(&mut self, raw: bool, bytes: bool, quote: &'static str) -> Result<Token, Error> {
        let start = self.at;
        self.at += usize::from(raw) + usize::from(bytes) + quote.len();
        let mut text = Vec::new();
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else {
                let shown = &self.source[start..];
                return self.error(start, format!("token recognition error at: '{shown}'"));
            };
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            if quote.len() == 1 && (c == '\n' || c == '\r') {
                let shown = &self.source[start..self.at];
                return self.error(start, format!("token recognition error at: '{shown}'"));
            }
            if c == '\\' && !raw {
                self.escape(bytes, &mut text)?;
            } else if c == '\\' && rest[1..].starts_with(quote) && quote.len() == 1 {
                // Even raw, a backslash keeps the quote from ending the string.
                text.extend_from_slice(&rest.as_bytes()[..2]);
                self.at += 2;
            } else {
                self.at += c.len_utf8();
                text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if bytes {
            return Ok(Token::Bytes(text));
        }
        match String::from_utf8(text) {
            Ok(text) => Ok(Token::String(text)),
            Err(_) => self.error(start, "invalid UTF-8 in string literal"),
        }
    }

    fn escape(&mut self, bytes: bool, into: &mut Vec<u8>) -> Result<(), Error> {
        let start = self.at;
        let rest = &self.source[self.at + 1..];
        let Some(c) = rest.chars().next() else {
            return self.error(start, "unable to unescape string");
        };
        let simple = match c {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => Some(c as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            into.push(byte);
            self.at += 2;
            return Ok(());
        }
        let (skip, length, radix) = match c {
            'x' | 'X' => (1, 2, 16),
            'u' if !bytes => (1, 4, 16),
            'U' if !bytes => (1, 8, 16),
            '0'..='3' => (0, 3, 8),
            _ => return self.error(start, "unable to unescape string"),
        };
        let digits = rest.get(skip..skip + length).unwrap_or_default();
        let code = u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
        let Some(code) = code else {
            return self.error(start, "unable to unescape string");
        };
        if bytes {
            into.push(code as u8);
        } else {
            let Some(c) = char::from_u32(code) else {
                return self.error(start, "invalid unicode code point");
            };
            into.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.at += 1 + skip + length;
        Ok(())
    }
}

/// Raw, bytes, and the quotes of the string that begins here.
fn string_start(text: &str) -> Option<(bool, bool, &'static str)> {
    let (mut raw, mut bytes, mut rest) = (false, false, text);
    for _ in 0..2 {
        if !raw && rest.starts_with(['r', 'R']) {
            (raw, rest) = (true, &rest[1..]);
        } else if !bytes && rest.starts_with(['b', 'B']) {
            (bytes, rest) = (true, &rest[1..]);
        }
    }
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote))?;
    Some((raw, bytes, quote))
}
