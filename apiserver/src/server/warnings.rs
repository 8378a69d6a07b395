//! `Warning` headers in upstream's form, and of what it warns in every answer: kinds whose days are
//! counted.

use super::Body;
use crate::kinds::KindDef;
use http::{HeaderValue, Response, header};

/// Characters of all warnings of one answer; beyond them each is cut to [`ITEM_CHARS`].
const TOTAL_CHARS: usize = 4 * 1024;
const ITEM_CHARS: usize = 256;

/// What one answer warns of: each text once, in order.
#[derive(Default)]
pub(super) struct Warnings(Vec<String>);

impl Warnings {
    pub(super) fn add_all(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            // Upstream sends no warning that has control characters in it, and does not count it.
            let sendable = !text.is_empty() && !text.chars().any(char::is_control);
            if sendable && !self.0.contains(&text) {
                self.0.push(text);
            }
        }
    }

    /// The texts as they go out: whole if they fit, else cut, and those beyond the bound left out.
    fn shown(&self) -> Vec<String> {
        let count = |text: &String| text.chars().count();
        if self.0.iter().map(count).sum::<usize>() <= TOTAL_CHARS {
            return self.0.clone();
        }
        let (mut shown, mut written) = (Vec::new(), 0);
        for text in &self.0 {
            if written >= TOTAL_CHARS {
                break;
            }
            let cut: String = text.chars().take(ITEM_CHARS).collect();
            written += count(&cut);
            shown.push(cut);
        }
        shown
    }

    pub(super) fn write(&self, response: &mut Response<Body>) {
        for text in self.shown() {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
    }
}

/// What is said of a kind that upstream has deprecated.
pub(super) fn deprecated(kind: &KindDef, version: &str) -> Option<String> {
    let text = match (kind.group, version, kind.kind) {
        ("", "v1", "ComponentStatus") => "v1 ComponentStatus is deprecated in v1.19+",
        ("", "v1", "Endpoints") => {
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
        }
        _ => return None,
    };
    Some(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(texts: &[String]) -> Vec<String> {
        let mut warnings = Warnings::default();
        warnings.add_all(texts.iter().cloned());
        let mut response = Response::new(crate::server::full(""));
        warnings.write(&mut response);
        let values = response.headers().get_all(header::WARNING).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    #[test]
    fn they_are_quoted_and_said_once() {
        let texts = ["unknown field \"a\\b\"", "ü", "", "ü", "a\nb"].map(str::to_string);
        assert_eq!(
            headers(&texts),
            [r#"299 - "unknown field \"a\\b\"""#, r#"299 - "ü""#].map(str::to_string)
        );
    }

    #[test]
    fn they_are_bounded() {
        let texts: Vec<String> = (0..100).map(|n| format!("{n:0>300}")).collect();
        let shown = headers(&texts);
        assert_eq!((shown.len(), shown[0].len()), (16, ITEM_CHARS + 8));
        let few: Vec<String> = (0..3).map(|n| format!("{n:0>300}")).collect();
        assert_eq!(headers(&few)[0].len(), 308);
    }
}
