//! A bucket of S3 or of what speaks like it. Addresses are signed here, bytes carried by an HTTPS
//! client. Who and where comes from the environment variables that AWS' own tools read.

use super::Error;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use reqwest::{Client, Method, Response, StatusCode, header};
use rusty_s3::{
    Bucket, Credentials, S3Action as _, UrlStyle,
    actions::{CompleteMultipartUploadResponse, CreateMultipartUpload, ListObjectsV2},
};
use std::{fmt, io, io::Read, pin::pin, sync::Arc, time::Duration};
use tokio::runtime::Handle;
use url::Url;

/// What is put at once; S3 takes 10,000 parts, so a backup may have 320 GB.
const PART_BYTES: usize = 32 << 20;
/// What is read at once.
const READ_BYTES: u64 = 8 << 20;
/// For one request, with all its bytes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an address that was signed may be used; a request is signed when it is sent.
const SIGNED_FOR: Duration = Duration::from_secs(600);
/// For answers of 5xx, 429, and none: after a pause that doubles each time.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// How much of a refusal is shown.
const REFUSAL_CHARS: usize = 300;

/// A bucket, and a prefix of names in it.
#[derive(Clone)]
pub struct S3 {
    inner: Arc<Inner>,
}

struct Inner {
    bucket: Bucket,
    credentials: Credentials,
    /// Empty, or ends with a slash.
    prefix: String,
    http: Client,
}

impl fmt::Display for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.inner.bucket.name(), self.inner.prefix)
    }
}

/// What to do with the object of a name.
enum Body {
    Nothing,
    Bytes(Bytes),
}

impl S3 {
    pub(super) fn new(
        name: &str,
        prefix: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<S3, Error> {
        let variable = |names: [&str; 2]| names.iter().find_map(|name| variable(name));
        let needed = |what: &str| {
            let missing = || Error::Target(format!("s3://{name}: ${what} is not set"));
            variable([what, what]).ok_or_else(missing)
        };
        let region = variable(["AWS_REGION", "AWS_DEFAULT_REGION"]);
        let region = region.unwrap_or_else(|| "us-east-1".to_string());
        let endpoint = variable(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        let style = if endpoint.is_some() { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint = secure(&endpoint)?;
        let (key, secret) = (needed("AWS_ACCESS_KEY_ID")?, needed("AWS_SECRET_ACCESS_KEY")?);
        let credentials = match variable(["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]) {
            None => Credentials::new(key, secret),
            Some(token) => Credentials::new_with_token(key, secret, token),
        };
        let bucket = Bucket::new(endpoint, style, name.to_string(), region)
            .map_err(|error| Error::Target(format!("s3://{name}: {error}")))?;
        let http = Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
        let http = http.build().map_err(|error| Error::Target(error.to_string()))?;
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(S3 { inner: Arc::new(Inner { bucket, credentials, prefix, http }) })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.inner.prefix)
    }

    /// Sends until there is an answer that is no passing trouble.
    async fn send(
        &self,
        method: Method,
        sign: impl Fn(&Bucket, &Credentials) -> Url,
        range: Option<(u64, u64)>,
        body: Body,
    ) -> Result<Response, Error> {
        let Inner { bucket, credentials, http, .. } = &*self.inner;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut request = http.request(method.clone(), sign(bucket, credentials));
            if let Some((first, last)) = range {
                request = request.header(header::RANGE, format!("bytes={first}-{last}"));
            }
            if let Body::Bytes(bytes) = &body {
                request = request.body(bytes.clone());
            }
            let passing = match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status();
                    let passing =
                        status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                    let text = answer.text().await.unwrap_or_default();
                    let text: String = text.chars().take(REFUSAL_CHARS).collect();
                    let error = self.error(format!("{status}: {text}"));
                    if !passing {
                        return Err(error);
                    }
                    error
                }
                // An address with a signature is nobody's business.
                Err(error) => self.error(error.without_url().to_string()),
            };
            if attempt == ATTEMPTS {
                return Err(passing);
            }
            tracing::debug!(error = %passing, attempt, "trying again");
            tokio::time::sleep(PAUSE * 2u32.pow(attempt - 1)).await;
        }
    }

    fn error(&self, why: impl fmt::Display) -> Error {
        Error::Server { what: self.to_string(), why: why.to_string() }
    }

    async fn text(&self, answer: Response) -> Result<String, Error> {
        answer.text().await.map_err(|error| self.error(error.without_url()))
    }

    pub(super) async fn list(&self) -> Result<Vec<(String, u64)>, Error> {
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            let sign = |bucket: &Bucket, credentials: &Credentials| {
                let mut list = bucket.list_objects_v2(Some(credentials));
                list.with_prefix(self.inner.prefix.as_str());
                list.with_delimiter("/");
                if let Some(token) = &token {
                    list.with_continuation_token(token.as_str());
                }
                list.sign(SIGNED_FOR)
            };
            let answer = self.send(Method::GET, sign, None, Body::Nothing).await?;
            let page = ListObjectsV2::parse_response(&self.text(answer).await?)
                .map_err(|error| self.error(format!("the list: {error}")))?;
            found.extend(page.contents.into_iter().filter_map(|object| {
                let name = object.key.strip_prefix(self.inner.prefix.as_str())?;
                Some((name.to_string(), object.size.unwrap_or_default()))
            }));
            match page.next_continuation_token {
                Some(next) => token = Some(next),
                None => return Ok(found),
            }
        }
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), Error> {
        let key = self.key(name);
        let sign = |bucket: &Bucket, credentials: &Credentials| {
            bucket.delete_object(Some(credentials), &key).sign(SIGNED_FOR)
        };
        self.send(Method::DELETE, sign, None, Body::Nothing).await.map(drop)
    }

    /// In one request if it fits, else in parts that become an object when all are there.
    pub(super) async fn put<E: fmt::Display>(
        &self,
        name: &str,
        pieces: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<u64, Error> {
        let key = self.key(name);
        let mut parts = pin!(parts(pieces));
        let Some(first) = parts.next().await else {
            return Err(Error::BrokeOff("nothing came".to_string()));
        };
        let (first, is_last) = first?;
        if is_last {
            let bytes = first.len() as u64;
            let sign = |bucket: &Bucket, credentials: &Credentials| {
                bucket.put_object(Some(credentials), &key).sign(SIGNED_FOR)
            };
            return self.send(Method::PUT, sign, None, Body::Bytes(first)).await.map(|_| bytes);
        }
        let upload = self.begin(&key).await?;
        let rest = futures::stream::iter([Ok((first, false))]).chain(parts);
        let put = self.put_parts(&key, &upload, rest).await;
        if put.is_err() {
            let sign = |bucket: &Bucket, credentials: &Credentials| {
                bucket.abort_multipart_upload(Some(credentials), &key, &upload).sign(SIGNED_FOR)
            };
            if let Err(error) = self.send(Method::DELETE, sign, None, Body::Nothing).await {
                tracing::warn!(%error, key, "parts of a backup that broke off are left behind");
            }
        }
        put
    }

    async fn begin(&self, key: &str) -> Result<String, Error> {
        let sign = |bucket: &Bucket, credentials: &Credentials| {
            bucket.create_multipart_upload(Some(credentials), key).sign(SIGNED_FOR)
        };
        let answer = self.send(Method::POST, sign, None, Body::Nothing).await?;
        let answer = CreateMultipartUpload::parse_response(&self.text(answer).await?)
            .map_err(|error| self.error(format!("the upload: {error}")))?;
        Ok(answer.upload_id().to_string())
    }

    async fn put_parts(
        &self,
        key: &str,
        upload: &str,
        parts: impl Stream<Item = Result<(Bytes, bool), Error>>,
    ) -> Result<u64, Error> {
        let (mut parts, mut tags, mut bytes) = (pin!(parts), Vec::new(), 0);
        while let Some(part) = parts.next().await {
            let (part, _) = part?;
            bytes += part.len() as u64;
            let number = u16::try_from(tags.len() + 1)
                .map_err(|_| self.error("a backup of more parts than there can be"))?;
            let sign = |bucket: &Bucket, credentials: &Credentials| {
                bucket.upload_part(Some(credentials), key, number, upload).sign(SIGNED_FOR)
            };
            let answer = self.send(Method::PUT, sign, None, Body::Bytes(part)).await?;
            let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
            tags.push(tag.ok_or_else(|| self.error("a part without an ETag"))?.to_string());
        }
        let complete = |bucket: &Bucket, credentials: &Credentials| {
            let tags = tags.iter().map(String::as_str);
            let complete = bucket.complete_multipart_upload(Some(credentials), key, upload, tags);
            (complete.sign(SIGNED_FOR), complete.body())
        };
        let (_, body) = complete(&self.inner.bucket, &self.inner.credentials);
        let sign = |bucket: &Bucket, credentials: &Credentials| complete(bucket, credentials).0;
        let answer = self.send(Method::POST, sign, None, Body::Bytes(body.into())).await?;
        // S3 may answer 200 and mean no.
        let text = self.text(answer).await?;
        CompleteMultipartUploadResponse::parse(&text).map_err(|_| {
            let text: String = text.chars().take(REFUSAL_CHARS).collect();
            self.error(format!("the upload was not completed: {text}"))
        })?;
        Ok(bytes)
    }
}

/// Pieces gathered to parts, each with whether it is the last.
fn parts<E: fmt::Display>(
    pieces: impl Stream<Item = Result<Bytes, E>>,
) -> impl Stream<Item = Result<(Bytes, bool), Error>> {
    let begin = (Box::pin(pieces), BytesMut::new(), false);
    futures::stream::unfold(begin, |(mut pieces, mut gathered, ended)| async move {
        if ended {
            return None;
        }
        loop {
            match pieces.next().await {
                Some(Ok(piece)) => gathered.extend_from_slice(&piece),
                Some(Err(error)) => {
                    let error = Error::BrokeOff(error.to_string());
                    return Some((Err(error), (pieces, gathered, true)));
                }
                None => {
                    return Some((Ok((gathered.freeze(), true)), (pieces, BytesMut::new(), true)));
                }
            }
            if gathered.len() >= PART_BYTES {
                let part = gathered.split().freeze();
                return Some((Ok((part, false)), (pieces, gathered, false)));
            }
        }
    })
}

/// An endpoint; unencrypted only on this machine.
fn secure(endpoint: &str) -> Result<Url, Error> {
    let refused = |why: &str| Error::Target(format!("{endpoint}: {why}"));
    let url = Url::parse(endpoint).map_err(|error| refused(&error.to_string()))?;
    let local = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if local => Ok(url),
        _ => Err(refused("backups go over https only")),
    }
}

/// An object, read in pieces as they are wanted: no connection stays open in between.
pub(super) struct Object {
    s3: S3,
    key: String,
    runtime: Handle,
    offset: u64,
    bytes: u64,
    piece: Bytes,
}

impl Object {
    /// Blocks.
    pub(super) fn open(s3: S3, name: &str) -> Result<Object, Error> {
        let (runtime, key) = (Handle::current(), s3.key(name));
        let mut object = Object { s3, key, runtime, offset: 0, bytes: 0, piece: Bytes::new() };
        object.fetch()?;
        Ok(object)
    }

    pub(super) fn size(&self) -> u64 {
        self.bytes
    }

    /// The next piece; none at the end.
    fn fetch(&mut self) -> Result<(), Error> {
        let range = (self.offset, self.offset + READ_BYTES - 1);
        let sign = |bucket: &Bucket, credentials: &Credentials| {
            bucket.get_object(Some(credentials), &self.key).sign(SIGNED_FOR)
        };
        let (s3, mut bytes) = (&self.s3, self.bytes);
        self.piece = self.runtime.block_on(async {
            let answer = s3.send(Method::GET, sign, Some(range), Body::Nothing).await?;
            let total = answer.headers().get(header::CONTENT_RANGE);
            let total =
                total.and_then(|range| range.to_str().ok()?.rsplit_once('/')?.1.parse().ok());
            bytes = total.ok_or_else(|| s3.error("an answer without Content-Range"))?;
            answer.bytes().await.map_err(|error| s3.error(error.without_url()))
        })?;
        self.bytes = bytes;
        self.offset += self.piece.len() as u64;
        Ok(())
    }
}

impl Read for Object {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.offset < self.bytes {
            self.fetch().map_err(io::Error::other)?;
        }
        let length = to.len().min(self.piece.len());
        to[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}
