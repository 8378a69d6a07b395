//! Admission of connections: exec, attach, port-forward and proxies are decided on by what they ask
//! for, an options object (`PodExecOptions` and its fellows), which admission may change.

use crate::{admission, identity::Identity, kind::Kind, pipeline::Core, server::RequestInfo};
use k8s::{Object, Status};
use serde_json::Value;

/// Who asks, and where goes what is said besides yes and no.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) identity: &'a Identity,
    pub(crate) notes: &'a admission::Notes,
}

/// Asks admission about a connection; the options as they are to be.
pub(crate) async fn admit(
    core: &Core,
    info: &RequestInfo,
    asker: Asker<'_>,
    mut wanted: Object,
) -> Result<Object, Status> {
    let options = Default::default();
    let cx = admission::Cx {
        operation: admission::Operation::Connect,
        kind: asker.kind,
        version: &info.version,
        namespace: &info.namespace,
        name: &info.name,
        subresource: &info.subresource,
        identity: asker.identity,
        // What is connected to is not what is decided on: upstream shows no old object either.
        old: None,
        view: &*core.view,
        authorizer: &*core.authorizer,
        config: &core.config.admission,
        options: &options,
        dry_run: false,
        notes: asker.notes,
        machine: &core.machine,
        reader: core,
    };
    admission::mutate(&cx, &mut wanted).await?;
    admission::validate(&cx, &wanted).await?;
    Ok(wanted)
}

/// A connection cannot be tried.
pub(crate) fn refuse_dry_run(query: &str) -> Result<(), Status> {
    match url::form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == "dryRun") {
        true => Err(Status::bad_request("dryRun is not supported")),
        false => Ok(()),
    }
}

/// The options as a query again.
pub(crate) fn query(options: &Object) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (key, value) in &options.0 {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            match value {
                Value::String(text) => query.append_pair(key, text),
                other => query.append_pair(key, &other.to_string()),
            };
        }
    }
    query.finish()
}

/// The query as an options object.
pub(crate) fn options(query: &str) -> Object {
    let mut options = Object::default();
    let mut commands = Vec::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value: Value = match (&*key, &*value) {
            ("command", word) => {
                commands.push(Value::from(word));
                continue;
            }
            (_, "true" | "1") if key != "container" => true.into(),
            (_, "false" | "0") => false.into(),
            (_, text) => text.into(),
        };
        options.0.insert(key.into_owned(), value);
    }
    if !commands.is_empty() {
        options.0.insert("command".into(), commands.into());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_are_a_query_and_back() {
        let text = "command=sh&command=-c&container=1&stdin=true";
        let options = options(text);
        assert_eq!(options.0["command"], json!(["sh", "-c"]));
        assert_eq!((&options.0["stdin"], &options.0["container"]), (&json!(true), &json!("1")));
        assert_eq!(query(&options), text);
    }

    #[test]
    fn a_connection_cannot_be_tried() {
        assert!(refuse_dry_run("stdin=1&dryRun=All").is_err());
        assert!(refuse_dry_run("stdin=1").is_ok());
    }
}
