//! A backup on its way is checked by the one who stores it: its last piece is given on only when all
//! of it was found sound.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use raft_store::backup::{Chain, Found, Reader, check};
use std::{
    fmt,
    io::{self, Read},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// Pieces that wait to be checked.
const PIECES_AHEAD: usize = 8;

/// The same pieces; after the last, an error if they are no sound backup. What was found goes to
/// the receiver.
pub fn checked<E: fmt::Display>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    name: String,
) -> (impl Stream<Item = Result<Bytes, String>>, oneshot::Receiver<Found>) {
    let (send, receive) = mpsc::channel(PIECES_AHEAD);
    let (tell, told) = oneshot::channel();
    let checker = tokio::task::spawn_blocking(move || -> Result<(), String> {
        let pipe = Pipe { pieces: receive, current: Bytes::new() };
        let found = Reader::open(pipe, &name)
            .and_then(|reader| Chain::new(vec![reader]))
            .and_then(|mut chain| check(&mut chain, |_| {}))
            .map_err(|error| error.to_string())?;
        // Whoever asked may be gone.
        let _ = tell.send(found);
        Ok(())
    });
    let begin = Some((pieces, send, checker));
    let checked = stream::unfold(begin, |going| async {
        let (mut pieces, send, checker) = going?;
        match pieces.next().await {
            Some(Ok(piece)) => match send.send(piece.clone()).await {
                Ok(()) => Some((Ok(piece), Some((pieces, send, checker)))),
                Err(_) => Some((Err(verdict(checker).await.unwrap_or_default()), None)),
            },
            Some(Err(error)) => Some((Err(error.to_string()), None)),
            None => {
                drop(send);
                verdict(checker).await.map(|why| (Err(why), None))
            }
        }
    });
    (checked, told)
}

/// What is wrong, if anything is.
async fn verdict(checker: JoinHandle<Result<(), String>>) -> Option<String> {
    match checker.await {
        Ok(checked) => checked.err(),
        Err(error) => Some(error.to_string()),
    }
}

struct Pipe {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pipe {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let length = to.len().min(self.current.len());
        to[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}
