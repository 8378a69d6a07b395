//! Connections that others open to this member, and what they show each other: mutual TLS with the newest
//! certificate, and no slow handshake that holds up another.

use crate::config::{OwnTls, Tls};
use futures::{Stream, StreamExt};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use std::{io, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use tokio_stream::wrappers::TcpListenerStream;

/// Longer than a handshake between members takes on the slowest link that Raft's timers allow.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// More wait in the kernel. Those who belong here open a handful each; strangers must not be able to keep them out.
const HANDSHAKES_MAX: usize = 1024;

/// Those who showed a certificate of `tls`'s CA, for HTTP/2, until `listener` fails. For other members, and for
/// other listeners that ask the same of who connects.
pub fn connections(
    listener: TcpListener,
    tls: OwnTls,
) -> io::Result<impl Stream<Item = io::Result<TlsStream<TcpStream>>>> {
    let mut shown = tls.current();
    let mut acceptor = acceptor(&shown)?;
    let handshakes = TcpListenerStream::new(listener).map(move |tcp| {
        let newest = tls.current();
        if !Arc::ptr_eq(&newest, &shown) {
            match self::acceptor(&newest) {
                Ok(made) => acceptor = made,
                Err(error) => tracing::error!(%error, "kept the old certificate"),
            }
            shown = newest;
        }
        handshake(tcp, acceptor.clone())
    });
    Ok(handshakes.buffer_unordered(HANDSHAKES_MAX).filter_map(std::future::ready))
}

async fn handshake(
    tcp: io::Result<TcpStream>,
    acceptor: TlsAcceptor,
) -> Option<io::Result<TlsStream<TcpStream>>> {
    let tcp = match tcp {
        Ok(tcp) => tcp,
        Err(error) => return Some(Err(error)),
    };
    // Without it an answer waits for the delayed acknowledgement of the one before: 40 ms.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => Some(Ok(stream)),
        // A stranger, or one who gave up: nothing that ends the listening.
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Shows `tls`'s certificate, and believes those of its CA.
pub(super) fn connector(tls: &Tls) -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots(tls)?)
        .with_client_auth_cert(chain(tls)?, key(tls)?)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(tls: &Tls) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&tls.ca) {
        roots.add(authority.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    Ok(roots)
}

fn chain(tls: &Tls) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&tls.cert).collect();
    chain.map_err(io::Error::other)
}

fn key(tls: &Tls) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&tls.key).map_err(io::Error::other)
}

fn acceptor(tls: &Tls) -> io::Result<TlsAcceptor> {
    let roots = Arc::new(roots(tls)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
        .with_single_cert(chain(tls)?, key(tls)?)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
