//! What a client of exec, attach or port-forward sends to a node: a session ends when its connection does,
//! whatever came before.

use spdy::Session;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A name, by which the corpus is found, and what runs under it.
pub(crate) const TARGET: (&str, fn(&[u8])) = ("spdy_session", session);

// Far more than any input takes: this is about those that never end.
const PATIENCE: Duration = Duration::from_secs(20);

fn session(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let (near, far) = tokio::io::duplex(1 << 10);
        let both = async { tokio::join!(say(near, data), hear(Session::server(far))) };
        tokio::time::timeout(PATIENCE, both).await.expect("the session ends");
    });
}

/// Says all of it, takes what is answered, and leaves.
async fn say(connection: DuplexStream, data: &[u8]) {
    let (mut answers, mut words) = tokio::io::split(connection);
    let all = async {
        // The other end may have had enough of it.
        if words.write_all(data).await.is_ok() {
            let _ = words.shutdown().await;
        }
    };
    let mut heard = Vec::new();
    let (_, _) = tokio::join!(all, answers.read_to_end(&mut heard));
}

/// Reads each stream to its end and says that it is over.
async fn hear(mut session: Session) {
    while let Some(mut stream) = session.accept().await {
        tokio::spawn(async move {
            while stream.reader.next().await.is_some() {}
            let _ = stream.writer.finish().await;
        });
    }
    session.close().await;
}
