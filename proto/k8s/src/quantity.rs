//! `resource.Quantity`: an exact decimal number with the notation it was written in
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The smallest step: 10⁻⁹. Smaller parts are rounded away from zero, as upstream does.
const NANO: i32 = -9;
/// Beyond this no arithmetic means anything; upstream would compute with it for minutes.
const EXPONENT_MAX: i32 = 1000;

/// How a quantity is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySI,
    /// `12M`
    #[default]
    DecimalSI,
}

/// `mantissa × 10^scale`, with `scale >= -9`. Equality and order are those of the number; the format
/// plays no part. Arithmetic that leaves 128 bits saturates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    scale: i32,
    format: Format,
}

/// Why a text is no quantity; the texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error(
        "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The parts of a text: sign, digits before and after the point, suffix.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

#[expect(
    clippy::should_implement_trait,
    reason = "a sum keeps a format and saturates, which `+` would hide"
)]
impl Quantity {
    pub const ZERO: Quantity = Quantity { mantissa: 0, scale: 0, format: Format::DecimalSI };

    pub fn new(value: i64, format: Format) -> Quantity {
        Quantity { mantissa: value.into(), scale: 0, format }
    }

    /// `value` thousandths, such as millicores.
    pub fn from_milli(value: i64) -> Quantity {
        Quantity { mantissa: value.into(), scale: -3, format: Format::DecimalSI }
    }

    /// Reads `100m`, `1.5Gi`, `12e6`, ….
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let parts = split(text)?;
        let (base, exponent, format) = read_suffix(parts.suffix)?;
        let mut mantissa = digits(parts.whole, parts.fraction).ok_or(QuantityError::Numeric)?;
        let mut scale = -(parts.fraction.len() as i32);
        if base == 10 {
            scale = scale.saturating_add(exponent);
        } else {
            mantissa = mantissa.saturating_mul(1 << exponent);
        }
        if mantissa == 0 {
            return Ok(Quantity { mantissa: 0, scale: 0, format });
        }
        // What is bounded is the number, however many of its zeros are in the exponent.
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            scale += 1;
        }
        scale = scale.min(EXPONENT_MAX);
        if scale < NANO {
            mantissa = divide_up(mantissa, scale.abs_diff(NANO));
            scale = NANO;
        }
        let mut quantity = Quantity { mantissa, scale, format };
        let largest = Quantity::new(i64::MAX, format);
        if format == Format::BinarySI && quantity > largest {
            quantity = largest;
        }
        if parts.negative {
            quantity.mantissa = -quantity.mantissa;
        }
        Ok(quantity)
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// The sum, in the format of the first that is not zero.
    pub fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        let (left, right, scale) = aligned(self, other);
        Quantity { mantissa: left.saturating_add(right), scale, format }
    }

    /// The difference, in the format of the first that is not zero.
    pub fn sub(self, other: Quantity) -> Quantity {
        self.add(other.negated())
    }

    pub fn negated(self) -> Quantity {
        Quantity { mantissa: self.mantissa.saturating_neg(), ..self }
    }

    /// `self × factor`.
    pub fn mul(self, factor: i64) -> Quantity {
        Quantity { mantissa: self.mantissa.saturating_mul(factor.into()), ..self }
    }

    /// The whole number, rounded away from zero; saturates.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// The nearest double, or one beside it.
    pub fn approximate(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }

    /// In thousandths, rounded away from zero; saturates.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    fn scaled(&self, scale: i32) -> i64 {
        let wide = if self.scale >= scale {
            times_ten(self.mantissa, self.scale.abs_diff(scale))
        } else {
            divide_up(self.mantissa, self.scale.abs_diff(scale))
        };
        wide.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// `Some` if the number has no fraction.
    fn whole(&self) -> Option<i128> {
        if self.scale >= 0 {
            return Some(times_ten(self.mantissa, self.scale.unsigned_abs()));
        }
        let divisor = 10i128.checked_pow(self.scale.unsigned_abs())?;
        (self.mantissa % divisor == 0).then(|| self.mantissa / divisor)
    }
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let take = |text: &str, wanted: fn(char) -> bool| {
        text.find(|c: char| !wanted(c)).unwrap_or(text.len())
    };
    let digit = |c: char| c.is_ascii_digit();
    let (whole, rest) = rest.split_at(take(rest, digit));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(take(rest, digit)),
        None => ("", rest),
    };
    // A suffix is letters, then a sign and digits; what follows it is refused.
    let letters = take(rest, |c| "eEinumkKMGTP".contains(c));
    let tail = &rest[letters..];
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.chars().all(|c| c.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole, fraction, suffix: rest })
}

fn read_suffix(suffix: &str) -> Result<(u32, i32, Format), QuantityError> {
    let decimal = |exponent| Ok((10, exponent, Format::DecimalSI));
    let binary = |exponent| Ok((2, exponent, Format::BinarySI));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent: i64 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            let bound = i64::from(EXPONENT_MAX);
            Ok((10, exponent.clamp(-bound, bound) as i32, Format::DecimalExponent))
        }
    }
}

/// The digits as one number; digits beyond 128 bits saturate.
fn digits(whole: &str, fraction: &str) -> Option<i128> {
    let mut number = 0i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = i128::from(digit.checked_sub(b'0')?);
        number = number.saturating_mul(10).saturating_add(digit);
    }
    Some(number)
}

fn times_ten(number: i128, times: u32) -> i128 {
    if number == 0 {
        return 0;
    }
    let factor = 10i128.checked_pow(times).unwrap_or(i128::MAX);
    number.saturating_mul(factor)
}

/// `number / 10^times`, away from zero.
fn divide_up(number: i128, times: u32) -> i128 {
    let Some(divisor) = 10i128.checked_pow(times) else {
        return number.signum();
    };
    let result = number / divisor;
    if number % divisor == 0 { result } else { result + number.signum() }
}

/// Both mantissas at one scale, the smaller where that fits in 128 bits.
fn aligned(left: Quantity, right: Quantity) -> (i128, i128, i32) {
    let scale = match (left.is_zero(), right.is_zero()) {
        (true, _) => right.scale,
        (_, true) => left.scale,
        _ => left.scale.min(right.scale),
    };
    let at = |q: Quantity| {
        if q.is_zero() { 0 } else { times_ten(q.mantissa, q.scale.abs_diff(scale)) }
    };
    (at(left), at(right), scale)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.sign().cmp(&other.sign());
        if signs != Ordering::Equal || self.is_zero() {
            return signs;
        }
        let scale = self.scale.min(other.scale);
        let at = |q: &Quantity| {
            let factor = 10i128.checked_pow(q.scale.abs_diff(scale))?;
            q.mantissa.checked_mul(factor)
        };
        match (at(self), at(other)) {
            (Some(left), Some(right)) => left.cmp(&right),
            // What does not fit is the larger magnitude; the other is at its own scale and fits.
            (None, _) => self.sign().cmp(&0),
            (_, None) => 0.cmp(&other.sign()),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Quantity::parse(text)
    }
}

/// The canonical form: no fraction, the largest suffix that keeps it exact.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        if self.format == Format::BinarySI
            && let Some(whole) = self.whole().filter(|whole| whole.unsigned_abs() >= 1024)
        {
            return write_binary(f, whole);
        }
        let (mut number, mut exponent) = (self.mantissa, self.scale);
        while number % 10 == 0 {
            number /= 10;
            exponent += 1;
        }
        let exact = self.format == Format::DecimalExponent;
        while exponent.rem_euclid(3) != 0 || (exponent > 18 && !exact) {
            // The same bound on both sides of zero, as when it is read.
            number = number.saturating_mul(10).max(-i128::MAX);
            exponent -= 1;
        }
        let suffix = match exponent {
            0 => "",
            _ if exact => return write!(f, "{number}e{exponent}"),
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{number}{suffix}")
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut number: i128) -> fmt::Result {
    let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter();
    let mut suffix = suffixes.next();
    while number % 1024 == 0
        && let Some(next) = suffixes.next()
    {
        number /= 1024;
        suffix = Some(next);
    }
    write!(f, "{number}{}", suffix.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        match Quantity::parse(text) {
            Ok(quantity) => quantity.to_string(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn texts_become_canonical() {
        let cases = [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1Ki", "1Ki"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1.1Ki", "1126400m"),
            ("0.1Mi", "104857600m"),
            ("100k", "100k"),
            ("1000k", "1M"),
            ("12e6", "12e6"),
            ("12000e3", "12e6"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("1e-3", "1e-3"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            ("0.0000000001", "1n"),
            ("-0.0000000001", "-1n"),
            ("1n", "1n"),
            ("100E", "100E"),
            ("1000E", "1000E"),
            ("16Ei", "9223372036854775807"),
            ("-", "0"),
        ];
        for (text, wanted) in cases {
            assert_eq!(canonical(text), wanted, "{text}");
        }
    }

    #[test]
    fn bad_texts_are_refused_as_upstream_refuses_them() {
        let cases = [
            ("", "Format"),
            ("abc", "Format"),
            ("1.2.3", "Format"),
            ("1Xi", "Format"),
            ("1 ", "Format"),
            ("1mi", "Suffix"),
            ("1ee", "Suffix"),
            ("1e", "Suffix"),
            ("1K", "Suffix"),
            ("1m5", "Suffix"),
        ];
        for (text, wanted) in cases {
            assert_eq!(canonical(text), wanted, "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        let read = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(read("1.1").value(), 2);
        assert_eq!(read("-1.1").value(), -2);
        assert_eq!(read("100m").milli_value(), 100);
        assert_eq!(read("1u").milli_value(), 1);
        assert_eq!(read("2Gi").value(), 2 << 30);
        assert_eq!(read("1e30").value(), i64::MAX);
    }

    #[test]
    fn sums_keep_the_format_of_the_first_that_is_not_zero() {
        let read = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(read("1Gi").add(read("512Mi")).to_string(), "1536Mi");
        assert_eq!(read("0").add(read("1Gi")).to_string(), "1Gi");
        assert_eq!(read("1").sub(read("250m")).to_string(), "750m");
        assert_eq!(Quantity::from_milli(1500).mul(2).to_string(), "3");
        assert_eq!(Quantity::ZERO.sub(read("1e900")).sign(), -1);
    }

    /// Found by fuzzing: zeros of the number once made an exponent that was cut when read again.
    #[test]
    fn the_vastest_reads_as_it_is_shown() {
        let shown = canonical("600000000000E600000000");
        assert_eq!((shown.as_str(), canonical(&shown).as_str()), ("60e999", "60e999"));
        let least = canonical("-33333333333333300153995510616333333333333330E3588490");
        assert_eq!(canonical(&least), least);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[-+]?[0-9.]{0,50}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,20}|\\PC*") {
            if let Ok(quantity) = Quantity::parse(&text) {
                let _ = (quantity.to_string(), quantity.value(), quantity.milli_value());
                let _ = quantity.add(quantity).sub(Quantity::from_milli(1)).mul(i64::MIN);
            }
        }

        #[test]
        fn printing_and_reading_is_the_same_number(
            number in -1_000_000_000_000i64..1_000_000_000_000,
            suffix in prop::sample::select(vec!["", "m", "u", "n", "k", "M", "Ki", "Mi", "Gi", "e2"]),
        ) {
            let quantity = Quantity::parse(&format!("{number}{suffix}")).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        #[test]
        fn order_is_that_of_the_numbers(a in any::<i32>(), b in any::<i32>(), up in 0u32..3) {
            let (units, millis) = (Quantity::new(a.into(), Format::BinarySI), Quantity::from_milli(b.into()));
            prop_assert_eq!(units.cmp(&millis), (i64::from(a) * 1000).cmp(&i64::from(b)));
            let wide = Quantity { mantissa: b.into(), scale: 30 + up as i32, format: Format::DecimalSI };
            prop_assert_eq!(wide.cmp(&Quantity::ZERO), b.cmp(&0));
            prop_assert_eq!(units.add(millis).sub(millis), units);
        }
    }
}
