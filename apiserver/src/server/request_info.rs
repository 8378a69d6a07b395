//! What a request line asks for: one parser for every path, no route per kind.

use http::Method;

/// The parts of a request that routing and authorization look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// As RBAC names it; for a path that is no resource, the method in lower case.
    pub(crate) verb: String,
    /// False for `/version`, `/apis`, …
    pub(crate) is_resource: bool,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: String,
    /// Behind the subresource: the path asked of a proxy, with its slash.
    pub(crate) rest: String,
    pub(crate) path: String,
    /// Of a list or watch, as it was sent.
    pub(crate) field_selector: String,
}

/// Upstream's special case: these hang below a namespace without being resources in it.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

impl RequestInfo {
    /// `watching` is the query's `watch`; `named` the name a field selector fixes (so that RBAC with
    /// `resourceNames` can allow such lists and watches).
    pub(crate) fn parse(
        method: &Method,
        path: &str,
        watching: bool,
        named: Option<&str>,
    ) -> RequestInfo {
        let mut info = RequestInfo {
            verb: method.as_str().to_ascii_lowercase(),
            path: path.to_string(),
            ..RequestInfo::default()
        };
        let decoded: Vec<String> = path.trim_matches('/').split('/').map(percent_decode).collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let mut rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = version.to_string();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = group.to_string();
                info.version = version.to_string();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        let legacy_watch = rest.len() > 1 && rest[0] == "watch";
        if legacy_watch {
            rest = &rest[1..];
        }
        info.place(rest);
        info.verb = verb(method, &info.name, watching || legacy_watch).to_string();
        if info.name.is_empty() && matches!(info.verb.as_str(), "list" | "watch") {
            info.name = named.unwrap_or_default().to_string();
        }
        info
    }

    /// `[namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE[/REST]]]`
    fn place(&mut self, parts: &[&str]) {
        let parts = match parts {
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = namespace.to_string();
                let of_itself =
                    rest.first().is_none_or(|next| NAMESPACE_SUBRESOURCES.contains(next));
                if of_itself { parts } else { rest }
            }
            parts => parts,
        };
        let part = |index: usize| parts.get(index).copied().unwrap_or_default().to_string();
        self.resource = part(0);
        self.name = part(1);
        self.subresource = part(2);
        if parts.len() > 3 {
            self.rest = format!("/{}", parts[3..].join("/"));
        }
    }
}

fn verb(method: &Method, name: &str, watching: bool) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        // What routing refuses, nobody is to be granted by a right to read.
        ref other if !matches!(*other, Method::GET | Method::HEAD) => "",
        _ if watching => "watch",
        _ if name.is_empty() => "list",
        _ => "get",
    }
}

/// `%2F` and the like; what is no escape stays.
pub(crate) fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_string();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escape = (bytes[index] == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escape {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(method: Method, path: &str) -> String {
        let info = RequestInfo::parse(&method, path, false, None);
        if !info.is_resource {
            return format!("{} {}", info.verb, info.path);
        }
        let fields = [
            &info.verb,
            &info.group,
            &info.version,
            &info.namespace,
            &info.resource,
            &info.name,
            &info.subresource,
            &info.rest,
        ];
        fields.map(String::as_str).join("|")
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let get = |path: &str| line(Method::GET, path);
        assert_eq!(get("/version"), "get /version");
        assert_eq!(get("/apis/apps/v1"), "get /apis/apps/v1");
        assert_eq!(get("/api/v1/nodes"), "list||v1||nodes|||");
        assert_eq!(get("/api/v1/namespaces"), "list||v1||namespaces|||");
        assert_eq!(get("/api/v1/namespaces/a"), "get||v1|a|namespaces|a||");
        assert_eq!(get("/api/v1/namespaces/a/status"), "get||v1|a|namespaces|a|status|");
        assert_eq!(get("/api/v1/namespaces/a/pods"), "list||v1|a|pods|||");
        assert_eq!(get("/api/v1/namespaces/a/pods/b/log"), "get||v1|a|pods|b|log|");
        assert_eq!(get("/api/v1/nodes/n/proxy/a/b"), "get||v1||nodes|n|proxy|/a/b");
        assert_eq!(get("/apis/apps/v1/watch/deployments"), "watch|apps|v1||deployments|||");
        let delete = |path: &str| line(Method::DELETE, path);
        assert_eq!(
            delete("/apis/apps/v1/namespaces/a/deployments"),
            "deletecollection|apps|v1|a|deployments|||"
        );
    }
}
