//! What the expressions of policies and match conditions may name, and how they are compiled.

use kcel::{Env, Field, Kind, ObjectType, Program, Type};
use std::sync::{Arc, LazyLock};

/// What is wrong with an expression stays with it: the failure policy decides, request by request.
pub(crate) type Compiled = Result<Program, String>;

/// Levels of a type that are known of a variable; what is within is dynamic. Each variable may hold the
/// one before, and whoever walks a type needs stack for each level.
const TYPE_LEVELS_MAX: usize = 32;

/// Which optional variables there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) params: bool,
    pub(crate) authorizer: bool,
    /// `Object{…}` and `JSONPatch{…}` may be made.
    pub(crate) patches: bool,
    /// Those declared before, with their types.
    pub(crate) variables: Vec<(String, Type)>,
    /// The type of `object` and `oldObject`, where it is known.
    pub(crate) object: Option<Type>,
    pub(crate) param: Option<Type>,
}

static BASE: LazyLock<Env> = LazyLock::new(|| {
    Env::kubernetes()
        .var("object", Type::DYN)
        .var("oldObject", Type::DYN)
        .var("request", request_type())
        .var("namespaceObject", namespace_type())
});

/// The type of `namespaceObject`, by which it is read too.
pub(super) static NAMESPACE: LazyLock<Type> = LazyLock::new(namespace_type);

impl Scope {
    pub(crate) fn env(&self) -> Env {
        let mut env = BASE.clone().var("variables", variables_type(&self.variables));
        if let Some(object) = &self.object {
            env = env.var("object", object.clone()).var("oldObject", object.clone());
        }
        if self.params {
            env = env.var("params", self.param.clone().unwrap_or(Type::DYN));
        }
        if self.authorizer {
            env = env
                .var("authorizer", Type::AUTHORIZER)
                .var("authorizer.requestResource", Type::RESOURCE_CHECK);
        }
        if self.patches {
            env = env.makes("Object", Type::open_object("Object")).makes("JSONPatch", patch_type());
        }
        env
    }

    /// Compiles an expression that must give one of `wanted` (nothing: anything).
    pub(crate) fn compile(&self, source: &str, wanted: &[Type]) -> Compiled {
        let program = Program::compile(&self.env(), source)
            .map_err(|errors| format!("compilation failed: {}", kcel::report(&errors)))?;
        let found = program.output();
        if wanted.is_empty() || wanted.contains(found) {
            return Ok(program);
        }
        let names: Vec<String> = wanted.iter().map(name).collect();
        Err(match &names[..] {
            [one] => format!("must evaluate to {one} but got {}", name(found)),
            _ => format!("must evaluate to one of [{}] but got {}", names.join(" "), name(found)),
        })
    }

    /// What is wrong with an expression, whatever it gives.
    pub(crate) fn problem(&self, source: &str) -> Option<String> {
        Program::compile(&self.env(), source).err().map(|errors| kcel::report(&errors))
    }

    /// Declares a variable for the expressions that follow.
    pub(crate) fn declare(&mut self, name: &str, compiled: &Compiled) {
        let ty = compiled.as_ref().map_or(Type::DYN, |program| program.output().clone());
        let ty = if ty.levels() > TYPE_LEVELS_MAX { Type::DYN } else { ty };
        self.variables.push((name.to_string(), ty));
    }
}

/// As `cel.Type.String` has it.
fn name(ty: &Type) -> String {
    match ty.kind {
        Kind::Null => "null_type".into(),
        Kind::Timestamp => "google.protobuf.Timestamp".into(),
        Kind::Duration => "google.protobuf.Duration".into(),
        _ => ty.to_string(),
    }
}

fn variables_type(variables: &[(String, Type)]) -> Type {
    let field = |(name, ty): &(String, Type)| {
        (name.clone(), Field { json: name.as_str().into(), ty: ty.clone() })
    };
    let object = ObjectType {
        name: "kubernetes.variables".into(),
        fields: variables.iter().map(field).collect(),
        open: false,
    };
    Kind::Object(Arc::new(object)).ty()
}

/// `JSONPatch{op: "add", path: "/a", value: 1}`.
pub(super) fn patch_type() -> Type {
    let fields = [
        ("op", Type::STRING),
        ("path", Type::STRING),
        ("from", Type::STRING),
        ("value", Type::DYN),
    ];
    Type::object("JSONPatch", fields)
}

/// `admission.k8s.io/v1 AdmissionRequest` without the objects.
fn request_type() -> Type {
    let three = |name: &str, third: &'static str| {
        let fields = ["group", "version", third].map(|field| (field, Type::STRING));
        Type::object(name, fields)
    };
    let kind = three("kubernetes.GroupVersionKind", "kind");
    let resource = three("kubernetes.GroupVersionResource", "resource");
    let texts = || Type::list(Type::STRING);
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::STRING),
            ("uid", Type::STRING),
            ("groups", texts()),
            ("extra", Type::map(Type::STRING, texts())),
        ],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Type::STRING),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Type::STRING),
            ("name", Type::STRING),
            ("namespace", Type::STRING),
            ("operation", Type::STRING),
            ("userInfo", user),
            ("dryRun", Type::BOOL),
            ("options", Type::DYN),
        ],
    )
}

/// A Namespace without what is nobody's business (managed fields, owners).
fn namespace_type() -> Type {
    let texts = || Type::map(Type::STRING, Type::STRING);
    let metadata = [
        ("name", Type::STRING),
        ("generateName", Type::STRING),
        ("namespace", Type::STRING),
        ("labels", texts()),
        ("annotations", texts()),
        ("UID", Type::STRING),
        ("creationTimestamp", Type::TIMESTAMP),
        ("deletionGracePeriodSeconds", Type::INT),
        ("deletionTimestamp", Type::TIMESTAMP),
        ("generation", Type::INT),
        ("resourceVersion", Type::STRING),
        ("finalizers", Type::list(Type::STRING)),
    ];
    let condition = [
        ("status", Type::STRING),
        ("type", Type::STRING),
        ("lastTransitionTime", Type::TIMESTAMP),
        ("message", Type::STRING),
        ("reason", Type::STRING),
    ];
    let condition = Type::object("kubernetes.NamespaceCondition", condition);
    let status = [("conditions", Type::list(condition)), ("phase", Type::STRING)];
    let spec = [("finalizers", Type::list(Type::STRING))];
    let fields = [
        ("metadata", Type::object("kubernetes.NamespaceMetadata", metadata)),
        ("spec", Type::object("kubernetes.NamespaceSpec", spec)),
        ("status", Type::object("kubernetes.NamespaceStatus", status)),
    ];
    Type::object("kubernetes.Namespace", fields)
}
