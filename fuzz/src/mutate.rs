//! Inputs for the targets on stable: those of a corpus, changed a little, again and again, from a seed
//! that is printed when something breaks.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Runs a target on every input of its corpus and on `cases` changed ones. Panics with the input and
/// the seed when the target does; `HOSTILE_SEED` repeats that run, `HOSTILE_CASES` makes it longer.
pub(crate) fn run(name: &str, target: fn(&[u8]), corpus: &Path, cases: usize) {
    let corpus = inputs(&corpus.join(name));
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let number = |variable: &str| std::env::var(variable).ok()?.parse::<u64>().ok();
    let seed = number("HOSTILE_SEED").unwrap_or(1);
    let cases = number("HOSTILE_CASES").map_or(cases, |cases| cases as usize);
    let mut dice = Dice(seed ^ 0x9e37_79b9_7f4a_7c15);
    for input in &corpus {
        attempt(name, target, input, seed);
    }
    for _ in 0..cases {
        let mut input = corpus[dice.below(corpus.len())].clone();
        for _ in 0..=dice.below(4) {
            change(&mut input, &corpus, &mut dice);
        }
        attempt(name, target, &input, seed);
    }
}

fn attempt(name: &str, target: fn(&[u8]), input: &[u8], seed: u64) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{name}, seed {seed}: {:?}", String::from_utf8_lossy(input));
    }
}

fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<_> = files.map(|file| file.path()).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}

/// Numbers from a seed (Knuth's constants); good enough to choose what to break.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides.max(1)
    }
}

/// What parsers stumble over.
const TOKENS: &[&[u8]] = &[
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"-1",
    b"1e400",
    b"9223372036854775808",
    b"0.1",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"\n",
    b"\n\n",
    b": ",
    b"- ",
    b"&a [*a, *a]",
    b"!!binary ",
    b"$patch",
    b"~1",
    b"/-",
    b" in (",
    b"!=",
    b"Ki",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"k8s\0",
];

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    let end = (at + dice.below(16)).min(input.len());
    match dice.below(7) {
        0 if at < input.len() => input[at] ^= 1 << dice.below(8),
        1 => drop(input.drain(at..end)),
        2 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        3 => input.insert(at, dice.below(256) as u8),
        4 => {
            let other = &corpus[dice.below(corpus.len())];
            let from = dice.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        5 => drop(input.splice(at..end, TOKENS[dice.below(TOKENS.len())].iter().copied())),
        _ => drop(input.splice(at..at, TOKENS[dice.below(TOKENS.len())].iter().copied())),
    }
}
