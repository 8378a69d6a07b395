//! The text Go's `encoding/json` has for a syntax error. Runs only on bodies already refused.

/// Nesting upstream allows.
const DEPTH_MAX: usize = 10_000;

/// What Go says is wrong with `body`; `None` if it finds nothing.
pub fn json_syntax_error(body: &[u8]) -> Option<String> {
    let mut scan = Scan { body, at: 0 };
    match scan.document() {
        Ok(()) => None,
        Err(None) => Some("unexpected end of JSON input".into()),
        Err(Some(text)) => Some(text),
    }
}

/// `Err(None)`: the input ended.
type Step<T> = Result<T, Option<String>>;

struct Scan<'a> {
    body: &'a [u8],
    at: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Object,
    Array,
}

impl Scan<'_> {
    fn document(&mut self) -> Step<()> {
        let mut nest: Vec<Inside> = Vec::new();
        loop {
            // A value begins here, unless a container ends at once.
            match self.next_token()? {
                b'{' => {
                    self.enter(&mut nest, Inside::Object)?;
                    if self.next_token()? == b'}' {
                        nest.pop();
                    } else {
                        self.at -= 1;
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.enter(&mut nest, Inside::Array)?;
                    if self.next_token()? == b']' {
                        nest.pop();
                    } else {
                        self.at -= 1;
                        continue;
                    }
                }
                byte => self.scalar(byte)?,
            }
            if self.after_value(&mut nest)? {
                return Ok(());
            }
        }
    }

    fn enter(&mut self, nest: &mut Vec<Inside>, inside: Inside) -> Step<()> {
        nest.push(inside);
        if nest.len() > DEPTH_MAX { Err(Some("exceeded max depth".into())) } else { Ok(()) }
    }

    /// True at the end of the document; false where another value begins.
    fn after_value(&mut self, nest: &mut Vec<Inside>) -> Step<bool> {
        loop {
            let Some(inside) = nest.last().copied() else {
                return match self.next_token() {
                    Err(None) => Ok(true),
                    Err(error) => Err(error),
                    Ok(byte) => self.invalid(byte, "after top-level value"),
                };
            };
            match (self.next_token()?, inside) {
                (b',', Inside::Object) => {
                    self.key()?;
                    return Ok(false);
                }
                (b',', Inside::Array) => return Ok(false),
                (b'}', Inside::Object) | (b']', Inside::Array) => {
                    nest.pop();
                }
                (byte, Inside::Object) => {
                    return self.invalid(byte, "after object key:value pair");
                }
                (byte, Inside::Array) => return self.invalid(byte, "after array element"),
            }
        }
    }

    fn key(&mut self) -> Step<()> {
        match self.next_token()? {
            b'"' => self.string()?,
            byte => return self.invalid(byte, "looking for beginning of object key string"),
        }
        match self.next_token()? {
            b':' => Ok(()),
            byte => self.invalid(byte, "after object key"),
        }
    }

    fn scalar(&mut self, first: u8) -> Step<()> {
        match first {
            b'"' => self.string(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'-' | b'0'..=b'9' => self.number(first),
            _ => self.invalid(first, "looking for beginning of value"),
        }
    }

    fn word(&mut self, word: &str) -> Step<()> {
        for wanted in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != wanted {
                let context = format!("in literal {word} (expecting {})", quoted(wanted));
                return self.invalid(byte, &context);
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Step<()> {
        let mut first = first;
        if first == b'-' {
            first = self.next()?;
            if !first.is_ascii_digit() {
                return self.invalid(first, "in numeric literal");
            }
        }
        if first != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Step<()> {
        let byte = self.next()?;
        if !byte.is_ascii_digit() {
            return self.invalid(byte, context);
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Step<()> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.next()?;
                            if !byte.is_ascii_hexdigit() {
                                return self.invalid(byte, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    byte => return self.invalid(byte, "in string escape code"),
                },
                byte if byte < b' ' => return self.invalid(byte, "in string literal"),
                _ => {}
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn next(&mut self) -> Step<u8> {
        let byte = self.peek().ok_or(None)?;
        self.at += 1;
        Ok(byte)
    }

    fn next_token(&mut self) -> Step<u8> {
        loop {
            match self.next()? {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                byte => return Ok(byte),
            }
        }
    }

    fn invalid<T>(&self, byte: u8, context: &str) -> Step<T> {
        Err(Some(format!("invalid character {} {context}", quoted(byte))))
    }
}

/// As Go quotes a byte: `'x'`.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => r"'\\'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        0x07 => r"'\a'".into(),
        0x08 => r"'\b'".into(),
        0x0b => r"'\v'".into(),
        0x0c => r"'\f'".into(),
        0x00..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_those_of_go() {
        let bodies = [
            "",
            "{",
            "x",
            "{x",
            r#"{"a""#,
            r#"{"a" 1"#,
            r#"{"a":1 "b""#,
            r#"{"a":1,}"#,
            "[1 2]",
            "[1,]",
            "{} x",
            "trux",
            "-x",
            "1.x",
            "1ex",
            "\"\n\"",
            r#""\x""#,
            r#""\u12x""#,
            "'",
        ];
        let texts: Vec<String> = bodies
            .iter()
            .map(|body| format!("{body:?}: {}", json_syntax_error(body.as_bytes()).unwrap()))
            .collect();
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let body = "[".repeat(DEPTH_MAX + 1);
        assert_eq!(json_syntax_error(body.as_bytes()).as_deref(), Some("exceeded max depth"));
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_parser(body in r#"[\[\]{}:,"a0-9.eE+\-tfn\\u ]{0,12}"#) {
            let refused = serde_json::from_str::<serde::de::IgnoredAny>(&body).is_err();
            let text = json_syntax_error(body.as_bytes());
            // A lone surrogate or a number out of range is no syntax error.
            prop_assert!(refused || text.is_none(), "{:?} {:?}", body, text);
            if text.is_none() && refused {
                prop_assert!(body.contains("\\u") || body.contains(['e', 'E']), "{:?}", body);
            }
        }
    }
}
