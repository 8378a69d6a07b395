//! Timestamps and durations: reading, printing, and the parts of them, in UTC or a named zone. Zones
//! come from the database built into the program, so that every master answers alike.

use super::Declared;
use crate::{EvalError, Value, eval::Evaluated};
use jiff::{
    Timestamp, Zoned,
    tz::{Offset, TimeZone, TimeZoneDatabase},
};
use std::sync::LazyLock;

const PARTS: &str = "timestamp.() int | timestamp.(string) int";
const PARTS_BOTH: &str = "timestamp.() int | timestamp.(string) int | duration.() int";

pub(super) const FUNCTIONS: &[Declared] = &[
    ("getFullYear", PARTS, |_, args| part(args, |at| at.year().into())),
    ("getMonth", PARTS, |_, args| part(args, |at| i64::from(at.month()) - 1)),
    ("getDate", PARTS, |_, args| part(args, |at| at.day().into())),
    ("getDayOfMonth", PARTS, |_, args| part(args, |at| i64::from(at.day()) - 1)),
    ("getDayOfYear", PARTS, |_, args| part(args, |at| i64::from(at.day_of_year()) - 1)),
    ("getDayOfWeek", PARTS, |_, args| part(args, |at| at.weekday().to_sunday_zero_offset().into())),
    ("getHours", PARTS_BOTH, |_, args| both(args, 3_600_000_000_000, |at| at.hour().into())),
    ("getMinutes", PARTS_BOTH, |_, args| both(args, 60_000_000_000, |at| at.minute().into())),
    ("getSeconds", PARTS_BOTH, |_, args| both(args, 1_000_000_000, |at| at.second().into())),
    ("getMilliseconds", PARTS_BOTH, |_, args| both(args, 1_000_000, |at| at.millisecond().into())),
];

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

fn part<'a>(args: &[Value<'a>], of: fn(&Zoned) -> i64) -> Evaluated<'a> {
    let (Some(Value::Timestamp(at)), zone) = (args.first(), args.get(1)) else {
        return Err(EvalError::no_such_overload());
    };
    let zone = match zone {
        None => TimeZone::UTC,
        Some(Value::String(name)) => zone_of(name.as_str())?,
        Some(_) => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Int(of(&at.to_zoned(zone))))
}

fn both<'a>(args: &[Value<'a>], unit: i64, of: fn(&Zoned) -> i64) -> Evaluated<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit)),
        _ => part(args, of),
    }
}

/// `Europe/Berlin`, or `+02:00`.
fn zone_of(name: &str) -> Result<TimeZone, EvalError> {
    let unknown = || EvalError::new(format!("unknown time zone {name}"));
    if let Some((hours, minutes)) = name.split_once(':') {
        let (sign, hours) = match hours.strip_prefix('-') {
            Some(hours) => (-1, hours),
            None => (1, hours.strip_prefix('+').unwrap_or(hours)),
        };
        let number = |text: &str| text.parse::<u16>().map_err(|_| unknown());
        let seconds = i32::from(number(hours)?) * 3600 + i32::from(number(minutes)?) * 60;
        let offset = Offset::from_seconds(sign * seconds).map_err(|_| unknown())?;
        return Ok(TimeZone::fixed(offset));
    }
    if name.is_empty() || name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    ZONES.get(name).map_err(|_| unknown())
}

/// Years 1 to 9999, as protobuf has them.
fn in_range<'a>(at: Timestamp) -> Evaluated<'a> {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;
    if (FIRST..=LAST).contains(&at.as_second()) {
        Ok(Value::Timestamp(at))
    } else {
        Err(EvalError::new("timestamp overflow"))
    }
}

pub(crate) fn moved<'a>(at: Timestamp, nanos: i128) -> Evaluated<'a> {
    let overflow = |_| EvalError::new("timestamp overflow");
    in_range(Timestamp::from_nanosecond(at.as_nanosecond() + nanos).map_err(overflow)?)
}

pub(crate) fn of_seconds<'a>(seconds: i64) -> Evaluated<'a> {
    in_range(Timestamp::from_second(seconds).map_err(|_| EvalError::new("timestamp overflow"))?)
}

/// RFC 3339, or a date alone.
pub(crate) fn read_timestamp<'a>(text: &str) -> Evaluated<'a> {
    let date = text.len() == 10 && !text.contains('T');
    let whole = if date { format!("{text}T00:00:00Z") } else { text.to_string() };
    in_range(k8s::time::parse_rfc3339(&whole).map_err(EvalError::new)?)
}

/// RFC 3339 with as much of a fraction as there is.
pub(crate) fn print_timestamp(at: Timestamp) -> String {
    let mut text = k8s::time::format(at);
    let nanos = at.as_nanosecond().rem_euclid(1_000_000_000);
    if nanos != 0 {
        text.truncate(text.len() - 1);
        text = format!("{text}.{nanos:09}").trim_end_matches('0').to_string() + "Z";
    }
    text
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Go's notation: `1h30m`, `-1.5s`, `0`.
pub(crate) fn read_duration<'a>(text: &str) -> Evaluated<'a> {
    match duration_nanos(text) {
        Some(nanos) => Ok(Value::Duration(nanos)),
        None => Err(EvalError::new(format!("time: invalid duration {text:?}"))),
    }
}

pub(crate) fn duration_nanos(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let whole = digits(rest);
        let after = &rest[whole..];
        let fraction = after.strip_prefix('.').map(|after| &after[..digits(after)]);
        if whole == 0 && fraction.is_none_or(str::is_empty) {
            return None;
        }
        let unit_at = whole + fraction.map_or(0, |fraction| fraction.len() + 1);
        let tail = &rest[unit_at..];
        let length = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &tail[..length])?.1;
        let number: i128 = if whole == 0 { 0 } else { rest[..whole].parse().ok()? };
        sum = sum.checked_add(number.checked_mul(unit)?)?;
        // Nine digits are all a nanosecond can tell of an hour's fraction, and then some.
        let shown: String = fraction.unwrap_or_default().chars().take(15).collect();
        if !shown.is_empty() {
            sum += shown.parse::<i128>().ok()? * unit / 10_i128.pow(shown.len() as u32);
        }
        rest = &tail[length..];
    }
    i64::try_from(sign * sum).ok()
}

/// Seconds, as cel-go prints them: `5400s`, `0.5s`.
pub(crate) fn print_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    match rest {
        0 => format!("{sign}{seconds}s"),
        _ => format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        let cases = [
            ("1h30m", Some("5400s")),
            ("-1.5s", Some("-1.5s")),
            ("100ms", Some("0.1s")),
            ("0", Some("0s")),
            ("1d", None),
            ("", None),
            ("5", None),
            (".s", None),
            ("9999999999h", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(duration_nanos(text).map(print_duration).as_deref(), wanted, "{text}");
        }
    }
}
