//! The last steps of a body: indented if people read it, compressed if it is large, sent piece by
//! piece. No piece is made before the client has taken the one before.

use super::{Body, BoxError, full, negotiate::Format};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::io::Write;

/// Bodies of lists go out in pieces of about this many bytes, and smaller bodies are not compressed
/// (upstream's threshold is the same).
// Large enough to make TLS records and system calls cheap, small enough to be allocated without page
// faults over and over (measured: 35 ms per 416 MB in such chunks, 1.6 s and more as one buffer).
pub(super) const PIECE: usize = 128 * 1024;
/// Upstream's level: the least CPU, within a third of the size of the best.
const LEVEL: u32 = 1;

/// A body of pieces, the first of which is larger than [`PIECE`] unless it is the only one.
pub(crate) fn respond(
    code: StatusCode,
    media: &'static str,
    pieces: impl Iterator<Item = Vec<u8>> + Send + 'static,
    format: Format,
) -> Response<Body> {
    let mut pieces: Pieces = Box::new(pieces);
    if format.pretty && media == "application/json" {
        let mut indent = Indent::default();
        pieces = Box::new(pieces.map(move |piece| indent.piece(&piece)));
    }
    let first = pieces.next().unwrap_or_default();
    let gzip = format.gzip && first.len() > PIECE;
    let body = if first.len() <= PIECE {
        // Whoever makes pieces makes them large, unless there is no more.
        let whole = pieces.fold(first, |mut whole, piece| {
            whole.extend_from_slice(&piece);
            whole
        });
        full(whole)
    } else {
        let pieces = std::iter::once(first).chain(pieces);
        if gzip { stream(Compressed::new(Box::new(pieces))) } else { stream(pieces) }
    };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

type Pieces = Box<dyn Iterator<Item = Vec<u8>> + Send>;

fn stream(pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Body {
    let frames = pieces.map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from(piece))));
    BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)))
}

struct Compressed {
    pieces: Pieces,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Compressed {
    fn new(pieces: Pieces) -> Compressed {
        let encoder = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
        Compressed { pieces, encoder: Some(encoder) }
    }
}

impl Iterator for Compressed {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let encoder = self.encoder.as_mut()?;
            let Some(piece) = self.pieces.next() else {
                return self.encoder.take().map(|encoder| {
                    encoder.finish().expect("compressing into memory does not fail")
                });
            };
            encoder.write_all(&piece).expect("compressing into memory does not fail");
            // Small input may still be inside the encoder.
            if !encoder.get_ref().is_empty() {
                return Some(std::mem::take(encoder.get_mut()));
            }
        }
    }
}

/// Breaks and indents JSON as Go's `MarshalIndent` does, two spaces a level, whatever pieces it comes
/// in.
#[derive(Default)]
pub(crate) struct Indent {
    depth: usize,
    /// A bracket was opened and nothing stands in it yet.
    opened: bool,
    in_string: bool,
    escaped: bool,
}

impl Indent {
    pub(crate) fn piece(&mut self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() * 2);
        for byte in json {
            self.byte(*byte, &mut out);
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            out.push(byte);
            self.in_string = self.escaped || byte != b'"';
            self.escaped = byte == b'\\' && !self.escaped;
            return;
        }
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if !std::mem::take(&mut self.opened) {
                    self.line(out);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                self.line(out);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                if std::mem::take(&mut self.opened) {
                    self.line(out);
                }
                out.push(byte);
                self.in_string = byte == b'"';
                if matches!(byte, b'{' | b'[') {
                    self.depth += 1;
                    self.opened = true;
                }
            }
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn indented(json: &str, cut: usize) -> String {
        let mut indent = Indent::default();
        let (first, second) = json.as_bytes().split_at(cut.min(json.len()));
        let text = [indent.piece(first), indent.piece(second)].concat();
        String::from_utf8(text).unwrap()
    }

    proptest! {
        #[test]
        fn indentation_is_that_of_any_printer(
            keys in prop::collection::vec("[a\"\\\\{},:]{0,5}", 0..5),
            cut in 0..200usize,
        ) {
            let list: Vec<serde_json::Value> = keys
                .iter()
                .map(|key| serde_json::json!({ key: [1, {}, [], [key]], "b": null }))
                .collect();
            let value = serde_json::Value::from(list);
            let expected = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(indented(&value.to_string(), cut), expected);
        }
    }

    #[tokio::test]
    async fn only_large_bodies_are_compressed() {
        let gzip = Format { gzip: true, ..Format::JSON };
        let small = respond(StatusCode::OK, "text/plain", std::iter::once(vec![b'a'; 9]), gzip);
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
        let pieces = [vec![b'a'; PIECE + 1], vec![b'b'; 10]];
        let large = respond(StatusCode::OK, "text/plain", pieces.into_iter(), gzip);
        assert_eq!(large.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(large.headers()[header::VARY], "Accept-Encoding");
        let body = large.into_body().collect().await.unwrap().to_bytes();
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
        assert_eq!((text.len(), text[PIECE], text[PIECE + 1]), (PIECE + 11, b'a', b'b'));
    }
}
