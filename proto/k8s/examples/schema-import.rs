//! Writes the fact table of the built-in types from Kubernetes' Go sources: names, protobuf numbers,
//! tags and markers, never prose. A tool for developers; nothing builds or runs with it.
//!
//! The sources come from three Debian packages of one release, unpacked into one directory:
//! ```text
//! apt-get download golang-k8s-api-dev golang-k8s-apimachinery-dev golang-k8s-apiextensions-apiserver-dev
//! for package in *.deb; do dpkg-deb -x "$package" unpacked; done
//! cargo run -p k8s --example schema-import -- unpacked/usr/share/gocode/src \
//!     'golang-k8s-api-dev 0.36.4-1' > proto/k8s/data/kubernetes-1.36.ktab
//! ```
//! What follows the directory is written into the table's header. The format is described in
//! `src/schema.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const API: &str = "k8s.io/api";
const MACHINERY: &str = "k8s.io/apimachinery/pkg/";
const EXTENSIONS: &str = "k8s.io/apiextensions-apiserver/pkg/apis/";

/// Packages whose types are written to the table.
const WRITTEN: [&str; 4] = ["apis/meta/v1", "apis/meta/v1beta1", "v1", "v1beta1"];
/// Packages that are read because others use their types.
const READ: [&str; 4] = ["runtime", "util/intstr", "api/resource", "types"];

/// Types with a JSON form of their own, by package below [`MACHINERY`] and name.
const SPECIAL: [(&str, &str, &str); 8] = [
    ("apis/meta/v1", "Time", "Time"),
    ("apis/meta/v1", "MicroTime", "MicroTime"),
    ("apis/meta/v1", "Duration", "Duration"),
    ("apis/meta/v1", "FieldsV1", "FieldsV1"),
    ("util/intstr", "IntOrString", "IntOrString"),
    ("api/resource", "Quantity", "Quantity"),
    ("runtime", "RawExtension", "RawExtension"),
    ("runtime", "Object", "RawExtension"),
];
const SPECIAL_EXTENSIONS: [&str; 4] =
    ["JSON", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrStringArray"];

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("usage: schema-import DIRECTORY [HEADER LINE]...")?;
    let mut sources = Sources::default();
    for package in packages(Path::new(&root))? {
        for file in go_files(&Path::new(&root).join(&package))? {
            sources.read(&package, &std::fs::read_to_string(file)?);
        }
    }
    let table = sources.table()?;
    let mut output =
        String::from("# Facts of Kubernetes 1.36, written by examples/schema-import.rs.\n");
    for line in arguments {
        writeln!(output, "# {line}")?;
    }
    output.push_str(&table);
    use std::io::Write;
    std::io::stdout().write_all(output.as_bytes())?;
    Ok(())
}

/// Every package of the API, and those it uses.
fn packages(root: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(API)];
    while let Some(package) = open.pop() {
        for entry in std::fs::read_dir(root.join(&package))? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() && name != "testdata" {
                open.push(package.join(name));
            } else if name == "types.go" {
                found.push(package.to_string_lossy().into_owned());
            }
        }
    }
    let machinery = WRITTEN[..2].iter().chain(&READ);
    found.extend(machinery.map(|package| format!("{MACHINERY}{package}")));
    found.extend(WRITTEN[2..].iter().map(|version| format!("{EXTENSIONS}apiextensions/{version}")));
    found.sort();
    Ok(found)
}

fn go_files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let skipped = name.ends_with("_test.go")
            || name.starts_with("zz_")
            || name.contains("generated")
            || name.contains("swagger");
        if name.ends_with(".go") && !skipped {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `package.Name`
type FullName = (String, String);

#[derive(Default)]
struct Sources {
    types: BTreeMap<FullName, Definition>,
    /// Strings, by name of the constant.
    constants: BTreeMap<FullName, String>,
    /// Values of the constants of a type, by name of the type.
    values: BTreeMap<FullName, BTreeSet<String>>,
}

struct Definition {
    kind: Kind,
    markers: Vec<String>,
    /// Import path by the name it has in the file.
    imports: BTreeMap<String, String>,
    package: String,
}

enum Kind {
    Struct(Vec<GoField>),
    /// The type it stands for.
    Named(String),
}

struct GoField {
    name: String,
    ty: String,
    embedded: bool,
    tags: BTreeMap<String, String>,
    markers: Vec<String>,
}

impl Sources {
    /// Reads one file.
    fn read(&mut self, package: &str, source: &str) {
        let imports = imports(source);
        let lines: Vec<&str> = source.lines().collect();
        let mut comments: Vec<&str> = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            at += 1;
            if let Some(comment) = line.strip_prefix("//") {
                comments.push(comment);
                continue;
            }
            if let Some((name, kind)) = read_type(line, &lines, &mut at) {
                let markers = markers(&comments);
                comments.clear();
                let (imports, package_name) = (imports.clone(), package.to_string());
                let definition = Definition { kind, markers, imports, package: package_name };
                self.types.insert((package.to_string(), name), definition);
                continue;
            }
            if let Some((name, ty, value)) = read_constant(line) {
                let values = self.values.entry((package.to_string(), ty)).or_default();
                values.insert(value.clone());
                self.constants.insert((package.to_string(), name), value);
            }
            // A comment may be split by empty lines before what it is about.
            let goes_on = lines
                .get(at)
                .is_some_and(|next| next.starts_with("//") || next.starts_with("type"));
            if !(line.trim().is_empty() && goes_on) {
                comments.clear();
            }
        }
    }

    fn table(&self) -> Result<String, Error> {
        let mut table = String::new();
        for ((package, name), definition) in &self.types {
            let Kind::Struct(fields) = &definition.kind else { continue };
            if !is_written(package) || self.special(package, name).is_some() {
                continue;
            }
            table.push_str(&short(package, name));
            if fields.iter().any(|field| is_type_meta(&field.ty)) {
                table.push_str(" T");
            }
            if let Some(kind) = marker(&definition.markers, "structType") {
                write!(table, " S={kind}")?;
            }
            table.push('\n');
            for field in fields.iter().filter(|field| !is_type_meta(&field.ty)) {
                let row = self
                    .row(definition, field)
                    .map_err(|why| format!("{package}.{name}.{}: {why}", field.name))?;
                table.push_str(&row.unwrap_or_default());
            }
        }
        Ok(table)
    }

    /// The line of a field; `None` if it has no JSON form.
    fn row(&self, owner: &Definition, field: &GoField) -> Result<Option<String>, Error> {
        let Some(json) = field.tags.get("json").filter(|json| json.split(',').next() != Some("-"))
        else {
            return Ok(None);
        };
        let mut options = json.split(',');
        let name = options.next().filter(|name| !name.is_empty());
        let options: Vec<&str> = options.collect();
        let protobuf = field.tags.get("protobuf").filter(|tag| *tag != "-");
        let number = protobuf.and_then(|tag| tag.split(',').nth(1)).unwrap_or("0");
        let ty = self.resolve(&field.ty, owner)?;
        let inline = options.contains(&"inline") || (field.embedded && name.is_none());
        let has =
            |markers: &[&str]| markers.iter().any(|name| marker(&field.markers, name).is_some());
        let flags: String = [
            (ty.pointer, '*'),
            (options.contains(&"omitempty"), '?'),
            (options.contains(&"omitzero"), 'z'),
            (inline, '<'),
            (has(&["optional", "k8s:optional"]), 'o'),
            (has(&["required", "k8s:required"]), 'r'),
        ]
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .collect();
        let mut row = format!("  {} {number} {}{}", name.unwrap_or("-"), ty.shape, ty.element);
        if !flags.is_empty() {
            write!(row, " {flags}")?;
        }
        self.write_attributes(&mut row, owner, field, &ty)?;
        row.push('\n');
        Ok(Some(row))
    }

    fn write_attributes(
        &self,
        row: &mut String,
        owner: &Definition,
        field: &GoField,
        ty: &Resolved,
    ) -> Result<(), Error> {
        for (letter, name) in
            [("L", "listType"), ("K", "listMapKey"), ("M", "mapType"), ("S", "structType")]
        {
            let values = all_markers(&field.markers, name);
            if !values.is_empty() {
                write!(row, " {letter}={}", values.join("+"))?;
            }
        }
        if let Some(default) = marker(&field.markers, "default") {
            write!(row, " D={}", self.default_value(default, owner)?)?;
        }
        for (letter, tag) in [("P", "patchStrategy"), ("k", "patchMergeKey")] {
            if let Some(value) = field.tags.get(tag) {
                write!(row, " {letter}={value}")?;
            }
        }
        if let Some(values) = &ty.values {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let values = values.join("|");
            let quote = if values.contains(' ') { "\"" } else { "" };
            write!(row, " E={quote}{values}{quote}")?;
        }
        let is_message = field.tags.get("protobuf").is_some_and(|tag| tag.contains(",opt"));
        if let Some(list) = ty.named_list.as_ref().filter(|_| is_message && ty.element != "B") {
            write!(row, " N={list}")?;
        }
        if let Some(name) = &ty.go_element {
            write!(row, " g={name}")?;
        }
        if let Some(name) = &ty.go_whole {
            write!(row, " G={name}")?;
        }
        Ok(())
    }

    /// JSON; a reference to a constant becomes its value.
    fn default_value(&self, text: &str, owner: &Definition) -> Result<String, Error> {
        let Some(name) = text.strip_prefix("ref(").and_then(|text| text.strip_suffix(')')) else {
            return Ok(text.to_string());
        };
        let key = (owner.package.clone(), name.to_string());
        let value = self.constants.get(&key).ok_or_else(|| format!("no constant {name}"))?;
        Ok(serde_json::to_string(value)?)
    }

    fn special(&self, package: &str, name: &str) -> Option<&'static str> {
        let machinery = package.strip_prefix(MACHINERY);
        if let Some((.., special)) = SPECIAL
            .iter()
            .find(|(in_package, special, _)| machinery == Some(in_package) && *special == name)
        {
            return Some(special);
        }
        let extension = package.starts_with(EXTENSIONS);
        SPECIAL_EXTENSIONS.into_iter().find(|special| extension && *special == name)
    }

    /// What a Go type is in the table.
    fn resolve(&self, text: &str, owner: &Definition) -> Result<Resolved, Error> {
        if let Some(text) = text.strip_prefix('*') {
            return Ok(Resolved { pointer: true, ..self.resolve(text, owner)? });
        }
        if text == "[]byte" {
            return Ok(Resolved::scalar("B"));
        }
        if let Some(text) = text.strip_prefix("[]") {
            let entry = self.resolve(text, owner)?;
            if !entry.shape.is_empty() {
                return Err("a list of lists or maps".into());
            }
            return Ok(Resolved { pointer: false, shape: "[]", ..entry });
        }
        if let Some((_, text)) = text.strip_prefix("map[").and_then(|text| text.split_once(']')) {
            let entry = self.resolve(text, owner)?;
            let element = match (&entry.named_list, entry.shape) {
                (Some(list), _) => format!("@list:{list}"),
                (None, "") => entry.element,
                (None, _) => return Err("a map of lists or maps without a name".into()),
            };
            let go_element = entry.go_whole.or(entry.go_element);
            return Ok(Resolved { shape: "{}", element, go_element, ..Resolved::default() });
        }
        if let Some(letter) = scalar(text) {
            return Ok(Resolved::scalar(letter));
        }
        let (package, name) = match text.split_once('.') {
            Some((alias, name)) => {
                (owner.imports.get(alias).cloned().unwrap_or_else(|| alias.to_string()), name)
            }
            None => (owner.package.clone(), text),
        };
        self.resolve_named(package, name)
    }

    fn resolve_named(&self, package: String, name: &str) -> Result<Resolved, Error> {
        if let Some(special) = self.special(&package, name) {
            return Ok(Resolved::scalar(&format!("@{special}")));
        }
        let key = (package, name.to_string());
        let definition =
            self.types.get(&key).ok_or_else(|| format!("no type {}.{}", key.0, key.1))?;
        let Kind::Named(to) = &definition.kind else {
            return Ok(Resolved::scalar(&short(&key.0, name)));
        };
        let resolved = self.resolve(to, definition)?;
        let last = key.0.rsplit('/').next().unwrap_or_default();
        let go_name = Some(format!("{last}.{name}"));
        if resolved.shape == "[]" {
            let named_list = Some(short(&key.0, name));
            return Ok(Resolved { named_list, go_whole: go_name, ..resolved });
        }
        if resolved.shape == "{}" {
            return Ok(Resolved { go_whole: go_name, ..resolved });
        }
        let is_enum = definition.markers.iter().any(|marker| marker.starts_with("enum"));
        let values = self.values.get(&key).filter(|_| is_enum && resolved.element == "s").cloned();
        let go_element = if resolved.element.len() == 1 { go_name } else { resolved.go_element };
        Ok(Resolved { values, go_element, ..resolved })
    }
}

/// A Go type in the terms of the table.
#[derive(Default)]
struct Resolved {
    pointer: bool,
    shape: &'static str,
    element: String,
    /// The name of a slice type.
    named_list: Option<String>,
    /// The values of a string type that is an enum.
    values: Option<BTreeSet<String>>,
    /// `v1.Protocol`: what Go calls the scalar.
    go_element: Option<String>,
    /// `v1.ResourceList`: what Go calls the list or map.
    go_whole: Option<String>,
}

impl Resolved {
    fn scalar(element: &str) -> Resolved {
        Resolved { element: element.to_string(), ..Resolved::default() }
    }
}

fn scalar(name: &str) -> Option<&'static str> {
    Some(match name {
        "string" => "s",
        "bool" => "b",
        "int32" => "i",
        "int64" | "int" => "l",
        "float64" => "f",
        "interface{}" | "any" => "@Any",
        _ => return None,
    })
}

fn is_type_meta(ty: &str) -> bool {
    ty.ends_with("TypeMeta")
}

fn is_written(package: &str) -> bool {
    package.starts_with("k8s.io/api/")
        || package.starts_with(EXTENSIONS)
        || package.starts_with(&format!("{MACHINERY}apis/meta/"))
}

/// `core.v1.Pod`
fn short(package: &str, name: &str) -> String {
    let package = package.strip_prefix("k8s.io/api/").unwrap_or(package);
    let package = package.strip_prefix(EXTENSIONS).unwrap_or(package);
    let package = package.strip_prefix(MACHINERY).unwrap_or(package);
    let package = package.strip_prefix("apis/").unwrap_or(package);
    format!("{}.{name}", package.replace('/', "."))
}

fn imports(source: &str) -> BTreeMap<String, String> {
    let mut imports = BTreeMap::new();
    for line in source.lines() {
        let line = line.trim();
        let line = line.strip_prefix("import ").unwrap_or(line).trim();
        let Some(quote) = line.find('"').filter(|_| line.ends_with('"') && line.len() > 2) else {
            continue;
        };
        let (alias, path) = (line[..quote].trim(), line[quote..].trim_matches('"'));
        let is_name = alias.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.');
        if !is_name || path.contains(['"', ' ', '=']) {
            continue;
        }
        let alias = match alias {
            "" => path.rsplit('/').next().unwrap_or_default(),
            alias => alias,
        };
        imports.insert(alias.to_string(), path.to_string());
    }
    imports
}

/// `type Name struct {` and its fields, or `type Name Other`.
fn read_type(line: &str, lines: &[&str], at: &mut usize) -> Option<(String, Kind)> {
    let (name, rest) = line.strip_prefix("type ")?.split_once(' ')?;
    let rest = rest.split("//").next().unwrap_or_default().trim();
    if let Some(body) = rest.strip_prefix("struct").map(str::trim) {
        let mut fields = Vec::new();
        if body == "{" {
            let mut comments: Vec<&str> = Vec::new();
            while let Some(line) = lines.get(*at).filter(|line| !line.starts_with('}')) {
                *at += 1;
                if let Some(comment) = line.trim().strip_prefix("//") {
                    comments.push(comment);
                } else if line.trim().starts_with("/*") {
                    while lines.get(*at - 1).is_some_and(|line| !line.contains("*/")) {
                        *at += 1;
                    }
                } else if !line.trim().is_empty() {
                    fields.push(read_field(line.trim(), &comments));
                    comments.clear();
                }
            }
        }
        return Some((name.to_string(), Kind::Struct(fields)));
    }
    let to = rest.strip_prefix('=').map_or(rest, str::trim);
    let plain = to.chars().all(|c| c.is_alphanumeric() || "[].*_".contains(c));
    (plain && !to.is_empty()).then(|| (name.to_string(), Kind::Named(to.to_string())))
}

fn read_field(line: &str, comments: &[&str]) -> GoField {
    let (declaration, tags) = match line.split_once('`') {
        Some((declaration, rest)) => (declaration, rest.split('`').next().unwrap_or_default()),
        None => (line.split("//").next().unwrap_or_default(), ""),
    };
    let (name, ty) = match declaration.trim().split_once(char::is_whitespace) {
        Some((name, ty)) => (name, Some(ty.trim())),
        None => (declaration.trim(), None),
    };
    let own_name = name.rsplit('.').next().unwrap_or_default().trim_start_matches('*');
    GoField {
        name: own_name.to_string(),
        ty: ty.unwrap_or(name).to_string(),
        embedded: ty.is_none(),
        tags: read_tags(tags),
        markers: markers(comments),
    }
}

/// `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"`
fn read_tags(text: &str) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once(":\"") {
        let Some((value, after)) = after.split_once('"') else { break };
        tags.insert(key.trim().to_string(), value.to_string());
        rest = after;
    }
    tags
}

/// `Name Type = "value"` of a block of constants.
fn read_constant(line: &str) -> Option<(String, String, String)> {
    let (left, right) = line.strip_prefix(char::is_whitespace)?.split_once('=')?;
    let mut words = left.split_whitespace();
    let (name, ty) = (words.next()?, words.next()?);
    let text = right.trim().strip_prefix('"')?;
    let value = text.split('"').next()?;
    words.next().is_none().then(|| (name.to_string(), ty.to_string(), value.to_string()))
}

fn markers(comments: &[&str]) -> Vec<String> {
    let lines = comments.iter().map(|comment| comment.trim());
    lines.filter_map(|line| line.strip_prefix('+')).map(String::from).collect()
}

/// The value of the first marker of this name; empty if it has none.
fn marker<'a>(markers: &'a [String], name: &str) -> Option<&'a str> {
    all_markers(markers, name).first().copied()
}

fn all_markers<'a>(markers: &'a [String], name: &str) -> Vec<&'a str> {
    let parts = markers.iter().map(|marker| marker.split_once('=').unwrap_or((marker, "")));
    parts.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = "k8s.io/apimachinery/pkg/apis/meta/v1";

    fn table(source: &str) -> String {
        let mut sources = Sources::default();
        sources.read(META, "type TypeMeta struct {\n}\n\ntype Time struct {\n}\n");
        sources.read("k8s.io/api/core/v1", source);
        match sources.table() {
            Ok(table) => table
                .lines()
                .filter(|line| *line != "meta.v1.TypeMeta")
                .fold(String::new(), |table, line| table + line + "\n"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn facts_are_taken_and_prose_is_left() {
        let source = r#"
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Protocol is described here.
// +enum
type Protocol string

const (
	// Prose.
	ProtocolTCP Protocol = "TCP"
	ProtocolUDP Protocol = "UDP"
)

type ResourceList map[string]string

// Port is described here.
// +structType=atomic
type Port struct {
	// Prose about the name.
	// +optional
	Name string `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"`

	// +default=ref(ProtocolTCP)
	// +required

	// More prose.
	Protocol *Protocol `json:"protocol" protobuf:"bytes,2,opt,name=protocol"` // trailing
}

// Thing is described here.
type Thing struct {
	metav1.TypeMeta `json:",inline"`
	/* A comment
	   of several lines. */
	Port  `json:",inline" protobuf:"bytes,3,opt,name=port"`
	// +listType=map
	// +listMapKey=name
	// +listMapKey=protocol
	Ports []Port `json:"ports,omitempty" patchStrategy:"merge" patchMergeKey:"name" protobuf:"bytes,4,rep,name=ports"`
	When  metav1.Time `json:"when,omitzero" protobuf:"bytes,5,opt,name=when"`
	Most  ResourceList `json:"most,omitempty" protobuf:"bytes,6,rep,name=most"`
	Data  map[string][]byte `json:"data,omitempty" protobuf:"bytes,7,rep,name=data"`
	None  string `json:"-" protobuf:"bytes,8,opt,name=none"`
	hidden int
}
"#;
        let wanted = "core.v1.Port S=atomic\n  \
             name 1 s ?o\n  \
             protocol 2 s *r D=\"TCP\" E=TCP|UDP g=v1.Protocol\n\
             core.v1.Thing T\n  \
             - 3 core.v1.Port <\n  \
             ports 4 []core.v1.Port ? L=map K=name+protocol P=merge k=name\n  \
             when 5 @Time z\n  \
             most 6 {}s ? G=v1.ResourceList\n  \
             data 7 {}B ?\n";
        assert_eq!(table(source), wanted);
    }

    #[test]
    fn lists_with_a_name_are_messages_of_their_own() {
        let source = "type Verbs []string\ntype A struct {\n\
             \tV Verbs `json:\"v\" protobuf:\"bytes,4,opt,name=v\"`\n\
             \tE map[string]Verbs `json:\"e\" protobuf:\"bytes,5,rep,name=e\"`\n}\n";
        let wanted = "core.v1.A\n  v 4 []s N=core.v1.Verbs G=v1.Verbs\n  \
             e 5 {}@list:core.v1.Verbs g=v1.Verbs\n";
        assert_eq!(table(source), wanted);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let source = "type A struct {\n\tB other.Missing `json:\"b\"`\n}\n";
        assert_eq!(table(source), "error: k8s.io/api/core/v1.A.B: no type other.Missing");
    }

    #[test]
    fn what_it_writes_is_a_schema() {
        let source =
            "type A struct {\n\tB string `json:\"b\" protobuf:\"bytes,1,opt,name=b\"`\n}\n";
        let schema = k8s::schema::Schema::parse(&[&table(source)]).unwrap();
        assert!(schema.named("core.v1.A").unwrap().field("b").is_some());
    }
}
