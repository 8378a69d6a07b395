//! Links in what a proxied backend says: those to itself are led back through the proxy. Redirects
//! always, HTML where it is plain text and not too long.

use url::Url;

/// HTML that is longer goes through as it is.
pub(crate) const HTML_BYTES_MAX: usize = 4 << 20;

/// Attributes that hold a URL, by element (HTML's index of attributes).
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// What is known of the proxied page.
pub(crate) struct Page<'a> {
    /// The path of the proxy, without a slash at its end.
    pub(crate) prefix: &'a str,
    /// The backend's own `host:port`, and the host the client named.
    pub(crate) hosts: [&'a str; 2],
}

impl Page<'_> {
    /// The URL as the client must follow it; relative and foreign ones stay as they are.
    pub(crate) fn link(&self, target: &str) -> String {
        let (host, path) = match target.strip_prefix("//") {
            Some(rest) => split_host(rest),
            None => match Url::parse(target) {
                Ok(url) if url.has_host() => {
                    let rest = target.split_once("://").map_or("", |(_, rest)| rest);
                    split_host(rest)
                }
                // `mailto:` and the like.
                Ok(_) => return target.to_string(),
                Err(_) => ("", target),
            },
        };
        let foreign = !host.is_empty() && !self.hosts.contains(&host);
        if foreign || !path.starts_with('/') {
            return target.to_string();
        }
        if path.starts_with(self.prefix) {
            return path.to_string();
        }
        format!("{}{path}", self.prefix)
    }

    /// The page with its links rewritten; everything else to the byte.
    pub(crate) fn rewrite(&self, html: &str) -> String {
        let mut out = String::with_capacity(html.len() + 256);
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with("<!--") {
                let end = rest.find("-->").map_or(rest.len(), |end| end + 3);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            let end = tag_end(rest);
            let (tag, after) = rest.split_at(end);
            self.tag(tag, &mut out);
            rest = after;
            // What is in a script is no markup.
            let name = element(tag);
            if name == "script" || name == "style" {
                let close = format!("</{name}");
                let end = rest.to_ascii_lowercase().find(&close).unwrap_or(rest.len());
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
        out.push_str(rest);
        out
    }

    fn tag(&self, tag: &str, out: &mut String) {
        let name = element(tag);
        let Some((_, wanted)) = ATTRIBUTES.iter().find(|(known, _)| *known == name) else {
            return out.push_str(tag);
        };
        let mut rest = tag;
        while let Some((attribute, value)) = next_attribute(rest) {
            let begin = value.as_ptr() as usize - rest.as_ptr() as usize;
            out.push_str(&rest[..begin]);
            if wanted.contains(&attribute.as_str()) {
                out.push_str(&self.link(value));
            } else {
                out.push_str(value);
            }
            rest = &rest[begin + value.len()..];
        }
        out.push_str(rest);
    }
}

fn split_host(rest: &str) -> (&str, &str) {
    match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}

/// Behind the tag's `>`, which may stand in quotes before.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (None, '>') => return at + 1,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    text.len()
}

/// The name of an opening tag's element, in lower case; empty for anything else.
fn element(tag: &str) -> String {
    let name = tag.trim_start_matches('<');
    let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    name[..end].to_ascii_lowercase()
}

/// The next `name="value"` (or with other quotes, or none) in a tag.
fn next_attribute(tag: &str) -> Option<(String, &str)> {
    let mut from = 0;
    loop {
        let equals = from + tag[from..].find('=')?;
        let name = tag[..equals].trim_end();
        let begin = name.rfind(|c: char| c.is_whitespace() || c == '/' || c == '"' || c == '\'');
        let name = name[begin.map_or(0, |at| at + 1)..].to_ascii_lowercase();
        let value = tag[equals + 1..].trim_start();
        let value = match value.chars().next()? {
            quote @ ('"' | '\'') => {
                let value = &value[1..];
                &value[..value.find(quote)?]
            }
            _ => &value[..value.find(|c: char| c.is_whitespace() || c == '>')?],
        };
        if !name.is_empty() && !value.is_empty() {
            return Some((name, value));
        }
        from = equals + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page<'_> = Page {
        prefix: "/api/v1/namespaces/a/pods/http:b:80/proxy",
        hosts: ["10.1.0.1:80", "localhost:8001"],
    };

    #[test]
    fn links_to_itself_lead_back() {
        let link = |target: &str| PAGE.link(target);
        assert_eq!(link("/x/"), "/api/v1/namespaces/a/pods/http:b:80/proxy/x/");
        assert_eq!(link("http://10.1.0.1:80/x"), "/api/v1/namespaces/a/pods/http:b:80/proxy/x");
        assert_eq!(link("//localhost:8001/x"), "/api/v1/namespaces/a/pods/http:b:80/proxy/x");
        assert_eq!(link("http://example.org/x"), "http://example.org/x");
        for same in ["x", "?a=b", "#c", "mailto:a@b.c", ""] {
            assert_eq!(link(same), same);
        }
        let there = "/api/v1/namespaces/a/pods/http:b:80/proxy/x";
        assert_eq!(link(there), there);
    }

    #[test]
    fn pages_keep_everything_else() {
        let check = |html: &str| PAGE.rewrite(html).replace(PAGE.prefix, "P");
        assert_eq!(check(r#"<a href="/rewriteme">test</a>"#), r#"<a href="P/rewriteme">test</a>"#);
        assert_eq!(check("<A class=x HREF='/a' >"), "<A class=x HREF='P/a' >");
        assert_eq!(check("<img src=/a.png>"), "<img src=P/a.png>");
        assert_eq!(check("<p href=\"/a\">1 < 2"), "<p href=\"/a\">1 < 2");
        let script = "<script src=\"/s.js\">if (a<b) { x = '<a href=\"/n\">' }</script>";
        assert_eq!(check(script), script.replace("\"/s.js", "\"P/s.js"));
        assert_eq!(check("<!-- <a href=\"/a\"> -->"), "<!-- <a href=\"/a\"> -->");
        assert_eq!(check("<a href="), "<a href=");
        assert_eq!(check("<a title=\"a>b\" href=\"/c\">"), "<a title=\"a>b\" href=\"P/c\">");
    }
}
