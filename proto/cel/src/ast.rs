//! An expression as a tree. The parser makes it; the checker fills in what names mean.

use crate::{Type, functions::Function};

/// Where an expression begins: a byte of the source.
pub(crate) type Pos = u32;

#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) pos: Pos,
    /// Levels below this one, itself included.
    pub(crate) depth: u16,
    /// Set by the checker.
    pub(crate) ty: Type,
    pub(crate) kind: ExprKind,
}

#[derive(Debug)]
pub(crate) enum ExprKind {
    Literal(Literal),
    Ident {
        name: String,
        means: Means,
    },
    Select {
        operand: Box<Expr>,
        field: String,
        how: Access,
    },
    /// `a[b]`, `a[?b]`.
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    Call(Box<Call>),
    /// All of them; at least two.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// Condition, then, else.
    Ternary(Box<[Expr; 3]>),
    /// The flag: left out if the optional has no value.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    Object {
        name: String,
        fields: Vec<(String, Expr, bool)>,
    },
    Loop(Box<Loop>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Plain,
    /// `has(a.b)`.
    Test,
    /// `a.?b`.
    Optional,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(crate) enum Means {
    /// Not checked yet.
    Unknown,
    Variable,
    /// A variable of a macro: its place on the stack.
    Local(usize),
    /// The name of a type.
    TypeName(Type),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: String,
    /// The receiver first, if there is one.
    pub(crate) args: Vec<Expr>,
    pub(crate) member: bool,
    /// Set by the checker.
    pub(crate) to: Option<&'static Function>,
}

#[derive(Clone, Debug)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

/// A macro that binds names: over every element of `range`, or (`Bind`, `OptMap`) over one value.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) kind: LoopKind,
    pub(crate) range: Expr,
    /// The element; with two names the index or key.
    pub(crate) first: String,
    pub(crate) second: Option<String>,
    pub(crate) filter: Option<Expr>,
    pub(crate) body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    /// A map with new values.
    TransformMap,
    /// A map made of the entries the body gives.
    TransformEntry,
    OptMap,
    OptFlatMap,
    /// By the keys the body gives.
    SortBy,
}

impl LoopKind {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LoopKind::All => "all",
            LoopKind::Exists => "exists",
            LoopKind::ExistsOne => "exists_one",
            LoopKind::Map => "map",
            LoopKind::Filter => "filter",
            LoopKind::TransformMap => "transformMap",
            LoopKind::TransformEntry => "transformMapEntry",
            LoopKind::OptMap => "optMap",
            LoopKind::OptFlatMap => "optFlatMap",
            LoopKind::SortBy => "sortBy",
        }
    }
}

impl Expr {
    /// The expressions right below, in the order they are written.
    pub(crate) fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            ExprKind::Literal(_) | ExprKind::Ident { .. } => Vec::new(),
            ExprKind::Select { operand, .. } => vec![operand],
            ExprKind::Index { operand, index, .. } => vec![operand, index],
            ExprKind::Call(call) => call.args.iter_mut().collect(),
            ExprKind::And(all) | ExprKind::Or(all) => all.iter_mut().collect(),
            ExprKind::Ternary(all) => all.iter_mut().collect(),
            ExprKind::List(items) => items.iter_mut().map(|(item, _)| item).collect(),
            ExprKind::Map(entries) => {
                entries.iter_mut().flat_map(|(key, value, _)| [key, value]).collect()
            }
            ExprKind::Object { fields, .. } => {
                fields.iter_mut().map(|(_, value, _)| value).collect()
            }
            ExprKind::Loop(all) => {
                let all = &mut **all;
                let filter = all.filter.iter_mut();
                std::iter::once(&mut all.range).chain(filter).chain([&mut all.body]).collect()
            }
        }
    }

    /// As [`Expr::children_mut`].
    pub(crate) fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Literal(_) | ExprKind::Ident { .. } => Vec::new(),
            ExprKind::Select { operand, .. } => vec![operand],
            ExprKind::Index { operand, index, .. } => vec![operand, index],
            ExprKind::Call(call) => call.args.iter().collect(),
            ExprKind::And(all) | ExprKind::Or(all) => all.iter().collect(),
            ExprKind::Ternary(all) => all.iter().collect(),
            ExprKind::List(items) => items.iter().map(|(item, _)| item).collect(),
            ExprKind::Map(entries) => {
                entries.iter().flat_map(|(key, value, _)| [key, value]).collect()
            }
            ExprKind::Object { fields, .. } => fields.iter().map(|(_, value, _)| value).collect(),
            ExprKind::Loop(all) => {
                let filter = all.filter.iter();
                std::iter::once(&all.range).chain(filter).chain([&all.body]).collect()
            }
        }
    }
}
