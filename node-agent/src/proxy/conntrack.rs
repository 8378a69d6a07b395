//! Makes the kernel forget UDP flows to endpoints that are gone: UDP has no end of a connection,
//! and a client that keeps sending would be sent to a dead address for as long as it does.

use super::{
    netlink::{Messages, NLM_F_ACK, NLM_F_DUMP, Socket, attribute},
    rules::Target,
};
use std::{collections::BTreeSet, io, net::Ipv4Addr};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const NFPROTO_IPV4: u8 = 2;
const IPPROTO_UDP: u8 = 17;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;

/// Deletes every UDP flow that is answered by one of `gone`; returns how many.
pub(super) fn forget(socket: &Socket, gone: &BTreeSet<Target>) -> io::Result<usize> {
    if gone.is_empty() {
        return Ok(0);
    }
    let mut request = Messages::default();
    request.message(SUBSYSTEM << 8 | GET, NLM_F_DUMP, NFPROTO_IPV4, 0, |_| {});
    let mut flows = Vec::new();
    socket.dump(&request, |flow| {
        if answered_by(flow).is_some_and(|target| gone.contains(&target))
            && let Some(original) = attribute(flow, TUPLE_ORIGINAL)
        {
            flows.push(original.to_vec());
        }
    })?;
    let mut forgotten = 0;
    for original in &flows {
        let mut request = Messages::default();
        request.message(SUBSYSTEM << 8 | DELETE, NLM_F_ACK, NFPROTO_IPV4, 0, |m| {
            m.bytes(TUPLE_ORIGINAL | 0x8000, original);
        });
        match socket.transact(&request) {
            Ok(()) => forgotten += 1,
            // Ended by itself meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

/// Who answers a UDP flow, after translation; `None` for other protocols.
fn answered_by(flow: &[u8]) -> Option<Target> {
    let reply = attribute(flow, TUPLE_REPLY)?;
    let protocol = attribute(reply, TUPLE_PROTO)?;
    if attribute(protocol, PROTO_NUMBER)? != [IPPROTO_UDP] {
        return None;
    }
    let address: [u8; 4] = attribute(attribute(reply, TUPLE_IP)?, IP_V4_SOURCE)?.try_into().ok()?;
    let port: [u8; 2] = attribute(protocol, PROTO_SOURCE_PORT)?.try_into().ok()?;
    Some(Target { address: Ipv4Addr::from(address), port: u16::from_be_bytes(port) })
}
