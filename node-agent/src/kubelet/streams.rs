//! Exec and attach: which process, and by which protocol the client speaks with it.

use super::{
    Kubelet, Refusal,
    client::{Client, converse, refuse},
    socket::{self, Wants},
    spdystream,
};
use crate::runtime::{Error, ExecSpec, Session};
use axum::{
    extract::{Path, RawQuery, Request, State},
    response::Response,
};
use futures::future::BoxFuture;

/// The options in the query: of upstream's kubelet, and of the API.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn parse(query: &str) -> Wanted {
        let mut wanted = Wanted::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let yes = value == "1" || value == "true";
            match name.as_ref() {
                "command" => wanted.command.push(value.into_owned()),
                "input" | "stdin" => wanted.stdin |= yes,
                "output" | "stdout" => wanted.stdout |= yes,
                "error" | "stderr" => wanted.stderr |= yes,
                "tty" => wanted.tty |= yes,
                _ => {}
            }
        }
        wanted
    }

    fn streams(&self) -> Result<Wants, Refusal> {
        if !(self.stdin || self.stdout || self.stderr) {
            let text = "you must specify at least 1 of stdin, stdout, stderr";
            return Err(Refusal::bad_request(text));
        }
        let Wanted { stdin, stdout, stderr, tty, .. } = *self;
        Ok(Wants { stdin, stdout, stderr, tty })
    }

    fn spec(self) -> ExecSpec {
        ExecSpec {
            command: self.command,
            tty: self.tty,
            stdin: self.stdin,
            stdout: self.stdout,
            // A terminal has one output.
            stderr: self.stderr && !self.tty,
        }
    }
}

type Target = (String, String, String);
type Begun = BoxFuture<'static, Result<Session, Error>>;

pub(super) async fn exec(
    State(kubelet): State<Kubelet>,
    Path((namespace, pod, container)): Path<Target>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refusal> {
    let wanted = Wanted::parse(&query.unwrap_or_default());
    if wanted.command.is_empty() {
        return Err(Refusal::bad_request(
            "you must specify at least one command for the container",
        ));
    }
    let wants = wanted.streams()?;
    let (uid, id) = kubelet.running(&namespace, &pod, &container).await?;
    let (spec, runtime) = (wanted.spec(), kubelet.runtime.clone());
    let begin = Box::pin(async move { runtime.exec(&uid, &id, &spec).await });
    speak(request, wants, begin).await
}

pub(super) async fn attach(
    State(kubelet): State<Kubelet>,
    Path((namespace, pod, container)): Path<Target>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refusal> {
    let wanted = Wanted::parse(&query.unwrap_or_default());
    let wants = wanted.streams()?;
    let spec = ExecSpec { command: Vec::new(), ..wanted.spec() };
    let (uid, id) = kubelet.running(&namespace, &pod, &container).await?;
    let runtime = kubelet.runtime.clone();
    let begin = Box::pin(async move { runtime.attach(&uid, &id, &spec).await });
    speak(request, wants, begin).await
}

/// Hands the connection over, then begins the process and lets both talk.
async fn speak(request: Request, wants: Wants, begin: Begun) -> Result<Response, Refusal> {
    if spdystream::is_asked(request.headers()) {
        let mut upgrade = spdystream::negotiate(request)?;
        let response = std::mem::take(&mut upgrade.response);
        tokio::spawn(async move {
            if let Some(client) = upgrade.client(wants).await {
                talk(client, begin).await;
            }
        });
        return Ok(response);
    }
    let (upgrade, dialect) = socket::negotiate(request).await?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        talk(socket::client(socket, dialect, wants).await, begin).await;
    }))
}

async fn talk(client: Client, begin: Begun) {
    match begin.await {
        Ok(session) => converse(client, session).await,
        Err(error) => refuse(client, &error.text()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_options() {
        let wanted = Wanted::parse("command=sh&command=-c&command=a%20b&input=1&output=1&tty=true");
        let expected = Wanted {
            command: vec!["sh".into(), "-c".into(), "a b".into()],
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        assert_eq!(wanted, expected);
        assert!(!Wanted::parse("stdin=true&stdout=true&stderr=true&tty=true").spec().stderr);
        assert!(Wanted::parse("command=sh").streams().is_err());
    }
}
