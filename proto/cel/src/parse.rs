//! Tokens into a tree, by recursive descent; macros become loops here. Bounded: a source of
//! [`SOURCE_BYTES_MAX`], a tree of [`DEPTH_MAX`] levels.

use crate::{
    DEPTH_MAX, Error, NESTING_MAX, SOURCE_BYTES_MAX, Type,
    ast::{Access, Call, Expr, ExprKind, Literal, Means, Pos},
    escape::RESERVED,
    lexer::{self, Token},
    macros,
};

pub(crate) fn parse(source: &str) -> Result<Expr, Error> {
    if source.len() > SOURCE_BYTES_MAX {
        let length = source.chars().count();
        let why = format!(
            "expression code point size exceeds limit: size: {length}, limit {SOURCE_BYTES_MAX}"
        );
        return Err(Error::at(source, 0, why));
    }
    let mut parser = Parser { source, tokens: lexer::tokens(source)?, at: 0, nesting: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

pub(crate) struct Parser<'a> {
    source: &'a str,
    tokens: Vec<(Pos, Token)>,
    at: usize,
    nesting: u16,
}

type Parsed = Result<Expr, Error>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].1
    }

    fn pos(&self) -> Pos {
        self.tokens[self.at].0
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].1.clone();
        // The last token is the end, which is never passed.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn sees(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    /// The place of the sign, if it is next.
    fn take(&mut self, sign: &str) -> Option<Pos> {
        let pos = self.pos();
        self.sees(sign).then(|| {
            self.advance();
            pos
        })
    }

    fn expect(&mut self, sign: &str) -> Result<Pos, Error> {
        self.take(sign).ok_or_else(|| self.unexpected(&format!("'{sign}'")))
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let start = self.pos() as usize;
        let end = self.tokens.get(self.at + 1).map_or(self.source.len(), |next| next.0 as usize);
        let found = match self.peek() {
            Token::End => "<EOF>",
            _ => self.source[start..end].trim_end(),
        };
        let why = format!("Syntax error: mismatched input '{found}' expecting {wanted}");
        Error::at(self.source, self.pos(), why)
    }

    pub(crate) fn error<T>(&self, pos: Pos, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::at(self.source, pos, message))
    }

    /// A node over `below` levels.
    pub(crate) fn node(&self, pos: Pos, below: u16, kind: ExprKind) -> Parsed {
        if below >= DEPTH_MAX {
            return self.too_deep(pos);
        }
        Ok(Expr { pos, depth: below + 1, ty: Type::DYN, kind })
    }

    fn too_deep<T>(&self, pos: Pos) -> Result<T, Error> {
        self.error(pos, format!("expression recursion limit exceeded: {DEPTH_MAX}"))
    }

    fn call(&self, pos: Pos, function: &str, args: Vec<Expr>, member: bool) -> Parsed {
        let below = depth(&args);
        let call = Call { function: function.into(), args, member, to: None };
        self.node(pos, below, ExprKind::Call(Box::new(call)))
    }

    fn expr(&mut self) -> Parsed {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return self.too_deep(self.pos());
        }
        let condition = self.binary(0)?;
        let expr = match self.take("?") {
            None => condition,
            Some(pos) => {
                let then = self.binary(0)?;
                self.expect(":")?;
                let otherwise = self.expr()?;
                let all = [condition, then, otherwise];
                let below = depth(&all);
                self.node(pos, below, ExprKind::Ternary(Box::new(all)))?
            }
        };
        self.nesting -= 1;
        Ok(expr)
    }

    /// Operators that bind at least as tightly as `least`, by climbing: a level of parentheses costs
    /// few frames of the stack.
    fn binary(&mut self, least: u8) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let Some((level, function)) = operator(self.peek()).filter(|found| found.0 >= least)
            else {
                return Ok(left);
            };
            let pos = self.pos();
            self.advance();
            let right = self.binary(level + 1)?;
            left = match function {
                "||" => self.joined(pos, left, right, ExprKind::Or)?,
                "&&" => self.joined(pos, left, right, ExprKind::And)?,
                _ => self.call(pos, function, vec![left, right], false)?,
            };
        }
    }

    /// However many are joined make one node.
    fn joined(
        &self,
        pos: Pos,
        mut left: Expr,
        right: Expr,
        kind: fn(Vec<Expr>) -> ExprKind,
    ) -> Parsed {
        let same = std::mem::discriminant(&kind(Vec::new()));
        if std::mem::discriminant(&left.kind) == same
            && right.depth < DEPTH_MAX
            && let ExprKind::Or(all) | ExprKind::And(all) = &mut left.kind
        {
            left.depth = left.depth.max(right.depth + 1);
            all.push(right);
            return Ok(left);
        }
        self.node(pos, left.depth.max(right.depth), kind(vec![left, right]))
    }

    /// Pairs of signs undo each other.
    fn unary(&mut self) -> Parsed {
        let pos = self.pos();
        let sign = match self.peek() {
            Token::Sign(sign @ ("!" | "-")) => *sign,
            _ => return self.member(),
        };
        let mut count = 0;
        while self.sees(sign) {
            let before_number = sign == "-"
                && count % 2 == 0
                && matches!(
                    self.tokens[self.at + 1].1,
                    Token::Int(_) | Token::IntMin | Token::Double(_)
                );
            if before_number {
                break;
            }
            self.advance();
            count += 1;
        }
        let operand = self.member()?;
        match (count % 2, sign) {
            (0, _) => Ok(operand),
            (_, "!") => self.call(pos, "!_", vec![operand], false),
            _ => self.call(pos, "-_", vec![operand], false),
        }
    }

    fn member(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            let pos = self.pos();
            if self.take(".").is_some() {
                let optional = self.take("?").is_some();
                let field = self.selector()?;
                let open = self.pos();
                expr = if !optional && self.take("(").is_some() {
                    let args = self.list_until(")")?;
                    self.member_call(open, expr, &field, args)?
                } else {
                    let how = if optional { Access::Optional } else { Access::Plain };
                    let below = expr.depth;
                    let operand = Box::new(expr);
                    self.node(pos, below, ExprKind::Select { operand, field, how })?
                };
            } else if self.take("[").is_some() {
                let optional = self.take("?").is_some();
                let index = Box::new(self.expr()?);
                self.expect("]")?;
                let below = expr.depth.max(index.depth);
                let operand = Box::new(expr);
                expr = self.node(pos, below, ExprKind::Index { operand, index, optional })?;
            } else if self.sees("{") && qualified(&expr).is_some() {
                let name = qualified(&expr).unwrap_or_default();
                self.advance();
                expr = self.object(pos, name)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn selector(&mut self) -> Result<String, Error> {
        match self.peek() {
            Token::Ident(name) if !["in", "true", "false", "null"].contains(&name.as_str()) => {
                let name = name.clone();
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    fn member_call(&self, pos: Pos, target: Expr, function: &str, args: Vec<Expr>) -> Parsed {
        match macros::member(self, pos, target, function, args)? {
            Ok(expr) => Ok(expr),
            Err((target, args)) => {
                let args = std::iter::once(target).chain(args).collect();
                self.call(pos, function, args, true)
            }
        }
    }

    fn list_until(&mut self, close: &str) -> Result<Vec<Expr>, Error> {
        let mut all = Vec::new();
        if self.take(close).is_some() {
            return Ok(all);
        }
        loop {
            all.push(self.expr()?);
            if self.take(",").is_none() {
                self.expect(close)?;
                return Ok(all);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let pos = self.pos();
        match self.peek().clone() {
            Token::Sign("(") => {
                self.advance();
                let expr = self.expr()?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Sign("[") => {
                self.advance();
                self.list(pos)
            }
            Token::Sign("{") => {
                self.advance();
                self.map(pos)
            }
            Token::Sign(".") => {
                self.advance();
                self.ident()
            }
            Token::Ident(_) => self.ident(),
            _ => match self.literal() {
                Some(literal) => self.node(pos, 0, ExprKind::Literal(literal)),
                None => Err(self.unexpected(
                    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                     NUM_UINT, STRING, BYTES, IDENTIFIER}",
                )),
            },
        }
    }

    fn literal(&mut self) -> Option<Literal> {
        let negative = self.sees("-");
        let token = if negative { &self.tokens[self.at + 1].1 } else { self.peek() };
        let literal = match (token.clone(), negative) {
            (Token::Int(number), false) => Literal::Int(number),
            (Token::Int(number), true) => Literal::Int(-number),
            (Token::IntMin, true) => Literal::Int(i64::MIN),
            (Token::Double(number), false) => Literal::Double(number),
            (Token::Double(number), true) => Literal::Double(-number),
            (Token::Uint(number), false) => Literal::Uint(number),
            (Token::String(text), false) => Literal::String(text),
            (Token::Bytes(bytes), false) => Literal::Bytes(bytes),
            _ => return None,
        };
        if negative {
            self.advance();
        }
        self.advance();
        Some(literal)
    }

    fn ident(&mut self) -> Parsed {
        let pos = self.pos();
        let Token::Ident(name) = self.peek().clone() else {
            return Err(self.unexpected("IDENTIFIER"));
        };
        self.advance();
        let literal = match name.as_str() {
            "true" => Some(Literal::Bool(true)),
            "false" => Some(Literal::Bool(false)),
            "null" => Some(Literal::Null),
            _ => None,
        };
        if let Some(literal) = literal {
            return self.node(pos, 0, ExprKind::Literal(literal));
        }
        if RESERVED.contains(&name.as_str()) {
            return self.error(pos, format!("reserved identifier: {name}"));
        }
        let open = self.pos();
        if self.take("(").is_some() {
            let args = self.list_until(")")?;
            if name == "has" {
                return self.has(open, args);
            }
            return self.call(open, &name, args, false);
        }
        self.node(pos, 0, ExprKind::Ident { name, means: Means::Unknown })
    }

    fn has(&self, pos: Pos, mut args: Vec<Expr>) -> Parsed {
        let arg = if args.len() == 1 { args.pop() } else { None };
        match arg {
            Some(Expr {
                kind: ExprKind::Select { operand, field, how: Access::Plain }, ..
            }) => {
                let below = operand.depth;
                self.node(pos, below, ExprKind::Select { operand, field, how: Access::Test })
            }
            _ => self.error(pos, "invalid argument to has() macro"),
        }
    }

    fn list(&mut self, pos: Pos) -> Parsed {
        let mut all = Vec::new();
        while self.take("]").is_none() {
            let optional = self.take("?").is_some();
            all.push((self.expr()?, optional));
            if self.take(",").is_none() {
                self.expect("]")?;
                break;
            }
        }
        let below = all.iter().map(|(expr, _)| expr.depth).max().unwrap_or(0);
        self.node(pos, below, ExprKind::List(all))
    }

    fn map(&mut self, pos: Pos) -> Parsed {
        let mut all = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            all.push((key, self.expr()?, optional));
            if self.take(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        let below = all.iter().map(|(key, value, _)| key.depth.max(value.depth)).max();
        self.node(pos, below.unwrap_or(0), ExprKind::Map(all))
    }

    fn object(&mut self, pos: Pos, name: String) -> Parsed {
        let mut fields = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let field = self.selector()?;
            self.expect(":")?;
            fields.push((field, self.expr()?, optional));
            if self.take(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        let below = fields.iter().map(|(_, value, _)| value.depth).max().unwrap_or(0);
        self.node(pos, below, ExprKind::Object { name, fields })
    }
}

/// Levels of the deepest.
pub(crate) fn depth(all: &[Expr]) -> u16 {
    all.iter().map(|expr| expr.depth).max().unwrap_or(0)
}

/// `a.b.c`, if it is names all the way.
pub(crate) fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        ExprKind::Ident { name, .. } => Some(name.clone()),
        ExprKind::Select { operand, field, how: Access::Plain } => {
            Some(format!("{}.{field}", qualified(operand)?))
        }
        _ => None,
    }
}

/// How tightly an operator binds, and the function it calls.
fn operator(token: &Token) -> Option<(u8, &'static str)> {
    Some(match token {
        Token::Sign("||") => (0, "||"),
        Token::Sign("&&") => (1, "&&"),
        Token::Sign("==") => (2, "_==_"),
        Token::Sign("!=") => (2, "_!=_"),
        Token::Sign("<") => (2, "_<_"),
        Token::Sign("<=") => (2, "_<=_"),
        Token::Sign(">") => (2, "_>_"),
        Token::Sign(">=") => (2, "_>=_"),
        Token::Ident(name) if name == "in" => (2, "@in"),
        Token::Sign("+") => (3, "_+_"),
        Token::Sign("-") => (3, "_-_"),
        Token::Sign("*") => (4, "_*_"),
        Token::Sign("/") => (4, "_/_"),
        Token::Sign("%") => (4, "_%_"),
        _ => return None,
    })
}
