//! What a Job's status has to be (KEP-4368): whoever runs the Job, its clients can rely on it. What
//! did not change is not held against a write, so that a status can be mended in steps.

use super::{
    field::{At, Errors, IMMUTABLE, same},
    job_spec::{count_indexes, interval},
    print,
};
use jiff::Timestamp;
use k8s::{FieldError, Object};
use serde_json::Value;
use std::collections::BTreeSet;

/// A Job before and after a write of its status.
struct Change<'a> {
    new: &'a Object,
    old: &'a Object,
    spec: At<'a, 'a>,
    status: At<'a, 'a>,
    was: At<'a, 'a>,
}

pub(crate) fn validate(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let change = Change {
        new,
        old,
        spec: At::top(new, "spec"),
        status: At::top(new, "status"),
        was: At::top(old, "status"),
    };
    change.counts(&mut errors);
    change.uncounted(&mut errors);
    change.completion(&mut errors);
    change.end(&mut errors);
    change.indexes(&mut errors);
    change.pods(&mut errors);
    change.success(&mut errors);
    change.transition(&mut errors);
    errors.0
}

impl Change<'_> {
    fn is(&self, kind: &str) -> bool {
        is_true(self.new, kind)
    }

    fn turns(&self, kind: &str) -> bool {
        is_true(self.new, kind) != is_true(self.old, kind)
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn finish_changed(&self) -> bool {
        let was = is_true(self.old, "Complete") || is_true(self.old, "Failed");
        self.is_finished() != was
    }

    fn changed(&self, field: &'static str) -> bool {
        !same(self.status.field(field).value(), self.was.field(field).value())
    }

    fn is_indexed(&self) -> bool {
        self.spec.field("completionMode").text() == "Indexed"
    }

    /// What is wrong with the conditions, which upstream does not repeat.
    fn contradiction(&self, text: impl Into<String>, errors: &mut Errors) {
        let path = self.status.field("conditions").to_string();
        errors.0.push(FieldError {
            bad_value: None,
            ..FieldError::invalid(path, Value::Null, text.into())
        });
    }

    fn counts(&self, errors: &mut Errors) {
        for count in ["active", "succeeded", "failed", "ready", "terminating"] {
            errors.not_negative(&self.status.field(count));
        }
    }

    fn uncounted(&self, errors: &mut Errors) {
        let uncounted = self.status.field("uncountedTerminatedPods");
        let mut seen = BTreeSet::new();
        for list in ["succeeded", "failed"] {
            for uid in uncounted.field(list).items() {
                match uid.text() {
                    "" => errors.invalid_value(&uid, "", "must not be empty"),
                    text if !seen.insert(text.to_string()) => errors.duplicate(&uid),
                    _ => (),
                }
            }
        }
    }

    fn completion(&self, errors: &mut Errors) {
        let complete = self.is("Complete");
        for (other, text) in [
            ("Failed", "cannot set Complete=True and Failed=true conditions"),
            ("FailureTarget", "cannot set Complete=True and FailureTarget=true conditions"),
        ] {
            if complete && self.is(other) && (self.turns("Complete") || self.turns(other)) {
                self.contradiction(text, errors);
            }
        }
        let (ended, started) =
            (self.status.field("completionTime"), self.status.field("startTime"));
        if self.turns("Complete") || self.changed("completionTime") {
            if ended.exists() && !complete {
                let detail = "cannot set completionTime when there is no Complete=True condition";
                errors.invalid(&ended, detail);
            }
            if !ended.exists() && complete {
                errors.required(&ended, "completionTime is required for Complete jobs");
            }
        }
        let moved = self.changed("startTime") || self.changed("completionTime");
        let time = |at: &At<'_, '_>| at.text().parse::<Timestamp>().ok();
        if let (Some(start), Some(end)) = (time(&started), time(&ended))
            && moved
            && end < start
        {
            errors.invalid(&ended, "must be equal to or after `startTime`");
        }
    }

    fn end(&self, errors: &mut Errors) {
        let failed = self.turns("Failed") || self.changed("failedIndexes");
        if failed && self.is("Failed") && !self.is("FailureTarget") {
            let text = "cannot set Failed=True condition without the FailureTarget=true condition";
            self.contradiction(text, errors);
        }
        let completed = self.turns("Complete") || self.turns("SuccessCriteriaMet");
        if completed && self.is("Complete") && !self.is("SuccessCriteriaMet") {
            let text =
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
            self.contradiction(text, errors);
        }
        if !self.is_finished() {
            return;
        }
        let (finishes, active) = (self.finish_changed(), self.status.field("active"));
        if (finishes || self.changed("active")) && active.int().unwrap_or(0) > 0 {
            errors.invalid(&active, "active>0 is invalid for finished job");
        }
        let started = self.status.field("startTime");
        let never_ran =
            self.spec.field("suspend").flag() && self.spec.field("completions").int() == Some(0);
        if (finishes || self.changed("startTime")) && !started.exists() && !never_ran {
            errors.required(&started, "startTime is required for finished job");
        }
        let uncounted = self.status.field("uncountedTerminatedPods");
        let left = uncounted.field("succeeded").count() + uncounted.field("failed").count();
        if (finishes || self.changed("uncountedTerminatedPods")) && left > 0 {
            errors.invalid(&uncounted, "must be empty for finished job");
        }
    }

    fn indexes(&self, errors: &mut Errors) {
        let (completed, failed) =
            (self.status.field("completedIndexes"), self.status.field("failedIndexes"));
        let (completed_new, failed_new) =
            (self.changed("completedIndexes"), self.changed("failedIndexes"));
        let per_index = self.spec.field("backoffLimitPerIndex").exists();
        let completions = self.spec.field("completions").int();
        for (at, name, asked) in [
            (&completed, "completedIndexes", completed_new),
            (&failed, "failedIndexes", failed_new && per_index && failed.exists()),
        ] {
            if let Some(completions) = completions.filter(|_| asked)
                && let Err(why) = count_indexes(at.text(), completions)
            {
                errors.invalid(at, format!("error parsing {name}: {why}"));
            }
        }
        if completed_new && !completed.text().is_empty() && !self.is_indexed() {
            let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.invalid(&completed, detail);
        }
        if failed_new && failed.exists() && !per_index {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.invalid(&failed, detail);
        }
        if (completed_new || failed_new)
            && let Some(completions) = completions
            && let Some(index) = overlap(completed.text(), failed.text(), completions)
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.invalid(&failed, detail);
        }
    }

    fn pods(&self, errors: &mut Errors) {
        let (terminating, ready) = (self.status.field("terminating"), self.status.field("ready"));
        let asked = self.finish_changed() || self.changed("terminating");
        if asked && self.is_finished() && terminating.int().unwrap_or(0) > 0 {
            errors.invalid(&terminating, "terminating>0 is invalid for finished job");
        }
        let active = self.status.field("active").int().unwrap_or(0);
        let asked = self.changed("ready") || self.changed("active");
        if asked && ready.int().is_some_and(|ready| ready > active) {
            errors.invalid(&ready, "cannot set more ready pods than active");
        }
    }

    fn success(&self, errors: &mut Errors) {
        let met = self.is("SuccessCriteriaMet");
        for other in ["Failed", "FailureTarget"] {
            if met && self.is(other) {
                let text =
                    format!("cannot set SuccessCriteriaMet=True and {other}=true conditions");
                self.contradiction(text, errors);
            }
        }
        if self.spec.field("successPolicy").exists() && !met && self.is("Complete") {
            let text = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
            self.contradiction(text, errors);
        }
    }

    /// What may not be taken back.
    fn transition(&self, errors: &mut Errors) {
        for kind in ["Failed", "Complete", "FailureTarget"] {
            if is_true(self.old, kind) && !self.is(kind) {
                let text = format!("cannot disable the terminal {kind}=True condition");
                self.contradiction(text, errors);
            }
        }
        let (completions, parallelism) =
            (self.spec.field("completions"), self.spec.field("parallelism"));
        // Such a Job can be made smaller.
        let elastic = self.is_indexed() && completions.int() == parallelism.int();
        for (field, may_shrink) in [("failed", false), ("succeeded", elastic)] {
            let now = self.status.field(field);
            let count = now.int().unwrap_or(0);
            if count < self.was.field(field).int().unwrap_or(0) && !may_shrink {
                errors.invalid_value(&now, count, format!("cannot decrease the {field} counter"));
            }
        }
        let (ended, had_ended) =
            (self.status.field("completionTime"), self.was.field("completionTime"));
        if ended.exists() && had_ended.exists() && ended.text() != had_ended.text() {
            errors.invalid(&ended, IMMUTABLE);
        }
        let resumes =
            is_true(self.old, "Suspended") && has_condition(self.new, "Suspended", "False");
        let fixed =
            self.was.field("startTime").exists() && !self.spec.field("suspend").flag() && !resumes;
        if fixed && self.changed("startTime") {
            let started = self.status.field("startTime");
            errors.invalid(&started, "field is immutable for unsuspended job once set");
        }
        let (was_met, met) =
            (is_true(self.old, "SuccessCriteriaMet"), self.is("SuccessCriteriaMet"));
        if was_met && !met {
            self.contradiction("cannot disable the SuccessCriteriaMet=True condition", errors);
        }
        if is_true(self.old, "Complete") && !was_met && met {
            let text = "cannot set SuccessCriteriaMet=True for Job already has Complete=true \
                        conditions";
            self.contradiction(text, errors);
        }
    }
}

fn is_true(job: &Object, kind: &str) -> bool {
    has_condition(job, kind, "True")
}

fn has_condition(job: &Object, kind: &str, status: &str) -> bool {
    print::list(job, "/status/conditions").iter().any(|condition| {
        print::field(condition, "type") == kind && print::field(condition, "status") == status
    })
}

/// The first index that both lists name; what cannot be read is told elsewhere.
fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let ranges = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|fragment| interval(fragment, completions).ok()).collect()
    };
    let failed = ranges(failed);
    ranges(completed).into_iter().find_map(|(start, end)| {
        let both = failed.iter().find(|(from, to)| start <= *to && *from <= end);
        both.map(|(from, _)| start.max(*from))
    })
}
