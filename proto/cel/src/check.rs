//! The types of an expression: what names mean, which overloads of a function fit, and what comes out.
//! Messages are cel-go's.

use crate::{
    Env, Error, Kind, Type,
    ast::{Access, Call, Expr, ExprKind, Literal, Loop, LoopKind, Means, Pos},
    functions::{self, literals::Kept},
    parse::qualified,
    types::{Bindings, shifted},
};

/// More errors than this in one expression help nobody (cel-go's limit).
const ERRORS_MAX: usize = 100;

pub(crate) fn check(env: &Env, source: &str, root: &mut Expr) -> Result<Kept, Vec<Error>> {
    let mut checker = Checker {
        env,
        source,
        locals: Vec::new(),
        bindings: Bindings::default(),
        errors: Vec::new(),
    };
    checker.expr(root);
    if !checker.errors.is_empty() {
        checker.errors.sort_by_key(|error| (error.line, error.column));
        checker.errors.truncate(ERRORS_MAX);
        return Err(checker.errors);
    }
    settle(&checker.bindings, root);
    functions::literals::check(source, root)
}

struct Checker<'a> {
    env: &'a Env,
    source: &'a str,
    /// Of macros, innermost last.
    locals: Vec<(String, Type)>,
    bindings: Bindings,
    errors: Vec<Error>,
}

impl Checker<'_> {
    fn error(&mut self, pos: Pos, message: impl Into<String>) -> Type {
        self.errors.push(Error::at(self.source, pos, message));
        Type::ERROR
    }

    fn expr(&mut self, expr: &mut Expr) -> Type {
        let ty = self.infer(expr);
        expr.ty = ty.clone();
        ty
    }

    fn infer(&mut self, expr: &mut Expr) -> Type {
        let pos = expr.pos;
        if let ExprKind::Select { how: Access::Plain, .. } = &expr.kind
            && let Some(name) = qualified(expr)
            && let Some(ty) = self.env.variables.get(&name)
        {
            let ty = ty.clone();
            expr.kind = ExprKind::Ident { name, means: Means::Variable };
            return ty;
        }
        if let ExprKind::Select { how: Access::Plain, .. } = &expr.kind
            && let Some(name) = qualified(expr)
            && let Some(ty) = self.type_name(&name)
        {
            expr.kind = ExprKind::Ident { name, means: Means::TypeName(ty.clone()) };
            return Type::type_of(ty);
        }
        match &mut expr.kind {
            ExprKind::Literal(literal) => literal_type(literal),
            ExprKind::Ident { name, means } => self.ident(pos, name, means),
            ExprKind::Select { operand, field, how } => self.select(pos, operand, field, *how),
            ExprKind::Index { operand, index, optional } => {
                self.index(pos, operand, index, *optional)
            }
            ExprKind::Call(call) => self.call(pos, call),
            ExprKind::And(all) => self.logic(pos, "_&&_", all),
            ExprKind::Or(all) => self.logic(pos, "_||_", all),
            ExprKind::Ternary(all) => self.ternary(pos, all),
            ExprKind::List(items) => self.list(items),
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Object { name, fields } => self.object(pos, name, fields),
            ExprKind::Loop(all) => self.repeat(all),
        }
    }

    /// The type a name stands for, unless a variable of the same name hides it.
    fn type_name(&self, name: &str) -> Option<Type> {
        let root = name.split('.').next().unwrap_or(name);
        let hidden = self.locals.iter().any(|(local, _)| local == root)
            || self.env.variables.contains_key(root);
        if hidden { None } else { named_type(name) }
    }

    fn ident(&mut self, pos: Pos, name: &str, means: &mut Means) -> Type {
        if let Some(place) = self.locals.iter().rposition(|(local, _)| local == name) {
            *means = Means::Local(place);
            return self.locals[place].1.clone();
        }
        if let Some(ty) = self.env.variables.get(name) {
            *means = Means::Variable;
            return ty.clone();
        }
        if let Some(ty) = self.type_name(name) {
            *means = Means::TypeName(ty.clone());
            return Type::type_of(ty);
        }
        self.undeclared(pos, name)
    }

    fn undeclared(&mut self, pos: Pos, name: &str) -> Type {
        self.error(pos, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn select(&mut self, pos: Pos, operand: &mut Expr, field: &str, how: Access) -> Type {
        let of = self.expr(operand);
        let of = self.bindings.resolve(&of);
        let (of, optional) = match &of.kind {
            Kind::Optional(inner) => ((**inner).clone(), true),
            _ => (of, false),
        };
        let found = self.field(pos, &of, field);
        match how {
            Access::Test => Type::BOOL,
            Access::Plain if !optional => found,
            _ => Type::optional(found),
        }
    }

    fn field(&mut self, pos: Pos, of: &Type, field: &str) -> Type {
        match &of.kind {
            Kind::Dyn | Kind::Error => of.clone(),
            Kind::Param(_) => Type::DYN,
            Kind::Map(map) => map.1.clone(),
            Kind::Object(object) => match object.field(field) {
                Some(found) => found.ty.clone(),
                None if object.open => Type::DYN,
                None => self.error(pos, format!("undefined field '{field}'")),
            },
            _ => self.error(pos, format!("type '{of}' does not support field selection")),
        }
    }

    fn index(&mut self, pos: Pos, operand: &mut Expr, index: &mut Expr, optional: bool) -> Type {
        let of = self.expr(operand);
        let of = self.bindings.resolve(&of);
        let by = self.expr(index);
        let (inner, within) = match &of.kind {
            Kind::Optional(inner) => ((**inner).clone(), true),
            _ => (of.clone(), false),
        };
        let element = match &inner.kind {
            Kind::Dyn | Kind::Error | Kind::Param(_) => Some(Type::DYN),
            Kind::List(list) if self.bindings.assignable(&Type::INT, &by) => {
                Some(list.element.clone())
            }
            Kind::Map(map) if self.bindings.assignable(&map.0, &by) => Some(map.1.clone()),
            _ => None,
        };
        match element {
            Some(element) if within || optional => Type::optional(element),
            Some(element) => element,
            None => {
                let name = if optional { "_[?_]" } else { "_[_]" };
                self.no_overload(pos, name, &[of, by], false)
            }
        }
    }

    fn no_overload(&mut self, pos: Pos, name: &str, args: &[Type], member: bool) -> Type {
        let texts: Vec<String> =
            args.iter().map(|ty| self.bindings.settle(ty).to_string()).collect();
        let applied = match (member, texts.split_first()) {
            (true, Some((target, args))) => format!("{target}.({})", args.join(", ")),
            _ => format!("({})", texts.join(", ")),
        };
        let why = format!("found no matching overload for '{name}' applied to '{applied}'");
        self.error(pos, why)
    }

    fn call(&mut self, pos: Pos, call: &mut Call) -> Type {
        // `sets.contains(…)`: the receiver is part of the name.
        if call.member
            && let Some(target) = qualified(&call.args[0])
            && !self.locals.iter().any(|(local, _)| *local == target)
            && let Some(function) = functions::find(&format!("{target}.{}", call.function))
        {
            call.args.remove(0);
            (call.member, call.function) = (false, function.name.to_string());
        }
        let args: Vec<Type> = call.args.iter_mut().map(|arg| self.expr(arg)).collect();
        let Some(function) = functions::find(&call.function) else {
            return self.undeclared(pos, &call.function);
        };
        call.to = Some(function);
        self.overload(pos, function, &args, call.member)
    }

    /// The result of whichever overloads fit; if those differ, anything.
    fn overload(
        &mut self,
        pos: Pos,
        function: &functions::Function,
        args: &[Type],
        member: bool,
    ) -> Type {
        let fitting = |overload: &&functions::Overload| {
            overload.member == member && overload.params.len() == args.len()
        };
        let (mut first, mut result) = (None, None);
        for overload in function.overloads.iter().filter(fitting) {
            let mark = self.bindings.mark();
            let found = self.fit(overload, args);
            self.bindings.undo(mark);
            let Some(found) = found else { continue };
            result = Some(match result {
                None => {
                    first = Some(overload);
                    found
                }
                Some(one) if one == found => one,
                Some(_) => {
                    // Nothing may be concluded of the arguments.
                    first = None;
                    Type::DYN
                }
            });
        }
        match (result, first) {
            (_, Some(overload)) => self.fit(overload, args).unwrap_or(Type::ERROR),
            (Some(ty), None) => ty,
            (None, None) => self.no_overload(pos, function.name, args, member),
        }
    }

    fn fit(&mut self, overload: &functions::Overload, args: &[Type]) -> Option<Type> {
        let base = self.bindings.reserve(overload.parameters);
        for (to, from) in overload.params.iter().zip(args) {
            if !self.bindings.assignable(&shifted(to, base), from) {
                return None;
            }
        }
        Some(self.bindings.resolve(&shifted(&overload.result, base)))
    }

    fn logic(&mut self, pos: Pos, name: &str, all: &mut [Expr]) -> Type {
        let types: Vec<Type> = all.iter_mut().map(|one| self.expr(one)).collect();
        if types.iter().all(|ty| self.bindings.assignable(&Type::BOOL, ty)) {
            return Type::BOOL;
        }
        // Of more than two the first pair that does not fit is told.
        let bad = types.iter().position(|ty| !self.bindings.assignable(&Type::BOOL, ty));
        let at = bad.unwrap_or(0).max(1);
        self.no_overload(pos, name, &[types[at - 1].clone(), types[at].clone()], false)
    }

    fn ternary(&mut self, pos: Pos, all: &mut [Expr; 3]) -> Type {
        let types = all.each_mut().map(|one| self.expr(one));
        let [condition, then, otherwise] = &types;
        let fits = self.bindings.assignable(&Type::BOOL, condition);
        match fits.then(|| self.join(then, otherwise)).flatten() {
            Some(ty) => ty,
            None => self.no_overload(pos, "_?_:_", &types, false),
        }
    }

    /// A type both fit, if there is one.
    fn join(&mut self, a: &Type, b: &Type) -> Option<Type> {
        if self.bindings.assignable(a, b) {
            let (a, b) = (self.bindings.resolve(a), self.bindings.resolve(b));
            // The more open of both.
            return Some(if b.is_dyn() || matches!(a.kind, Kind::Null) { b } else { a });
        }
        None
    }

    fn list(&mut self, items: &mut [(Expr, bool)]) -> Type {
        let mut element: Option<Type> = None;
        for (item, optional) in items {
            let ty = self.expr(item);
            let ty = self.unwrapped(item.pos, ty, *optional);
            element = Some(self.alike(item.pos, element, ty));
        }
        let element = element.unwrap_or_else(|| self.bindings.fresh());
        Type::list(element)
    }

    fn map(&mut self, entries: &mut [(Expr, Expr, bool)]) -> Type {
        let (mut keys, mut values): (Option<Type>, Option<Type>) = (None, None);
        for (key, value, optional) in entries {
            let ty = self.expr(key);
            keys = Some(self.alike(key.pos, keys, ty));
            let ty = self.expr(value);
            let ty = self.unwrapped(value.pos, ty, *optional);
            values = Some(self.alike(value.pos, values, ty));
        }
        let key = keys.unwrap_or_else(|| self.bindings.fresh());
        let value = values.unwrap_or_else(|| self.bindings.fresh());
        Type::map(key, value)
    }

    /// Elements of a literal have one type (`HomogeneousAggregateLiterals`).
    fn alike(&mut self, pos: Pos, so_far: Option<Type>, next: Type) -> Type {
        let Some(known) = so_far else { return next };
        match self.join(&known, &next) {
            Some(ty) => ty,
            None => {
                let (known, next) = (self.bindings.settle(&known), self.bindings.settle(&next));
                self.error(pos, format!("expected type '{known}' but found '{next}'"))
            }
        }
    }

    /// What an entry `?x` puts in.
    fn unwrapped(&mut self, pos: Pos, ty: Type, optional: bool) -> Type {
        let ty = self.bindings.resolve(&ty);
        match (&ty.kind, optional) {
            (_, false) | (Kind::Dyn | Kind::Error, true) => ty,
            (Kind::Optional(inner), true) => (**inner).clone(),
            _ => self.error(pos, format!("expected type 'optional_type({ty})' but found '{ty}'")),
        }
    }

    fn object(&mut self, pos: Pos, name: &str, fields: &mut [(String, Expr, bool)]) -> Type {
        let ty = self.env.object(name);
        for (field, value, optional) in fields {
            let found = self.expr(value);
            let found = self.unwrapped(value.pos, found, *optional);
            let Some(Type { kind: Kind::Object(object), .. }) = &ty else { continue };
            let wanted = match object.field(field) {
                Some(field) => field.ty.clone(),
                None if object.open => Type::DYN,
                None => {
                    self.error(value.pos, format!("undefined field '{field}'"));
                    continue;
                }
            };
            if !self.bindings.assignable(&wanted, &found) {
                let found = self.bindings.settle(&found);
                let why = format!(
                    "expected type of field '{field}' is '{wanted}' but provided type is '{found}'"
                );
                self.error(value.pos, why);
            }
        }
        ty.unwrap_or_else(|| self.undeclared(pos, name))
    }

    fn repeat(&mut self, all: &mut Loop) -> Type {
        let range = self.expr(&mut all.range);
        let range = self.bindings.resolve(&range);
        let base = self.locals.len();
        let Some((key, element)) = self.elements(all, &range) else {
            return Type::ERROR;
        };
        match &all.second {
            Some(second) => {
                self.locals.push((all.first.clone(), key.clone()));
                self.locals.push((second.clone(), element.clone()));
            }
            None => self.locals.push((all.first.clone(), element.clone())),
        }
        if let Some(filter) = &mut all.filter {
            let ty = self.expr(filter);
            self.condition(filter.pos, all.kind, &ty);
        }
        let body = self.expr(&mut all.body);
        self.locals.truncate(base);
        match all.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => {
                self.condition(all.body.pos, all.kind, &body);
                Type::BOOL
            }
            LoopKind::Filter => {
                self.condition(all.body.pos, all.kind, &body);
                Type::list(element)
            }
            LoopKind::SortBy => Type::list(element),
            LoopKind::Map => Type::list(body),
            LoopKind::TransformMap => Type::map(key, body),
            LoopKind::TransformEntry => body,
            LoopKind::OptMap => Type::optional(body),
            LoopKind::OptFlatMap => body,
        }
    }

    fn condition(&mut self, pos: Pos, kind: LoopKind, ty: &Type) {
        if self.bindings.assignable(&Type::BOOL, ty) {
            return;
        }
        // As the expanded macro fails.
        let types = match kind {
            LoopKind::All => ("_&&_", vec![Type::BOOL, ty.clone()]),
            LoopKind::Exists => ("_||_", vec![Type::BOOL, ty.clone()]),
            LoopKind::ExistsOne => ("_?_:_", vec![ty.clone(), Type::INT, Type::INT]),
            _ => {
                let list = Type::list(Type::DYN);
                ("_?_:_", vec![ty.clone(), list.clone(), list])
            }
        };
        self.no_overload(pos, types.0, &types.1, false);
    }

    /// What the names of a macro are bound to: index or key, and what one name alone is.
    fn elements(&mut self, all: &Loop, range: &Type) -> Option<(Type, Type)> {
        let optional = matches!(all.kind, LoopKind::OptMap | LoopKind::OptFlatMap);
        let pos = all.range.pos;
        match &range.kind {
            Kind::Dyn | Kind::Error | Kind::Param(_) => Some((Type::DYN, Type::DYN)),
            Kind::Optional(inner) if optional => Some((Type::DYN, (**inner).clone())),
            _ if optional => {
                self.no_overload(pos, all.kind.name(), std::slice::from_ref(range), true);
                None
            }
            Kind::List(list) => Some((Type::INT, list.element.clone())),
            Kind::Map(map) if all.kind != LoopKind::SortBy => {
                let element = if all.second.is_some() { &map.1 } else { &map.0 };
                Some((map.0.clone(), element.clone()))
            }
            _ => {
                let range = self.bindings.settle(range);
                let why = format!(
                    "expression of type '{range}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.error(pos, why);
                None
            }
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::NULL,
        Literal::Bool(_) => Type::BOOL,
        Literal::Int(_) => Type::INT,
        Literal::Uint(_) => Type::UINT,
        Literal::Double(_) => Type::DOUBLE,
        Literal::String(_) => Type::STRING,
        Literal::Bytes(_) => Type::BYTES,
    }
}

/// Types that have a name an expression may compare with (`type(x) == string`).
fn named_type(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::BOOL,
        "int" => Type::INT,
        "uint" => Type::UINT,
        "double" => Type::DOUBLE,
        "string" => Type::STRING,
        "bytes" => Type::BYTES,
        "null_type" => Type::NULL,
        "dyn" => Type::DYN,
        "list" => Type::list(Type::DYN),
        "map" => Type::map(Type::DYN, Type::DYN),
        "type" => Type::type_of(Type::DYN),
        "optional_type" => Type::optional(Type::DYN),
        "google.protobuf.Timestamp" => Type::TIMESTAMP,
        "google.protobuf.Duration" => Type::DURATION,
        _ => functions::opaque_type(name)?,
    })
}

fn settle(bindings: &Bindings, expr: &mut Expr) {
    expr.ty = bindings.settle(&expr.ty);
    for child in expr.children_mut() {
        settle(bindings, child);
    }
}
