//! Amounts of CPU and memory as the kernel wants them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths: millicores of CPU, thousandths of bytes of memory. Rounded up.
pub(crate) fn milli(quantity: &Quantity) -> Result<i128, String> {
    parse_milli(&quantity.0).ok_or_else(|| format!("{:?} is no quantity", quantity.0))
}

/// Whole units, rounded up; `None` if absent or unreadable.
pub(crate) fn whole(quantity: Option<&Quantity>) -> Option<i64> {
    let milli = milli(quantity?).ok()?;
    i64::try_from((milli + 999) / 1000).ok()
}

/// Thousandths; `None` if absent or unreadable.
pub(crate) fn thousandths(quantity: Option<&Quantity>) -> Option<i64> {
    i64::try_from(milli(quantity?).ok()?).ok()
}

fn parse_milli(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && !".+-".contains(c));
    let (number, suffix) = text.split_at(digits.unwrap_or(text.len()));
    let (multiplier, divisor): (i128, i128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        "Ei" => (1000 << 60, 1),
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10_i128.checked_pow(power)?.checked_mul(1000)?, 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scaled = whole.checked_mul(scale)?.checked_add(fraction)?.checked_mul(multiplier)?;
    let divisor = scale * divisor;
    Some((scaled + divisor - 1).div_euclid(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix() {
        let check = |text: &str| parse_milli(text);
        assert_eq!(check("250m"), Some(250));
        assert_eq!(check("1.5"), Some(1500));
        assert_eq!(check("0.0001"), Some(1));
        assert_eq!(check("64Mi"), Some((64 << 20) * 1000));
        assert_eq!(check("1e3"), Some(1_000_000));
        assert_eq!(check("100n"), Some(1));
        assert_eq!(check("1x"), None);
        assert_eq!(whole(Some(&Quantity("1500m".into()))), Some(2));
    }
}
