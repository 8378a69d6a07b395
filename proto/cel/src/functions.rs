//! The functions of Kubernetes' CEL: one list per library, each a name, its signatures and what it
//! does. Signatures are data: `string.(string) bool | (bytes) string`, a receiver before the dot.

pub(crate) mod authorizer;
pub(crate) mod convert;
pub(crate) mod formats;
pub(crate) mod formatting;
pub(crate) mod lists;
pub(crate) mod literals;
pub(crate) mod net;
pub(crate) mod operators;
pub(crate) mod optionals;
pub(crate) mod quantity;
pub(crate) mod regex;
pub(crate) mod semver;
pub(crate) mod sets;
pub(crate) mod strings;
pub(crate) mod time;
pub(crate) mod url;

use crate::{
    Kind, Type, Value,
    eval::{Cx, Evaluated},
};
use std::{collections::HashMap, sync::LazyLock};

/// What a function does; arguments are as its signatures say, or anything if they were `dyn`.
pub(crate) type Run = for<'a> fn(&mut Cx<'a, '_>, &[Value<'a>]) -> Evaluated<'a>;

/// Name, signatures, what it does.
pub(crate) type Declared = (&'static str, &'static str, Run);

pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) overloads: Vec<Overload>,
    pub(crate) run: Run,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub(crate) struct Overload {
    pub(crate) member: bool,
    pub(crate) params: Vec<Type>,
    pub(crate) result: Type,
    /// How many type parameters it has; they are numbered from 0.
    pub(crate) parameters: u32,
}

const LIBRARIES: &[&[Declared]] = &[
    authorizer::FUNCTIONS,
    convert::FUNCTIONS,
    formats::FUNCTIONS,
    lists::FUNCTIONS,
    net::FUNCTIONS,
    operators::FUNCTIONS,
    optionals::FUNCTIONS,
    quantity::FUNCTIONS,
    regex::FUNCTIONS,
    semver::FUNCTIONS,
    sets::FUNCTIONS,
    strings::FUNCTIONS,
    time::FUNCTIONS,
    url::FUNCTIONS,
];

static TABLE: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let all = LIBRARIES.iter().flat_map(|library| library.iter());
    all.map(|(name, signatures, run)| {
        let overloads = signatures.split(" | ").map(overload).collect();
        (*name, Function { name, overloads, run: *run })
    })
    .collect()
});

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    TABLE.get(name)
}

/// Types that only libraries make.
const OPAQUE: [&str; 11] = [
    "kubernetes.NamedFormat",
    "kubernetes.Quantity",
    "kubernetes.Semver",
    "kubernetes.URL",
    "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.Decision",
    "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.ResourceCheck",
    "net.CIDR",
    "net.IP",
];

pub(crate) fn opaque_type(name: &str) -> Option<Type> {
    let known = OPAQUE.iter().find(|known| **known == name)?;
    Some(Kind::Opaque(known).ty())
}

fn overload(signature: &str) -> Overload {
    let (params, result) = signature.rsplit_once(") ").expect("a signature (tested)");
    let (receiver, params) = params.split_once('(').expect("a signature (tested)");
    let receiver = receiver.strip_suffix('.');
    let mut all: Vec<Type> = receiver.map(read_type).into_iter().collect();
    all.extend(split_types(params).into_iter().map(read_type));
    let parameters = ["A", "B"].iter().filter(|name| signature_names(signature, name)).count();
    Overload {
        member: receiver.is_some(),
        params: all,
        result: read_type(result),
        parameters: parameters as u32,
    }
}

fn signature_names(signature: &str, parameter: &str) -> bool {
    signature.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == parameter)
}

/// `map<A,B>,A` are two.
fn split_types(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut all) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                all.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    all.extend(Some(&text[start..]).filter(|last| !last.is_empty()));
    all
}

fn read_type(text: &str) -> Type {
    let inside = text.split_once('<').map(|(name, rest)| (name, &rest[..rest.len() - 1]));
    match (inside, text) {
        (Some(("list", inner)), _) => Type::list(read_type(inner)),
        (Some(("optional", inner)), _) => Type::optional(read_type(inner)),
        (Some(("type", inner)), _) => Type::type_of(read_type(inner)),
        (Some(("map", inner)), _) => {
            let parts = split_types(inner);
            Type::map(read_type(parts[0]), read_type(parts[1]))
        }
        (_, "A") => Kind::Param(0).ty(),
        (_, "B") => Kind::Param(1).ty(),
        (_, "dyn") => Type::DYN,
        (_, "null") => Type::NULL,
        (_, "bool") => Type::BOOL,
        (_, "int") => Type::INT,
        (_, "uint") => Type::UINT,
        (_, "double") => Type::DOUBLE,
        (_, "string") => Type::STRING,
        (_, "bytes") => Type::BYTES,
        (_, "timestamp") => Type::TIMESTAMP,
        (_, "duration") => Type::DURATION,
        (_, name) => {
            let full = |prefix: &str| opaque_type(&format!("{prefix}{name}"));
            full("kubernetes.")
                .or_else(|| full("kubernetes.authorization."))
                .or_else(|| full("net."))
                .expect("a type (tested)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_read() {
        let names = LIBRARIES.iter().map(|library| library.len()).sum::<usize>();
        assert_eq!(TABLE.len(), names, "each name is declared once");
        let shown = |name: &str| {
            let overloads = &find(name).unwrap().overloads;
            let one = |overload: &Overload| {
                let params: Vec<String> = overload.params.iter().map(Type::to_string).collect();
                format!("{} -> {}", params.join(", "), overload.result)
            };
            overloads.iter().map(one).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(shown("@in"), "_var0, list(_var0) -> bool | _var0, map(_var0, _var1) -> bool");
        assert_eq!(shown("quantity"), "string -> kubernetes.Quantity");
    }
}
