use super::{Error, Place, Shelf};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use futures::stream;
use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, Mutex},
};

const NAME: &str = "coxswain-0123abcd-20270115T080000Z-r7-aa.full.cxb";

/// As much of S3 as backups need. It takes whoever signs with the right name; signatures are the
/// signing crate's.
#[derive(Clone, Default)]
struct FakeS3 {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    uploads: Arc<Mutex<BTreeMap<String, Parts>>>,
    /// So many requests fail for a moment first.
    trouble: Arc<Mutex<u32>>,
}

/// By number.
type Parts = BTreeMap<u16, Vec<u8>>;
type Parameters = BTreeMap<String, String>;

async fn bucket(State(s3): State<FakeS3>, Query(query): Query<Parameters>) -> Response {
    let Some(prefix) = query.get("prefix") else { return StatusCode::BAD_REQUEST.into_response() };
    let objects = s3.objects.lock().expect("no panic");
    // One on each page.
    let after = query.get("continuation-token").cloned().unwrap_or_default();
    let mut rest = objects.iter().filter(|(key, _)| key.starts_with(prefix) && **key > after);
    let entry = |(key, bytes): (&String, &Vec<u8>)| {
        let size = bytes.len();
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>\"e\"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    };
    let first = rest.next();
    let next = first
        .filter(|_| rest.next().is_some())
        .map(|(key, _)| format!("<NextContinuationToken>{key}</NextContinuationToken>"));
    let (contents, next) = (first.map(entry).unwrap_or_default(), next.unwrap_or_default());
    let truncated = !next.is_empty();
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>b</Name><Prefix>{prefix}</Prefix><MaxKeys>1000</MaxKeys>\
         <IsTruncated>{truncated}</IsTruncated>{contents}{next}</ListBucketResult>"
    )
    .into_response()
}

async fn object(
    State(s3): State<FakeS3>,
    method: Method,
    Path((_, key)): Path<(String, String)>,
    Query(query): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !query.get("X-Amz-Credential").is_some_and(|signer| signer.starts_with("me/")) {
        return StatusCode::FORBIDDEN.into_response();
    }
    {
        let mut trouble = s3.trouble.lock().expect("no panic");
        if *trouble > 0 {
            *trouble -= 1;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    let (mut objects, mut uploads) =
        (s3.objects.lock().expect("no panic"), s3.uploads.lock().expect("no panic"));
    let xml = |name: &str, inner: &str| {
        format!("<{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{name}>")
    };
    let upload = query.get("uploadId").cloned();
    match (method, upload) {
        (Method::POST, None) => {
            uploads.insert("u1".into(), BTreeMap::new());
            let inner = format!("<Bucket>b</Bucket><Key>{key}</Key><UploadId>u1</UploadId>");
            xml("InitiateMultipartUploadResult", &inner).into_response()
        }
        (Method::PUT, Some(upload)) => {
            let number: u16 = query["partNumber"].parse().expect("a number");
            uploads.get_mut(&upload).expect("begun").insert(number, body.to_vec());
            ([("etag", format!("\"part-{number}\""))], "").into_response()
        }
        (Method::POST, Some(upload)) => {
            let parts = uploads.remove(&upload).expect("begun");
            let text = String::from_utf8_lossy(&body).into_owned();
            assert!(parts.keys().all(|n| text.contains(&format!("part-{n}"))), "{text}");
            objects.insert(key, parts.into_values().flatten().collect());
            xml("CompleteMultipartUploadResult", "<ETag>\"whole\"</ETag>").into_response()
        }
        (Method::DELETE, Some(upload)) => {
            uploads.remove(&upload);
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::PUT, None) => {
            objects.insert(key, body.to_vec());
            StatusCode::OK.into_response()
        }
        (Method::DELETE, None) => {
            objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::GET, None) => match objects.get(&key) {
            None => {
                (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response()
            }
            Some(bytes) => part(bytes, &headers),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn part(bytes: &[u8], headers: &HeaderMap) -> Response {
    let range = headers["range"].to_str().expect("ASCII").strip_prefix("bytes=").expect("a range");
    let (first, last) = range.split_once('-').expect("two ends");
    let first: usize = first.parse().expect("a number");
    let last = last.parse::<usize>().expect("a number").min(bytes.len() - 1);
    let range = format!("bytes {first}-{last}/{}", bytes.len());
    (StatusCode::PARTIAL_CONTENT, [("content-range", range)], bytes[first..=last].to_vec())
        .into_response()
}

async fn serve() -> (FakeS3, impl Fn(&str) -> Option<String>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let s3 = FakeS3::default();
    let routes = Router::new()
        .route("/{bucket}/", any(bucket))
        .route("/{bucket}", any(bucket))
        .route("/{bucket}/{*key}", any(object))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(s3.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let variable = move |name: &str| match name {
        "AWS_ENDPOINT_URL" => Some(format!("http://{address}")),
        "AWS_ACCESS_KEY_ID" => Some("me".to_string()),
        "AWS_SECRET_ACCESS_KEY" => Some("secret".to_string()),
        _ => None,
    };
    (s3, variable)
}

fn pieces(all: &[u8], size: usize) -> Vec<Result<bytes::Bytes, String>> {
    all.chunks(size).map(|piece| Ok(bytes::Bytes::copy_from_slice(piece))).collect()
}

async fn read(shelf: &Shelf, name: &str) -> Result<Vec<u8>, Error> {
    let (shelf, name) = (shelf.clone(), name.to_string());
    let read = move || {
        let (mut from, bytes) = shelf.read(&name)?;
        let mut all = Vec::new();
        from.read_to_end(&mut all).expect("readable");
        assert_eq!(all.len() as u64, bytes);
        Ok(all)
    };
    tokio::task::spawn_blocking(read).await.expect("no panic")
}

/// The same of every kind of shelf.
async fn holds_backups_whole(shelf: Shelf) {
    let large: Vec<u8> = (0..40u32 << 20).map(|n| (n / 7) as u8).collect();
    for all in [&large[..], &large[..100]] {
        let put = shelf.put(NAME, stream::iter(pieces(all, 1 << 20))).await.expect("put");
        assert_eq!(put, all.len() as u64);
        let items = shelf.list().await.expect("listed");
        let [item] = &items[..] else { panic!("{items:?}") };
        assert_eq!((item.name.to_string().as_str(), item.bytes), (NAME, all.len() as u64));
        assert_eq!(read(&shelf, NAME).await.expect("read"), all);
        shelf.delete(NAME).await.expect("deleted");
        assert!(shelf.list().await.expect("listed").is_empty());
        let mut broken = pieces(all, 1 << 20);
        broken.push(Err("the master is gone".to_string()));
        let refused = shelf.put(NAME, stream::iter(broken)).await.expect_err("it broke off");
        assert!(refused.to_string().contains("the master is gone"), "{refused}");
        assert!(shelf.list().await.expect("listed").is_empty(), "nothing of it is there");
    }
    assert!(read(&shelf, NAME).await.is_err(), "not there");
    // More than one page, and things that are no backups.
    let other = NAME.replace("-r7-aa", "-r8-bb");
    for name in [NAME, &other, "notes.txt"] {
        shelf.put(name, stream::iter(pieces(b"x", 1))).await.expect("put");
    }
    let names: Vec<String> =
        shelf.list().await.expect("listed").iter().map(|item| item.name.to_string()).collect();
    assert_eq!(names, [NAME.to_string(), other]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_holds_backups_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = Place::parse(dir.path().to_str().expect("UTF-8"), |_| None).expect("a place");
    holds_backups_whole(place.shelf).await;
    let left = std::fs::read_dir(dir.path()).expect("readable").count();
    assert_eq!(left, 3, "no half file is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_holds_backups_whole() {
    let (s3, variable) = serve().await;
    let place = Place::parse("s3://b/cluster/daily", variable).expect("a place");
    holds_backups_whole(place.shelf.clone()).await;
    assert!(s3.uploads.lock().expect("no panic").is_empty(), "no half upload is left");
    assert!(
        s3.objects.lock().expect("no panic").keys().all(|key| key.starts_with("cluster/daily/"))
    );
    *s3.trouble.lock().expect("no panic") = 3;
    place.shelf.put(NAME, stream::iter(pieces(b"x", 1))).await.expect("passing trouble");
}

#[test]
fn a_place_is_a_shelf_and_perhaps_a_backup() {
    let variable = |name: &str| {
        name.starts_with("AWS_").then(|| match name {
            "AWS_ENDPOINT_URL_S3" | "AWS_ENDPOINT_URL" => "https://s3.example".to_string(),
            _ => "x".to_string(),
        })
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let parse = |text: &str| {
        let place = Place::parse(text, variable).expect("a place");
        (place.shelf.to_string(), place.file)
    };
    assert_eq!(parse("s3://b"), ("s3://b/".into(), None));
    assert_eq!(parse("s3://b/a/c/"), ("s3://b/a/c/".into(), None));
    assert_eq!(parse("s3://b/a/x.cxb"), ("s3://b/a/".into(), Some("x.cxb".into())));
    assert_eq!(parse("x.cxb"), (".".into(), Some("x.cxb".into())));
    assert_eq!(parse("/var/backups"), ("/var/backups".into(), None));
    let unset = Place::parse("s3://b", |_| None).err().map(|error| error.to_string());
    assert_eq!(unset.as_deref(), Some("s3://b: $AWS_ACCESS_KEY_ID is not set"));
    let open =
        |name: &str| Some(if name.contains("URL") { "http://s3.example" } else { "x" }.into());
    let refused = Place::parse("s3://b", open).err().map(|error| error.to_string());
    assert_eq!(refused.as_deref(), Some("http://s3.example: backups go over https only"));
}
