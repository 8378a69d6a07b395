//! Properties of the code itself. Runs with `cargo test`, like everything else.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, process::Command};

/// Functions longer than this tell more than one story.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer, with their length: they may shrink, never grow, and none may join.
const LONGER: &[(&str, &str, usize)] = &[("raft-store/src/metrics.rs", "new", 88)];

/// Crates above this have files of more lines only by exception.
const FILE_LINES_MAX: usize = 900;

/// The table in ARCHITECTURE.md is the rule, `cargo metadata` is the fact.
#[test]
fn imports_match_the_architecture() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let table = text.lines().skip_while(|line| !line.starts_with("| crate | may import |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let local: BTreeSet<&str> = packages.iter().map(|package| str_of(&package["name"])).collect();
    let mut ruled = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, allowed] = cells[..] else { panic!("two cells: {row}") };
        let allowed: BTreeSet<&str> =
            allowed.split(',').map(str::trim).filter(|name| *name != "-").collect();
        let package = packages.iter().find(|package| package["name"] == name);
        let package = package.unwrap_or_else(|| panic!("ARCHITECTURE.md names no crate: {name}"));
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        // What a crate's own tests stand on is no import, except for the crate that is only tests.
        let counted = dependencies.filter(|one| name == "tests" || one["kind"] != "dev");
        let used: BTreeSet<&str> =
            counted.map(|one| str_of(&one["name"])).filter(|name| local.contains(name)).collect();
        assert_eq!(used, allowed, "crate {name}: imports differ from ARCHITECTURE.md");
        ruled.insert(name);
    }
    assert_eq!(ruled, local, "every crate has a line in ARCHITECTURE.md");
}

/// A file that its list does not name is silently dead: a kind that is not served, a controller that
/// does not run. A list is any module file; a word in it is `mod word;` or the word on a line.
#[test]
fn every_file_is_in_the_list_beside_it() {
    let mut dead = Vec::new();
    for file in sources() {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8");
        if is_root_of_crate(&file) {
            continue;
        }
        let folder = file.parent().expect("a folder");
        let (word, folder) = match stem {
            "mod" => {
                let name = folder.file_name().and_then(|name| name.to_str()).expect("UTF-8");
                (name, folder.parent().expect("a folder"))
            }
            _ => (stem, folder),
        };
        let file_name = format!("\"{stem}.rs\"");
        let by_path = || files_in(folder).iter().any(|other| read(other).contains(&file_name));
        if !lists(folder).iter().any(|list| names(&read(list), word)) && !by_path() {
            dead.push(relative(&file));
        }
    }
    assert!(dead.is_empty(), "files in no list: {dead:#?}");
}

#[test]
fn nothing_is_left_lying_about() {
    // Written apart, so that this file does not find itself.
    let left =
        [concat!("to", "do!("), concat!("db", "g!("), concat!("FIX", "ME"), concat!("XX", "X:")];
    let sleeping = concat!("thread::", "sleep(");
    let mut found = Vec::new();
    for file in sources() {
        let text = read(&file);
        let in_tests = is_test(&file);
        for (number, line) in text.lines().enumerate() {
            if left.iter().any(|left| line.contains(left)) || (in_tests && line.contains(sleeping))
            {
                found.push(format!("{}:{}: {}", relative(&file), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Both sides of a conflict, left in a text that no compiler reads.
#[test]
fn nothing_is_half_merged() {
    let beside =
        fs::read_dir(root()).expect("readable").map(|entry| entry.expect("readable").path());
    let beside = beside.filter(|path| path.extension().is_some_and(|found| found == "md"));
    let texts = beside.chain(files_below(&root().join("docs"), "md"));
    let marked = |file: &PathBuf| {
        let text = read(file);
        text.lines().any(|line| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> "))
    };
    let found: Vec<String> = texts.filter(marked).map(|file| relative(&file)).collect();
    assert!(found.is_empty(), "conflicts in {found:#?}");
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    let mut odd = Vec::new();
    for file in sources() {
        let text = read(&file);
        // Tests apart from their module begin where the module's own text ends.
        if !text.starts_with("//!") && !relative(&file).ends_with("tests.rs") {
            odd.push(format!("{} does not begin with a sentence (`//!`)", relative(&file)));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            odd.push(format!("{} has {lines} lines", relative(&file)));
        }
    }
    assert!(odd.is_empty(), "{odd:#?}");
}

#[test]
fn functions_stay_short() {
    let mut over = BTreeMap::new();
    for file in sources() {
        for (name, lines) in functions(&read(&file)) {
            if lines > FUNCTION_LINES_MAX {
                over.insert((relative(&file), name), lines);
            }
        }
    }
    over.retain(|(file, name), lines| {
        !LONGER.iter().any(|known| (known.0, known.1) == (file, name) && *lines <= known.2)
    });
    assert!(
        over.is_empty(),
        "longer than {FUNCTION_LINES_MAX} lines, or than LONGER says: {over:#?}"
    );
}

#[test]
fn the_measure_of_functions_measures() {
    let text = "\
impl A {
    fn short(&self) -> u8 {
        1
    }

    fn one_line() {}

    fn declared(&self);

    pub(crate) async fn long<T>(
        &self,
    ) -> u8
    where
        T: Send,
    {
        2
    }
}
fn outer() {
    fn inner() {
    }
}
";
    let found: Vec<(String, usize)> = functions(text);
    let found: Vec<(&str, usize)> = found.iter().map(|(name, lines)| (&**name, *lines)).collect();
    assert_eq!(found, [("short", 3), ("one_line", 1), ("long", 8), ("outer", 4), ("inner", 2)]);
}

/// Every flag of the command line stands in the documentation.
#[test]
fn every_flag_is_documented() {
    let mut documents = read(&root().join("README.md"));
    for file in files_below(&root().join("docs"), "md") {
        documents += &read(&file);
    }
    let mut missing = Vec::new();
    let verbs = files_below(&root().join("src/cli"), "rs").into_iter();
    // `coxswain machine` is only for `coxswain dev` to start; no user types it.
    for file in verbs.filter(|file| !file.ends_with("machine.rs")) {
        for flag in flags(&read(&file)) {
            if !documents.contains(&format!("--{flag}")) {
                missing.push(format!("{}: --{flag}", relative(&file)));
            }
        }
    }
    assert!(missing.is_empty(), "not in README.md or docs/: {missing:#?}");
}

/// Where `docs/operations.md` says that a test shows something, there is that test.
#[test]
fn tests_that_operators_are_told_of_are_there() {
    let there: BTreeSet<String> =
        sources().iter().flat_map(|file| functions(&read(file))).map(|(name, _)| name).collect();
    let text = read(&root().join("docs/operations.md"));
    let words = text.split('`').skip(1).step_by(2);
    // Names of tests are sentences; of other things, they are not, and metrics have their own beginnings.
    let sentence = |word: &&str| {
        !["coxswain_", "kubelet_"].iter().any(|metrics| word.starts_with(metrics))
            && word.matches('_').count() >= 3
            && word.chars().all(|c| c == '_' || c.is_ascii_lowercase())
    };
    let named: BTreeSet<&str> = words.filter(sentence).collect();
    assert!(named.len() > 10, "{named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !there.contains(**name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// The long flags of a file of clap structs: the field's name, or what `long = "…"` says.
fn flags(text: &str) -> Vec<String> {
    let mut flags = Vec::new();
    let mut pending = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[arg(") && line.contains("long") {
            pending = !line.contains("hide");
            if let Some((_, rest)) = line.split_once("long = \"") {
                flags.extend(rest.split('"').next().map(str::to_string));
                pending = false;
            }
        } else if pending && !line.starts_with("#[") && line.contains(':') {
            let name = line.split(':').next().unwrap_or_default();
            let name = name.rsplit(' ').next().unwrap_or_default();
            flags.push(name.replace('_', "-"));
            pending = false;
        }
    }
    flags
}

/// Name and number of lines of each function with a body, in a file that rustfmt has been over: a
/// body ends with a brace at the indentation of its `fn`.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let ends = |line: &&str| {
            line.len() > indent
                && line[..indent].trim().is_empty()
                && line[indent..].starts_with('}')
        };
        // A signature that ends without a body: the declaration in a trait.
        let signature = lines[start..].iter().position(|line| line.ends_with(['{', '}', ';']));
        let Some(head) = signature.map(|offset| start + offset) else { continue };
        if lines[head].ends_with(';') {
            continue;
        }
        let end = if lines[head].ends_with('}') {
            head
        } else {
            let rest = lines[head + 1..].iter().position(ends);
            rest.map_or(head, |offset| head + 1 + offset)
        };
        found.push((name.to_string(), end - start + 1));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let words = line.trim_start();
    let (before, after) = if let Some(rest) = words.strip_prefix("fn ") {
        ("", rest)
    } else {
        words.split_once(" fn ")?
    };
    let modifiers =
        ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern", "\"C\""];
    let plain = |word: &str| modifiers.contains(&word) || word.starts_with("pub(in");
    if !before.split_whitespace().all(plain) {
        return None;
    }
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&after[..end])
}

/// Files in which `folder`'s modules are named.
fn lists(folder: &Path) -> Vec<PathBuf> {
    if is_folder_of_roots(folder) {
        return files_in(folder);
    }
    let beside = folder.with_extension("rs");
    let inside = ["mod.rs", "lib.rs", "main.rs"].map(|name| folder.join(name));
    inside.into_iter().chain([beside]).filter(|path| path.exists()).collect()
}

fn names(list: &str, word: &str) -> bool {
    let lines = list.lines().map(str::trim);
    lines.clone().any(|line| {
        let line = line.split("//").next().unwrap_or_default().trim();
        let tail = line.strip_suffix(';').unwrap_or(line);
        tail == word
            || tail.strip_suffix(',') == Some(word)
            || tail.strip_suffix(&format!("mod {word}")).is_some()
            || line.split([' ', ',', ';']).next() == Some(word)
    })
}

fn is_root_of_crate(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    matches!(name, "lib.rs" | "main.rs" | "build.rs")
        || file.parent().is_some_and(is_folder_of_roots)
}

/// A folder in which Cargo itself finds every file.
fn is_folder_of_roots(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    let crate_folder = folder.parent().is_some_and(|parent| parent.join("Cargo.toml").exists());
    matches!(name, Some("tests" | "examples" | "benches")) && crate_folder
}

fn is_test(file: &Path) -> bool {
    let path = relative(file);
    path.starts_with("tests/") || path.contains("/tests/") || path.contains("tests.rs")
}

/// Every Rust file of the workspace.
fn sources() -> Vec<PathBuf> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let mut files = Vec::new();
    for manifest in packages.map(|package| Path::new(str_of(&package["manifest_path"]))) {
        let folder = manifest.parent().expect("a folder");
        for part in ["src", "tests", "examples", "benches"] {
            // The workspace's root is a package too; its `tests` folder is another package.
            if part == "src" || folder != root() {
                files.extend(files_below(&folder.join(part), "rs"));
            }
        }
    }
    files.sort();
    files.dedup();
    assert!(files.len() > 50, "the workspace has more than {} files", files.len());
    files
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let files = files_below(folder, "rs").into_iter();
    files.filter(|file| file.parent() == Some(folder)).collect()
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn str_of(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root")
}
