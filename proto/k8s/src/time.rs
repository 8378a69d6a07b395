//! RFC 3339 as the API writes it: whole seconds (`Time`) or microseconds (`MicroTime`), in UTC. Never
//! reads a clock; the texts of refusals are Go's.

use jiff::{Timestamp, civil, tz::Offset};

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const LAYOUT_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Reads an RFC 3339 time, with or without a fraction.
pub fn parse_rfc3339(text: &str) -> Result<Timestamp, String> {
    Reader { text, rest: text, layout: LAYOUT }.read(false)
}

/// Reads an RFC 3339 time with exactly six digits of fraction, as upstream's `MicroTime` wants it.
pub fn parse_rfc3339_micro(text: &str) -> Result<Timestamp, String> {
    Reader { text, rest: text, layout: LAYOUT_MICRO }.read(true)
}

/// `2006-01-02T15:04:05Z`: what `metav1.Time` prints; the fraction is dropped.
pub fn format(time: Timestamp) -> String {
    let time = Offset::UTC.to_datetime(time);
    let (year, month, day) = (time.year(), time.month(), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `2006-01-02T15:04:05.000000Z`: what `metav1.MicroTime` prints.
pub fn format_micro(time: Timestamp) -> String {
    let mut text = format(time);
    let micros = Offset::UTC.to_datetime(time).subsec_nanosecond() / 1000;
    text.truncate(text.len() - 1);
    text.push_str(&format!(".{micros:06}Z"));
    text
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Reader<'_> {
    fn read(mut self, micro: bool) -> Result<Timestamp, String> {
        let year = self.number(4, "2006")?;
        self.literal("-")?;
        let month = self.number(2, "01")?;
        self.within(month, 1, 12, "month")?;
        self.literal("-")?;
        let day = self.number(2, "02")?;
        self.literal("T")?;
        let hour = self.number(2, "15")?;
        self.within(hour, 0, 23, "hour")?;
        self.literal(":")?;
        let minute = self.number(2, "04")?;
        self.within(minute, 0, 59, "minute")?;
        self.literal(":")?;
        let second = self.number(2, "05")?;
        self.within(second, 0, 59, "second")?;
        let nanos = self.fraction(micro)?;
        let offset = self.offset()?;
        if !self.rest.is_empty() {
            return Err(format!("parsing time {:?}: extra text: {:?}", self.text, self.rest));
        }
        let out_of_day = || format!("parsing time {:?}: day out of range", self.text);
        let date =
            civil::Date::new(year as i16, month as i8, day as i8).map_err(|_| out_of_day())?;
        let time = civil::Time::new(hour as i8, minute as i8, second as i8, nanos)
            .map_err(|_| out_of_day())?;
        let offset = Offset::from_seconds(offset).map_err(|_| out_of_day())?;
        offset.to_timestamp(date.to_datetime(time)).map_err(|_| out_of_day())
    }

    fn bad<T>(&self, element: &str) -> Result<T, String> {
        let Reader { text, rest, layout } = self;
        Err(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"))
    }

    fn literal(&mut self, wanted: &str) -> Result<(), String> {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => self.rest = rest,
            None => return self.bad(wanted),
        }
        Ok(())
    }

    fn number(&mut self, width: usize, element: &str) -> Result<i32, String> {
        let number = self.rest.get(..width).filter(|text| text.bytes().all(|c| c.is_ascii_digit()));
        let Some(number) = number.and_then(|text| text.parse().ok()) else {
            return self.bad(element);
        };
        self.rest = &self.rest[width..];
        Ok(number)
    }

    fn within(&self, number: i32, low: i32, high: i32, what: &str) -> Result<(), String> {
        if (low..=high).contains(&number) {
            return Ok(());
        }
        Err(format!("parsing time {:?}: {what} out of range", self.text))
    }

    /// Nanoseconds.
    fn fraction(&mut self, micro: bool) -> Result<i32, String> {
        let Some(rest) = self.rest.strip_prefix(['.', ',']) else {
            return if micro { self.bad(".000000") } else { Ok(0) };
        };
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if digits == 0 && !micro {
            return Ok(0);
        }
        if micro && digits < 6 {
            return self.bad(".000000");
        }
        let width = if micro { 6 } else { digits };
        self.rest = &rest[width..];
        let shown: String = rest[..width].chars().chain("000000000".chars()).take(9).collect();
        Ok(shown.parse().unwrap_or(0))
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Result<i32, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let element = "Z07:00";
        let bytes = self.rest.as_bytes();
        let shaped = bytes.len() >= 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|at| bytes[*at].is_ascii_digit());
        if !shaped {
            return self.bad(element);
        }
        let two = |at: usize| i32::from(bytes[at] - b'0') * 10 + i32::from(bytes[at + 1] - b'0');
        let (hours, minutes) = (two(1), two(4));
        self.within(hours, 0, 24, "time zone offset hour")?;
        self.within(minutes, 0, 60, "time zone offset minute")?;
        let seconds = hours * 3600 + minutes * 60;
        let sign = if bytes[0] == b'-' { -1 } else { 1 };
        self.rest = &self.rest[6..];
        Ok(sign * seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_become_utc() {
        let read = |text: &str| format(parse_rfc3339(text).unwrap());
        assert_eq!(read("2026-11-21T00:33:26Z"), "2026-11-21T00:33:26Z");
        assert_eq!(read("2026-11-21T00:33:26.987+02:00"), "2026-11-20T22:33:26Z");
        assert_eq!(read("2026-11-21T00:33:26.5-01:30"), "2026-11-21T02:03:26Z");
        let micro = parse_rfc3339_micro("2026-11-21T00:33:26.000120Z").unwrap();
        assert_eq!(format_micro(micro), "2026-11-21T00:33:26.000120Z");
    }

    #[test]
    fn refusals_speak_as_go_does() {
        let texts = [
            "abc",
            "",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-11-21 00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T00:00:00",
            "2026-11-21T00:00:00Zulu",
            "2026-11-21T00:00:00+99:00",
        ];
        let refusals: Vec<String> =
            texts.iter().map(|text| parse_rfc3339(text).unwrap_err()).collect();
        insta::assert_snapshot!(refusals.join("\n"));
        insta::assert_snapshot!(parse_rfc3339_micro("2026-11-21T00:00:00Z").unwrap_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,Z+-]{0,20}|\\PC*") {
            let _ = (parse_rfc3339(&text), parse_rfc3339_micro(&text));
        }

        #[test]
        fn printing_and_reading_is_the_same_time(seconds in -60_000_000_000i64..250_000_000_000) {
            let time = Timestamp::from_second(seconds).unwrap();
            prop_assert_eq!(parse_rfc3339(&format(time)), Ok(time));
            prop_assert_eq!(parse_rfc3339_micro(&format_micro(time)), Ok(time));
        }
    }
}
