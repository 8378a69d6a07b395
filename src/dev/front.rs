//! One address for the whole cluster: takes connections on loopback and joins each to a healthy
//! master, as a load balancer would. When a master stops answering, its connections are cut, so that
//! clients go on with another.

use crate::cli::client::Target;
use anyhow::{Context, Result};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Between two looks at a master; with `LOOK_TIMEOUT` it bounds how long a dead one is in use.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const LOOK_TIMEOUT: Duration = Duration::from_millis(1500);

/// Ends, with all its connections, when dropped.
pub(super) struct Front {
    _tasks: JoinSet<()>,
}

struct Backend {
    url: String,
    /// `host:port`
    address: String,
    healthy: watch::Receiver<bool>,
}

impl Front {
    pub(super) async fn listen(port: u16, urls: Vec<String>, target: Target) -> Result<Front> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener =
            listener.with_context(|| format!("cannot listen on 127.0.0.1:{port} (--api-port)"))?;
        let mut tasks = JoinSet::new();
        let mut backends = Vec::new();
        for url in urls {
            let (report, healthy) = watch::channel(false);
            let address = url.trim_start_matches("https://").to_string();
            tasks.spawn(look_after(target.clone(), url.clone(), report));
            backends.push(Backend { url, address, healthy });
        }
        tasks.spawn(accept(listener, Arc::new(backends)));
        Ok(Front { _tasks: tasks })
    }
}

async fn look_after(target: Target, url: String, report: watch::Sender<bool>) {
    loop {
        let answer = target.get(&url, "/livez", LOOK_TIMEOUT).await;
        let healthy = matches!(answer, Ok((200, _)));
        report.send_if_modified(|known| std::mem::replace(known, healthy) != healthy);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn accept(listener: TcpListener, backends: Arc<Vec<Backend>>) {
    let turn = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else { continue };
        let first = turn.fetch_add(1, Ordering::Relaxed);
        connections.spawn(join(client, first, backends.clone()));
    }
}

/// Joins `client` to the first healthy master from `first` on that takes the connection.
async fn join(mut client: TcpStream, first: usize, backends: Arc<Vec<Backend>>) {
    for turn in 0..backends.len() {
        let backend = &backends[(first + turn) % backends.len()];
        let mut healthy = backend.healthy.clone();
        if !*healthy.borrow() {
            continue;
        }
        let Ok(mut master) = TcpStream::connect(&backend.address).await else { continue };
        let _ = (client.set_nodelay(true), master.set_nodelay(true));
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut master) => {}
            _ = healthy.wait_for(|healthy| !healthy) => {
                tracing::info!(master = backend.url, "not healthy; its connections are cut");
            }
        }
        return;
    }
}
