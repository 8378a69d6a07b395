//! Objects that come and go: what was created and not deleted is there, and nothing else, as far as
//! clients were told.

use crate::{
    Violation,
    history::{Op, Told, Truth, What},
};
use std::collections::BTreeMap;

/// What a client was told of the creation and of the deletion of one key.
type Told2<'a> = (Option<&'a Told>, Option<&'a Told>);

/// Everything wrong with what is there in the end under a prefix. Each key is created once at most, by
/// one client, which deletes it once at most.
pub fn check(prefix: &str, ops: &[Op], truth: &Truth) -> Vec<Violation> {
    let mut keys: BTreeMap<&str, Told2<'_>> = BTreeMap::new();
    for op in ops {
        match &op.what {
            What::Write { key, value, told, .. } if key.starts_with(prefix) => {
                let of = keys.entry(key).or_default();
                match value {
                    Some(_) => of.0 = Some(told),
                    None => of.1 = Some(told),
                }
            }
            _ => {}
        }
    }
    let there: BTreeMap<String, u64> =
        truth.at(prefix, u64::MAX).into_iter().map(|(key, _, revision)| (key, revision)).collect();
    let mut found = Vec::new();
    for (key, told) in &keys {
        let is = there.get(*key);
        if must_be_there(told).is_some_and(|must| must != is.is_some()) {
            let (made, deleted) = told;
            let what = format!(
                "{key} was told {made:?} when made and {deleted:?} when deleted; it is there as of {is:?}"
            );
            found.push(Violation::new("churn", what));
        }
    }
    let strangers = there.keys().filter(|key| !keys.contains_key(key.as_str()));
    found.extend(strangers.map(|key| Violation::new("churn", format!("nobody made {key}"))));
    found
}

/// `None`: either is right.
fn must_be_there((made, deleted): &Told2<'_>) -> Option<bool> {
    match (made, deleted) {
        (_, Some(Told::Done(_))) | (Some(Told::Refused) | None, _) => Some(false),
        (Some(Told::Unknown), _) | (_, Some(Told::Unknown)) => None,
        (Some(Told::Done(_)), Some(Told::Refused) | None) => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Event, Guard};

    fn op(key: &str, made: bool, told: Told) -> Op {
        let (key, value) = (format!("churn-{key}"), made.then(|| key.to_owned()));
        let guard = Guard::Nothing;
        let what = What::Write { key, value, guard, fence: None, transaction: 0, told };
        Op { client: 1, called: 0, returned: 1, what }
    }

    /// `+a` is made, `-a` is deleted.
    fn found(ops: &[Op], events: &[&str]) -> Vec<String> {
        let event = |(revision, event): (u64, &&str)| {
            let (sign, key) = event.split_at(1);
            let value = (sign == "+").then(|| key.to_owned());
            Event { revision, place: 0, key: format!("churn-{key}"), value, term: 0 }
        };
        let truth = Truth::new((1..).zip(events).map(event).collect());
        check("churn-", ops, &truth).into_iter().map(|it| it.what).collect()
    }

    #[test]
    fn exactly_what_was_acknowledged_remains() {
        let made = |key| op(key, true, Told::Done(Some(1)));
        let deleted = |key| op(key, false, Told::Done(None));
        let nothing: [String; 0] = [];
        assert_eq!(found(&[made("a"), made("b"), deleted("a")], &["+a", "+b", "-a"]), nothing);
        assert_eq!(found(&[made("a")], &[]).len(), 1, "lost");
        assert_eq!(found(&[made("a"), deleted("a")], &["+a"]).len(), 1, "the deletion was lost");
        assert_eq!(found(&[made("a")], &["+a", "-a"]).len(), 1, "deleted by nobody");
        assert_eq!(found(&[op("a", true, Told::Refused)], &["+a"]).len(), 1, "refused and there");
        assert_eq!(found(&[], &["+a"]), ["nobody made churn-a"]);
        let refused = [made("a"), op("a", false, Told::Refused)];
        assert_eq!(found(&refused, &["+a"]), nothing);
        assert_eq!(found(&refused, &["+a", "-a"]).len(), 1, "a refused deletion was done");
    }

    #[test]
    fn what_nobody_knows_may_be_either() {
        let unknown = |key, made| op(key, made, Told::Unknown);
        let made = op("a", true, Told::Done(Some(1)));
        let nothing: [String; 0] = [];
        for events in [&["+a"][..], &["+a", "-a"]] {
            assert_eq!(found(&[made.clone(), unknown("a", false)], events), nothing);
        }
        for events in [&["+a"][..], &[]] {
            assert_eq!(found(&[unknown("a", true)], events), nothing);
        }
    }
}
