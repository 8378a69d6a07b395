//! Names outside the cluster: asked of the machine's own nameservers, one after the other.

use hickory_server::proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// For one nameserver; clients wait five seconds in all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// What we accept in one datagram: fits every path without fragments (DNS flag day 2020).
const PAYLOAD_BYTES: u16 = 1232;

/// The nameservers of a resolv.conf, without `own`, which would ask itself. An unreadable file has
/// none.
pub fn nameservers(resolv_conf: &Path, own: Ipv4Addr) -> Vec<SocketAddr> {
    let text = match fs::read_to_string(resolv_conf) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(%error, file = %resolv_conf.display(), "no upstream nameservers");
            return Vec::new();
        }
    };
    parse(&text).into_iter().filter(|address| address.ip() != IpAddr::V4(own)).collect()
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(str::split_whitespace);
    let addresses = words.filter_map(|mut words| match words.next()? {
        "nameserver" => words.next()?.parse::<IpAddr>().ok(),
        _ => None,
    });
    addresses.map(|address| SocketAddr::new(address, 53)).collect()
}

/// The first answer that a nameserver gives; `None` if none does, or all fail.
pub(super) async fn ask(
    nameservers: &[SocketAddr],
    name: &Name,
    kind: RecordType,
) -> Option<Message> {
    for nameserver in nameservers {
        match timeout(ANSWER_TIMEOUT, exchange(*nameserver, name, kind)).await {
            Ok(Ok(answer)) if answer.metadata.response_code != ResponseCode::ServFail => {
                return Some(answer);
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%nameserver, %error, "nameserver"),
            Err(_) => tracing::debug!(%nameserver, "nameserver does not answer"),
        }
    }
    None
}

async fn exchange(to: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.queries.push(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_BYTES);
    query.edns = Some(edns);
    let bytes = query.to_vec().map_err(io::Error::other)?;
    let answer = by_udp(to, &query, &bytes).await?;
    if answer.metadata.truncation { by_tcp(to, &bytes).await } else { Ok(answer) }
}

async fn by_udp(to: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; PAYLOAD_BYTES.into()];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else is noise, or someone's guess at our question.
        match Message::from_vec(&buffer[..length]) {
            Ok(answer)
                if answer.metadata.id == query.metadata.id && answer.queries == query.queries =>
            {
                return Ok(answer);
            }
            _ => {}
        }
    }
}

async fn by_tcp(to: SocketAddr, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_u16(bytes.len() as u16).await?;
    stream.write_all(bytes).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    Message::from_vec(&buffer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_from_resolv_conf() {
        let text = "# made by hand\nsearch a b\nnameserver 192.0.2.1\nnameserver nonsense\n\
                    nameserver\t2001:db8::1\noptions ndots:5\n";
        let found: Vec<String> = parse(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }
}
