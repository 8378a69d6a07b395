use super::*;
use crate::Write;
use std::fmt::Write as _;

/// Runs every command of a script and compares what it prints; `UPDATE=1` rewrites the script.
fn check(path: &str) {
    let path = format!("{}/testdata/{path}", env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(&path).expect("the script");
    let mut machine = Machine { state: State::default(), term: Term(1), index: 0 };
    let mut actual = String::new();
    let mut lines = script.lines().peekable();
    while let Some(line) = lines.next() {
        writeln!(actual, "{line}").expect("a string");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        assert_eq!(lines.next(), Some("----"), "after {line:?} in {path}");
        while lines.next_if(|line| !line.is_empty()).is_some() {}
        write!(actual, "----\n{}", machine.run(line)).expect("a string");
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &actual).expect("the script");
    }
    assert!(script == actual, "{path} is not what happens now:\n{actual}");
}

struct Machine {
    state: State,
    term: Term,
    index: u64,
}

impl Machine {
    fn run(&mut self, line: &str) -> String {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "term" => {
                self.term = Term(number(rest));
                "ok\n".into()
            }
            "compact" => {
                self.apply(&Command::Compact(Revision(number(rest))));
                format!("floor {}\n", self.state.floor())
            }
            "sessions" => self.sessions(),
            "range" => self.range(rest),
            "txn" => self.txn(rest),
            other => panic!("unknown command {other}"),
        }
    }

    fn apply(&mut self, command: &Command) -> Applied {
        self.index += 1;
        self.state.apply(self.term, LogIndex(self.index), command)
    }

    fn txn(&mut self, rest: &str) -> String {
        let mut batch = Batch { session: Session(1), settled: 0, requests: Vec::new() };
        let (mut serial, mut txn) = (1_000 + self.index, Txn::default());
        for part in rest.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let mut words = Vec::new();
            for word in part.split(' ') {
                match word.split_once(':') {
                    Some(("fence", term)) => txn.fence = Some(Term(number(term))),
                    Some(("one", _)) => txn.one_revision = true,
                    Some(("session", id)) => batch.session = Session(number(id)),
                    Some(("serial", n)) => serial = number(n),
                    Some(("settled", n)) => batch.settled = number(n),
                    _ => words.push(word),
                }
            }
            txn.writes.push(write_of(&words));
        }
        batch.requests.push(Request { serial, txn });
        let applied = self.apply(&Command::Write(vec![batch]));
        self.describe(&applied)
    }

    fn describe(&self, applied: &Applied) -> String {
        let mut out = String::new();
        for (_, _, outcome) in &applied.outcomes {
            match self.state.answer(outcome) {
                Ok(done) => {
                    let each =
                        done.revisions.iter().map(|r| r.map_or("-".into(), |r| r.to_string()));
                    let each = each.collect::<Vec<_>>().join(" ");
                    writeln!(out, "done {} [{each}]", done.revision)
                }
                Err(Error::GuardFailed { write, current }) => {
                    let Outcome::GuardFailed { key_space, key_path, .. } = outcome else {
                        panic!()
                    };
                    let current = current.map_or("absent".into(), |s| version(&s));
                    writeln!(
                        out,
                        "guard of write {write} failed: {key_space} {key_path} is {current}"
                    )
                }
                Err(Error::Fenced { fence, current }) => {
                    writeln!(out, "fenced: {fence} in {current}")
                }
                Err(other) => panic!("{other}"),
            }
            .expect("a string");
        }
        if applied.outcomes.is_empty() {
            out.push_str("repeat\n");
        }
        for change in &applied.changes {
            let side = |s: &Option<Arc<Stored>>| s.as_ref().map_or("(none)".into(), |s| version(s));
            let Key { space, path } = change.key();
            let (old, new) = (side(&change.old), side(&change.new));
            let created = change.new.as_ref().map_or(String::new(), |new| created(new));
            let revision = match change.place {
                0 => change.revision.to_string(),
                place => format!("{}.{place}", change.revision),
            };
            writeln!(out, "change {revision} {space} {path}: {old} -> {new}{created}").expect("ok");
        }
        for (session, serial) in &applied.forgotten {
            writeln!(out, "forgotten {}/{serial}", session.0).expect("a string");
        }
        out
    }

    fn sessions(&self) -> String {
        let sessions = self.state.sessions().iter().filter(|(id, _)| id.0 != 1);
        let line = |(id, s): (&Session, &SessionState)| {
            let known: Vec<_> = s.outcomes.keys().collect();
            format!("session {} settled {} remembers {known:?}\n", id.0, s.settled)
        };
        sessions.map(line).collect()
    }

    fn range(&self, rest: &str) -> String {
        let (mut after, mut limit, mut words) = (None, None, Vec::new());
        for word in rest.split(' ') {
            match word.split_once(':') {
                Some(("after", path)) => after = Some(path),
                Some(("limit", n)) => limit = Some(number(n) as usize),
                _ => words.push(word),
            }
        }
        let page = self.state.range(words[0], words[1], after, limit);
        let mut out = String::new();
        for item in &page.items {
            writeln!(out, "{} {}{}", item.key.path, version(item), created(item))
                .expect("a string");
        }
        writeln!(out, "remaining {} at {}", page.remaining, page.revision).expect("a string");
        out
    }
}

fn version(stored: &Stored) -> String {
    format!("{}@{}", String::from_utf8_lossy(&stored.body), stored.revision)
}

fn created(stored: &Stored) -> String {
    match stored.created == stored.revision {
        true => String::new(),
        false => format!(" created {}", stored.created),
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word:?}"))
}

fn write_of(words: &[&str]) -> Write {
    let guard = match *words.last().expect("a guard") {
        "absent" => Guard::Absent,
        "exists" => Guard::Exists,
        "any" => Guard::Any,
        at => Guard::At(Revision(number(at.strip_prefix("at:").expect("a guard")))),
    };
    let op = match words[0] {
        "put" => Op::Put(words[3].to_owned().into()),
        "delete" => Op::Delete,
        "check" => Op::Check,
        "delete-until" => Op::DeleteUntil(until(words[3])),
        "check-until" => Op::CheckUntil(SpanCheck {
            until: until(words[3]),
            keys: number(words[4]),
            newest: Revision(number(words[5])),
        }),
        other => panic!("unknown operation {other}"),
    };
    Write { key: Key::new(words[1], words[2]), guard, op }
}

/// `-` is the end of the space.
fn until(word: &str) -> Option<Arc<str>> {
    (word != "-").then(|| word.into())
}

#[test]
fn spans_and_shared_revisions() {
    check("spans.txt");
}

#[test]
fn transactions() {
    check("transactions.txt");
}

#[test]
fn fence_and_repeat() {
    check("fence_and_repeat.txt");
}

#[test]
fn the_longest_silent_session_is_forgotten() {
    let mut machine = Machine { state: State::default(), term: Term(1), index: 0 };
    for id in 0..=SESSIONS_MAX as u64 {
        machine.run(&format!("txn session:{id} serial:1 put pods p{id} x absent"));
    }
    let kept: Vec<u64> = machine.state.sessions().keys().map(|session| session.0).collect();
    assert_eq!(kept, (1..=SESSIONS_MAX as u64).collect::<Vec<_>>());
}
