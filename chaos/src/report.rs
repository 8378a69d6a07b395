//! The report of a run: one HTML file with everything in it, for who knows Kubernetes and not us.
//! A value made of values; nothing in it is fetched, and nothing runs.

mod chart;

use crate::{
    figures::{self, Totals, Work, percentile},
    judge::{State, Sum, Verdict, seconds, sum},
    record::{Outcome, Record},
    scenario::{Kind, Scenario},
    schedule::Strike,
};
use std::{fmt::Write as _, time::Duration};

/// What a report says besides what happened.
pub struct Facts<'a> {
    pub scenario: &'a Scenario,
    pub seed: u64,
    /// For people, with the time zone.
    pub started: String,
    pub length: Duration,
    /// Why it ended before its time, if it did.
    pub cut_short: Option<String>,
    /// The command that does it again.
    pub replay: String,
    /// Versions and machine, as name and value.
    pub environment: Vec<(String, String)>,
    /// Faults that were planned and left out, with the reason.
    pub spared: Vec<(Strike, String)>,
    /// Workloads that did not run, with the reason.
    pub left_out: Vec<(Kind, String)>,
}

const STYLE: &str = include_str!("report/style.css");

/// The whole file.
pub fn html(facts: &Facts, record: &Record, verdicts: &[Verdict]) -> String {
    let title = format!("Chaos: {}", escape(&facts.scenario.name));
    let parts = [
        head(facts, verdicts),
        checks(verdicts),
        timeline(facts, record),
        failovers(facts, record),
        faults(facts, record),
        totals(facts, record),
        again(facts),
        words(),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n\
         </body>\n</html>\n",
        parts.concat()
    )
}

/// Text as it may stand in HTML, also in an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

fn head(facts: &Facts, verdicts: &[Verdict]) -> String {
    let (class, verdict) = match sum(verdicts) {
        Sum::Held => ("held", "All checks hold."),
        Sum::Broken => ("broken", "A promise was broken."),
        Sum::Unproven => ("unproven", "The run did not show what it was to show."),
    };
    let cut = facts.cut_short.as_ref().map_or(String::new(), |why| {
        format!("<p class=\"cut\">It ended before its time: {}.</p>\n", escape(why))
    });
    format!(
        "<h1>{}</h1>\n<p>{}</p>\n<p class=\"banner {class}\">{verdict}</p>\n{cut}\
         <p class=\"quiet\">{}, {:.0} s, seed {}</p>\n",
        escape(&facts.scenario.name),
        escape(&facts.scenario.description),
        escape(&facts.started),
        facts.length.as_secs_f64(),
        facts.seed,
    )
}

/// Of each check so many violations are printed: the first say what is wrong.
const VIOLATIONS_MAX: usize = 10;

fn checks(verdicts: &[Verdict]) -> String {
    let mut text = String::from(
        "<h2>Verdicts</h2>\n<table>\n<tr><th>check</th><th>verdict</th><th>what it means</th>\
         <th>what it looked at</th></tr>\n",
    );
    for verdict in verdicts {
        let (class, word, why) = match &verdict.state {
            State::Held => ("held", "holds", String::new()),
            State::Broken(found) => ("broken", "broken", violations(found)),
            State::Unproven(why) => ("unproven", "not shown", format!("<p>{}</p>", escape(why))),
        };
        let (means, looked_at) = (escape(verdict.means), escape(&verdict.looked_at));
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td class=\"{class}\">{word}</td><td>{means}{why}</td>\
             <td>{looked_at}</td></tr>",
            verdict.check
        );
    }
    text + "</table>\n"
}

fn violations(found: &[crate::Violation]) -> String {
    let item = |it: &crate::Violation| format!("<li>{}</li>", escape(&it.to_string()));
    let items: String = found.iter().take(VIOLATIONS_MAX).map(item).collect();
    let more = match found.len().saturating_sub(VIOLATIONS_MAX) {
        0 => String::new(),
        more => format!("<li>and {more} more</li>"),
    };
    format!("<ul>{items}{more}</ul>")
}

fn timeline(facts: &Facts, record: &Record) -> String {
    format!(
        "<h2>What clients felt</h2>\n<p>Time goes to the right, in seconds. Each band is a fault, from \
         the moment it hit somebody until that one answered again; its number is that in the table \
         of faults. <span class=\"key key-kill\">killed</span> \
         <span class=\"key key-pause\">paused</span> \
         <span class=\"key key-network\">cut off</span> \
         <span class=\"key key-disk\">trouble with its disk</span> \
         <span class=\"key key-flood\">flooded with requests</span> \
         <span class=\"key key-other\">its certificates have ended, or its clock is wrong</span></p>\n{}",
        chart::timeline(record, facts.length)
    )
}

/// Of what the figures are: the heading, and what is meant.
fn in_words(work: Work) -> (&'static str, &'static str) {
    match work {
        Work::Writes => (
            "How long nobody could write",
            "the longest time in which no write of any client was acknowledged. In it, another master \
             was elected and clients found it.",
        ),
        Work::Binding => (
            "How long no pod got a node",
            "the longest time in which no pod was bound to a node, though one waited or a client had \
             asked for one. In it, a write was possible again and another master&#39;s scheduler began.",
        ),
        Work::Reconcile => (
            "How long no Deployment was reconciled",
            "the longest time in which no change of a Deployment was carried out, though one waited or \
             a client had asked for one. In it, another master&#39;s controllers began, and the change \
             was carried out step by step.",
        ),
    }
}

fn failovers(facts: &Facts, record: &Record) -> String {
    let works = Work::of(&facts.scenario.workloads).into_iter();
    works.map(|work| failover(figures::failovers(record, work), in_words(work))).collect()
}

fn failover(mut gaps: Vec<Duration>, (title, means): (&str, &str)) -> String {
    let mut text = format!("<h2>{title}</h2>\n");
    if gaps.is_empty() {
        return text + "<p>No fault hit the leader, or nothing came about after it.</p>\n";
    }
    gaps.sort_unstable();
    let figure = |percent| percentile(&gaps, percent).map_or("-".to_owned(), seconds);
    let _ = write!(
        text,
        "<p>After each fault that hit the leader: {means}</p>\n\
         <div class=\"tiles\"><div><b>{}</b>faults of the leader</div><div><b>{}</b>half are within \
         (p50)</div><div><b>{}</b>99 of 100 are within (p99)</div><div><b>{}</b>longest</div></div>\n",
        gaps.len(),
        figure(50),
        figure(99),
        figure(100),
    );
    text + &chart::histogram(&gaps)
}

fn faults(facts: &Facts, record: &Record) -> String {
    let works = Work::of(&facts.scenario.workloads);
    let heads: String =
        works.iter().map(|work| format!("<th>{} for</th>", work.stood_still())).collect();
    let mut text = format!(
        "<h2>Faults</h2>\n<table>\n<tr><th>no.</th><th>at</th><th>what</th><th>whom</th>{heads}\
         <th>answered again after</th></tr>\n",
    );
    let of_each: Vec<_> = works.iter().map(|work| figures::standstills(record, *work)).collect();
    for (n, strike) in record.strikes.iter().enumerate() {
        let cell = |of: &Vec<Option<Duration>>| {
            format!("<td>{}</td>", of[n].map_or("-".to_owned(), seconds))
        };
        let gaps: String = of_each.iter().map(cell).collect();
        let away = figures::away(strike).map_or("not until the end".into(), seconds);
        let role = match (strike.harm.is_of_node(), strike.led) {
            (true, _) => "node",
            (_, true) => "led",
            (_, false) => "followed",
        };
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{:.2} s</td><td>{}{}</td><td>{} ({role})</td>{gaps}\
             <td>{away}</td></tr>",
            n + 1,
            strike.at as f64 / 1e9,
            strike.harm,
            match strike.detail.as_str() {
                "" => String::new(),
                detail => format!(": {}", escape(detail)),
            },
            escape(&strike.master),
        );
    }
    text += "</table>\n";
    for (strike, why) in &facts.spared {
        let (strike, why) = (strike.to_string(), escape(why));
        let _ = writeln!(text, "<p class=\"quiet\">Left out: {} ({why})</p>", strike.trim_start());
    }
    text
}

fn totals(facts: &Facts, record: &Record) -> String {
    let mut text = String::from(
        "<h2>What was done</h2>\n<table class=\"numbers\">\n<tr><th>workload</th><th></th>\
         <th>acknowledged</th><th>refused</th><th>unknown</th></tr>\n",
    );
    for (kind, Totals { writes, reads }) in figures::totals(&record.operations) {
        for (what, counts) in [("writes", writes), ("reads", reads)] {
            let cells: String = Outcome::ALL
                .iter()
                .map(|outcome| format!("<td>{}</td>", counts[*outcome as usize]))
                .collect();
            let _ = writeln!(text, "<tr><td>{kind}</td><td>{what}</td>{cells}</tr>");
        }
    }
    for (number, seen) in record.watchers.iter().enumerate() {
        let events = seen.iter().filter(|it| matches!(it, crate::watched::Seen::Event(_)));
        let moves = seen.iter().filter(|it| matches!(it, crate::watched::Seen::From(_)));
        let _ = writeln!(
            text,
            "<tr><td>watch-follow</td><td>watcher {}</td><td colspan=\"3\">{} changes shown, in {} \
             watches</td></tr>",
            number + 1,
            events.count(),
            // The first says where it begins, before any watch.
            moves.count().saturating_sub(1),
        );
    }
    text += "</table>\n";
    for (kind, why) in &facts.left_out {
        let _ = writeln!(text, "<p class=\"quiet\">Not run: {kind} ({})</p>", escape(why));
    }
    text
}

fn again(facts: &Facts) -> String {
    let mut text = format!(
        "<h2>The same again</h2>\n<p>The seed says which fault comes when; what clients do in between \
         depends on the machine.</p>\n<pre>{}</pre>\n<table>\n",
        escape(&facts.replay)
    );
    for (name, value) in &facts.environment {
        let _ = writeln!(text, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(value));
    }
    text + "</table>\n"
}

fn words() -> String {
    let words = [
        ("acknowledged", "The API server answered that it is done."),
        (
            "refused",
            "It answered that it is not done: a conflict, because somebody else had written the object \
             in between, or too many requests.",
        ),
        (
            "unknown",
            "No answer came, or one that leaves it open (the connection was lost, or it took too long). \
             Such a write may be there or not; either is right. It must not be there twice.",
        ),
        (
            "leader",
            "The master through which all writes go. The others elect another when it is gone; clients \
             may ask any master.",
        ),
        (
            "list, change, revision",
            "Every write gets the next number (metadata.resourceVersion). A list says as of which number \
             it is, a watch shows each change with its number: this is what the checks compare.",
        ),
    ];
    let items: String =
        words.map(|(word, means)| format!("<dt>{word}</dt><dd>{means}</dd>\n")).concat();
    format!("<h2>Words</h2>\n<dl>\n{items}</dl>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Violation,
        judge::{tests as planted, verdicts},
        schedule::plan,
    };

    fn report(record: &Record) -> String {
        let scenario = planted::scenario();
        let strike = plan(&scenario, 7, Duration::from_secs(60)).remove(1);
        let facts = Facts {
            scenario: &scenario,
            seed: 7,
            started: "2026-01-02 03:04 UTC".into(),
            length: planted::LENGTH,
            cut_short: None,
            replay: "coxswain chaos run leader-kill --duration 4s --seed 7".into(),
            environment: vec![("coxswain".into(), "0.1.0 <debug>".into())],
            spared: vec![(strike, "1 of 3 masters are away and at most 1 may be".into())],
            left_out: vec![(Kind::Churn, "no node is ready".into())],
        };
        html(&facts, record, &verdicts(&scenario, record, planted::LENGTH))
    }

    #[test]
    fn a_small_report() {
        insta::assert_snapshot!(report(&planted::run()));
    }

    #[test]
    fn it_needs_nothing_from_elsewhere_and_says_what_is_broken() {
        let mut record = planted::run();
        record.broken.push(Violation::new("masters come back", "<m2> is \"gone\""));
        let text = report(&record);
        assert!(text.contains("A promise was broken."));
        assert!(text.contains("&lt;m2&gt; is &quot;gone&quot;") && !text.contains("<m2>"));
        for foreign in ["<script", "http:", "https:", "url(", "@import", "src="] {
            assert!(!text.contains(foreign), "{foreign}");
        }
        let open = |tag: &str| text.matches(&format!("<{tag}")).count();
        let closed = |tag: &str| text.matches(&format!("</{tag}>")).count();
        for tag in ["table", "tr", "svg", "g", "ul", "div", "dl"] {
            let exactly = text.matches(&format!("<{tag}>")).count()
                + text.matches(&format!("<{tag} ")).count();
            assert_eq!(exactly, closed(tag), "{tag}: {}", open(tag));
        }
    }
}
