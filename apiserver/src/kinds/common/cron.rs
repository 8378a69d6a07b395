//! Schedules of CronJobs: whether text is one, in the words of the parser upstream uses.

use jiff::tz::TimeZone;

/// A field of a schedule: what it may hold, and names for its numbers.
struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Minute, hour, day of the month, month, day of the week.
const FIELDS: [Field; 5] = [
    Field { low: 0, high: 59, names: &[] },
    Field { low: 0, high: 23, names: &[] },
    Field { low: 1, high: 31, names: &[] },
    Field { low: 1, high: 12, names: MONTHS },
    Field { low: 0, high: 6, names: DAYS },
];

/// Says what is wrong with a schedule: five fields, or a word such as `@hourly`, with a zone before
/// it in old ones.
pub(crate) fn check(schedule: &str) -> Result<(), String> {
    if schedule.is_empty() {
        return Err("empty spec string".into());
    }
    let mut rest = schedule;
    if let Some(zoned) = ["TZ=", "CRON_TZ="].iter().find_map(|word| schedule.strip_prefix(word)) {
        let (zone, after) = zoned.split_once(' ').unwrap_or((zoned, ""));
        check_zone(zone).map_err(|why| format!("provided bad location {zone}: {why}"))?;
        rest = after.trim();
    }
    if rest.starts_with('@') {
        return check_word(rest);
    }
    let parts: Vec<&str> = rest.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        let (count, shown) = (parts.len(), parts.join(" "));
        return Err(format!("expected exactly 5 fields, found {count}: [{shown}]"));
    }
    parts.iter().zip(&FIELDS).try_for_each(|(part, field)| {
        let mut choices = part.split(',').filter(|choice| !choice.is_empty());
        choices.try_for_each(|choice| check_range(choice, field))
    })
}

/// Says what is wrong with the name of a time zone.
pub(crate) fn check_zone(name: &str) -> Result<(), String> {
    let known = matches!(name, "UTC" | "Local") || TimeZone::get(name).is_ok();
    if known { Ok(()) } else { Err(format!("unknown time zone {name}")) }
}

fn check_word(word: &str) -> Result<(), String> {
    const WORDS: [&str; 7] =
        ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if WORDS.contains(&word) {
        return Ok(());
    }
    match word.strip_prefix("@every ") {
        Some(every) => match is_duration(every) {
            true => Ok(()),
            false => {
                Err(format!("failed to parse duration {word}: time: invalid duration {every:?}"))
            }
        },
        None => Err(format!("unrecognized descriptor: {word}")),
    }
}

/// `1h30m`, as Go writes durations.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let good = digits.bytes().any(|c| c.is_ascii_digit()) && digits.parse::<f64>().is_ok();
        if !good || !matches!(unit, "ns" | "us" | "µs" | "ms" | "s" | "m" | "h") {
            return false;
        }
        rest = after;
    }
    true
}

/// `*`, `?`, a number or a name, two with a hyphen, and a step.
fn check_range(text: &str, field: &Field) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (span, step) = match parts.as_slice() {
        [span] => (*span, None),
        [span, step] => (*span, Some(number(step)?)),
        _ => return Err(format!("too many slashes: {text}")),
    };
    let ends: Vec<&str> = span.split('-').collect();
    let (start, end) = match ends.as_slice() {
        ["*" | "?", ..] => (field.low, field.high),
        [one] => {
            let one = named(one, field)?;
            (one, if step.is_some() { field.high } else { one })
        }
        [start, end] => (named(start, field)?, named(end, field)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    if start < field.low {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", field.low));
    }
    if end > field.high {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", field.high));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn named(text: &str, field: &Field) -> Result<u32, String> {
    let lower = text.to_lowercase();
    match field.names.iter().position(|name| *name == lower) {
        Some(place) => Ok(field.low + u32::try_from(place).unwrap_or(0)),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => u32::try_from(number).map_err(|_| out_of_range(text)),
        Err(_) => {
            let why = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
            Err(format!("failed to parse int from {text}: {why}"))
        }
    }
}

fn out_of_range(text: &str) -> String {
    format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: value out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-23/2 1,15 jan-DEC mon",
            "5/15 ? * * SUN",
            "@hourly",
            "@every 1h30m",
            "TZ=UTC 0 0 * * *",
            "CRON_TZ=Europe/Berlin @daily",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let wrong = [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "1/2/3 * * * *",
            "1-2-3 * * * *",
            "a * * * *",
            "-1 * * * *",
            "* * * foo *",
            "@sometimes",
            "@every soon",
            "TZ=Nowhere/Land * * * * *",
        ]
        .map(|text| format!("{text:?} {}", check(text).expect_err("wrong")));
        insta::assert_snapshot!(wrong.join("\n"), @r#"
        "" empty spec string
        "* * * *" expected exactly 5 fields, found 4: [* * * *]
        "60 * * * *" end of range (60) above maximum (59): 60
        "* * 0 * *" beginning of range (0) below minimum (1): 0
        "5-1 * * * *" beginning of range (5) beyond end of range (1): 5-1
        "*/0 * * * *" step of range should be a positive number: */0
        "1/2/3 * * * *" too many slashes: 1/2/3
        "1-2-3 * * * *" too many hyphens: 1-2-3
        "a * * * *" failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax
        "-1 * * * *" failed to parse int from : strconv.Atoi: parsing "": invalid syntax
        "* * * foo *" failed to parse int from foo: strconv.Atoi: parsing "foo": invalid syntax
        "@sometimes" unrecognized descriptor: @sometimes
        "@every soon" failed to parse duration @every soon: time: invalid duration "soon"
        "TZ=Nowhere/Land * * * * *" provided bad location Nowhere/Land: unknown time zone Nowhere/Land
        "#);
    }
}
