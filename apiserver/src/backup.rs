//! A backup of this master's store, as one stream of bytes: what `coxswain backup create` asks for.
//! Any master gives one; what is sealed at rest stays sealed.

use crate::{
    errors,
    pipeline::Core,
    server::{Body, BoxError},
};
use futures::stream;
use http::{HeaderValue, Method, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s::Status;
use raft_store::backup::{Error, Since, Taken};

/// `?since=` is the JSON of what the backup is to continue.
const PATH: &str = "/coxswain/backup";

/// The answer to a request for a backup; `None` for other paths.
pub(crate) async fn answer(
    core: &Core,
    method: &Method,
    path: &str,
    query: &str,
) -> Option<Result<Response<Body>, Status>> {
    if path != PATH || *method != Method::GET {
        return None;
    }
    Some(begin(core, query).await)
}

async fn begin(core: &Core, query: &str) -> Result<Response<Body>, Status> {
    let since = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "since");
    let since: Option<Since> = since
        .map(|(_, text)| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| Status::bad_request(format!("since: {error}")))?;
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
    let Taken { stream, header } = core.store.backup(now, since).await.map_err(status)?;
    tracing::info!(id = header.id, revision = %header.revision, "a backup is being taken");
    // An error ends the body before its time: the client sees that it is not whole.
    let frames = stream::unfold(stream, |mut stream| async {
        let piece = stream.recv().await?;
        Some((piece.map(Frame::data).map_err(BoxError::from), stream))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    let media = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    Ok(response)
}

fn status(error: Error) -> Status {
    match error {
        Error::Member(error) => errors::status(error),
        Error::Compacted { .. } => Status::expired(error.to_string()),
        Error::Mismatch(why) => Status::new(409, "Conflict", why),
        Error::Refused(why) => Status::not_implemented(why),
        Error::Unnamed => Status::unavailable(error.to_string(), 1),
        Error::Damaged { .. } | Error::Newer { .. } | Error::Io { .. } => {
            Status::internal(error.to_string())
        }
    }
}
