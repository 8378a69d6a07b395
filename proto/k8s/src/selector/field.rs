//! Selectors of fields: `status.phase=Running,spec.nodeName!=a`.

use std::fmt;

/// One field equals a text, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// All requirements hold; without any, everything is selected. Which fields a kind has is checked by
/// whoever knows the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Selects every object.
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    /// Reads `a=b,c==d,e!=f`; `\`, `,` and `=` in a value are escaped by `\`.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let Some((field, equal, value)) = split_term(term) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            let requirement =
                FieldRequirement { field: field.to_string(), equal, value: unescape(value)? };
            requirements.push(requirement);
        }
        Ok(FieldSelector { requirements })
    }

    /// Exactly one field equals `value`.
    pub fn equal(field: &str, value: &str) -> FieldSelector {
        let requirement =
            FieldRequirement { field: field.into(), equal: true, value: value.into() };
        FieldSelector { requirements: vec![requirement] }
    }

    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// True if it selects every object.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that `field` must equal, if there is one: the index to use.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        let mut exact = self.requirements.iter().filter(|one| one.equal);
        exact.find(|one| one.field == field).map(|one| one.value.as_str())
    }

    /// `lookup` gives the text of a field, empty if absent.
    pub fn matches<T: AsRef<str>>(&self, lookup: impl Fn(&str) -> T) -> bool {
        self.requirements.iter().all(|one| (lookup(&one.field).as_ref() == one.value) == one.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if one.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", one.field, escape(&one.value))?;
        }
        Ok(())
    }
}

impl std::str::FromStr for FieldSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        FieldSelector::parse(text)
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    let terms = text.split(move |c| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    });
    terms.collect()
}

/// The name ends where the first operator begins; a lone `!` belongs to it.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.match_indices(['=', '!']).find_map(|(at, _)| {
        let (field, rest) = term.split_at(at);
        if let Some(value) = rest.strip_prefix("!=") {
            return Some((field, false, value));
        }
        let value = rest.strip_prefix("==").or(rest.strip_prefix('='))?;
        Some((field, true, value))
    })
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

fn unescape(value: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => {
                    let sequence = format!("\\{}", other.map(String::from).unwrap_or_default());
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: {sequence}"
                    ));
                }
            },
            ',' | '=' => {
                let code = c as u32;
                return Err(format!(
                    "invalid field selector: unescaped character in value: {code}"
                ));
            }
            _ => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        match FieldSelector::parse(text) {
            Ok(selector) => selector.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn selectors_are_read_as_upstream_reads_them() {
        let cases = [
            ("", ""),
            ("a=b", "a=b"),
            ("a==b", "a=b"),
            ("b!=c,a=b", "a=b,b!=c"),
            ("a=", "a="),
            (",,a=b,", "a=b"),
            (r"a=b\,c\=d\\", r"a=b\,c\=d\\"),
            ("a", "error: invalid selector: 'a'; can't understand 'a'"),
            ("a=b=c", "error: invalid field selector: unescaped character in value: 61"),
            (r"a=\x", r"error: invalid field selector: invalid escape sequence: \x"),
            (r"a=\", r"error: invalid field selector: invalid escape sequence: \"),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text), wanted, "{text}");
        }
    }

    #[test]
    fn an_absent_field_is_empty_text() {
        let lookup = |field: &str| if field == "phase" { "Running" } else { "" };
        let matches = |text: &str| FieldSelector::parse(text).unwrap().matches(lookup);
        assert!(matches("phase=Running,node="));
        assert!(matches("phase!=Failed"));
        assert!(!matches("phase=Running,node=a"));
        assert!(!matches("node!="));
        let selector = FieldSelector::parse("node=a,x!=y").unwrap();
        assert_eq!(selector.required_value("node"), Some("a"));
        assert_eq!(selector.required_value("x"), None);
    }

    proptest! {
        #[test]
        fn printing_and_reading_is_the_same_selector(
            values in prop::collection::btree_map("[a-c.]{1,3}", "[a,=\\\\!b]{0,4}", 0..3)
        ) {
            let text: Vec<String> =
                values.iter().map(|(field, value)| format!("{field}={}", escape(value))).collect();
            let selector = FieldSelector::parse(&text.join(",")).unwrap();
            prop_assert_eq!(selector.requirements().len(), values.len());
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn nothing_panics(text in "[a-b=!,\\\\é]{0,12}|\\PC{0,12}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
