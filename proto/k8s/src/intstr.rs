//! `intstr.IntOrString`: a number, or a percentage of one.

use serde_json::Value;

/// The number itself, or the percentage of `total`, rounded up or down; as upstream's
/// `GetScaledValueFromIntOrPercent`, with its texts.
pub fn scaled(value: &Value, total: i64, round_up: bool) -> Result<i64, String> {
    match value {
        Value::Number(number) => Ok(number.as_i64().unwrap_or_default()),
        Value::String(text) => {
            let percent =
                percent(text).map_err(|why| format!("invalid value for IntOrString: {why}"))?;
            let product = i128::from(percent) * i128::from(total);
            let whole = product.div_euclid(100);
            let up = round_up && product.rem_euclid(100) != 0;
            let result = whole + i128::from(up);
            Ok(result.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
        }
        _ => Err("nil value for IntOrString".to_string()),
    }
}

/// The number, or the number in the text, or 0.
pub fn int_value(value: &Value) -> i64 {
    match value {
        Value::Number(number) => number.as_i64().unwrap_or_default(),
        Value::String(text) => text.parse().unwrap_or_default(),
        _ => 0,
    }
}

fn percent(text: &str) -> Result<i64, String> {
    let Some(digits) = text.strip_suffix('%') else {
        return Err("invalid type: string is not a percentage".to_string());
    };
    digits.parse().map_err(|_| {
        let (text, digits) = (crate::text::go_quote(text), crate::text::go_quote(digits));
        format!("invalid value {text}: strconv.Atoi: parsing {digits}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn percentages_are_rounded_as_asked() {
        assert_eq!(scaled(&json!("25%"), 10, true), Ok(3));
        assert_eq!(scaled(&json!("25%"), 10, false), Ok(2));
        assert_eq!(scaled(&json!("100%"), 7, false), Ok(7));
        assert_eq!(scaled(&json!("-25%"), 10, true), Ok(-2));
        assert_eq!(scaled(&json!("9223372036854775807%"), i64::MAX, true), Ok(i64::MAX));
        assert_eq!(scaled(&json!(3), 10, true), Ok(3));
    }

    #[test]
    fn refusals_have_the_words_of_upstream() {
        assert_eq!(
            scaled(&json!("5"), 10, true),
            Err("invalid value for IntOrString: invalid type: string is not a percentage".into())
        );
        assert_eq!(
            scaled(&json!("x%"), 10, true),
            Err("invalid value for IntOrString: invalid value \"x%\": strconv.Atoi: parsing \
                 \"x\": invalid syntax"
                .into())
        );
        assert_eq!(scaled(&Value::Null, 10, true), Err("nil value for IntOrString".into()));
        assert_eq!(int_value(&json!("80")), 80);
        assert_eq!(int_value(&json!("http")), 0);
    }
}
