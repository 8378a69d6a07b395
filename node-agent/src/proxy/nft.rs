//! The rules as the kernel's nf_tables wants them: one table, its fixed frame, and changes to it,
//! each batch applied entirely or not at all. Speaks netlink itself; needs no `nft` at run time.

use super::{
    netlink::{Messages, NLM_F_APPEND, NLM_F_CREATE, Socket},
    rules::{Change, Rule, Ruleset, Target, Verdict, Vip, changes},
};
use crate::net::{Cidr, Protocol};
use std::{io, net::Ipv4Addr, time::Duration};

/// Our table, of family `ip`. Nothing else writes it.
pub const TABLE: &str = "coxswain";
/// The bit of the packet mark that asks for masquerade; kube-proxy's own.
const MASQUERADE_MARK: u32 = 0x4000;
/// Elements per message, so that an attribute stays far below its 64 KiB.
const CHUNK_ELEMENTS: usize = 500;

const NFPROTO_IPV4: u8 = 2;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const SET_ANONYMOUS: u32 = 1;
const SET_CONSTANT: u32 = 2;
const SET_MAP: u32 = 8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const SET_CONCAT: u32 = 0x80;
/// `nft`'s numbers of data types; the kernel only stores them for listings.
const TYPE_INTEGER: u32 = 4;
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_VERDICT: u32 = 0xffff_ff00;

const VERDICT_DROP: i32 = 0;
const VERDICT_JUMP: i32 = -3;
const VERDICT_GOTO: i32 = -4;

/// 32-bit registers 8 to 23 exist besides the verdict register.
const REG: u32 = 8;
const REG_VERDICT: u32 = 0;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_ADDRTYPE: u32 = 3;
const RTN_LOCAL: u32 = 2;
const CMP_EQUAL: u32 = 0;
const CMP_UNEQUAL: u32 = 1;

const REJECT_ICMP: u32 = 0;
const REJECT_RESET: u32 = 1;
const ICMP_PORT_UNREACHABLE: u8 = 3;

const HOOK_PREROUTING: u32 = 0;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_AFTER_DSTNAT: i32 = -50;
const PRIORITY_SRCNAT: i32 = 100;

/// What the frame of the table depends on.
#[derive(Clone, Debug)]
pub struct Frame {
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
}

/// Our table in the kernel of one network namespace.
pub struct Table {
    socket: Socket,
    frame: Frame,
    /// What the kernel has; `None` until the first load, or after a failure.
    present: Option<Ruleset>,
}

/// What an [`Table::apply`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The table was written anew instead of changed.
    pub full: bool,
    /// Steps sent to the kernel.
    pub changes: usize,
}

impl Table {
    /// For the calling thread's network namespace.
    pub fn open(frame: Frame) -> io::Result<Table> {
        Ok(Table { socket: Socket::open()?, frame, present: None })
    }

    pub fn present(&self) -> Option<&Ruleset> {
        self.present.as_ref()
    }

    /// Makes the kernel's rules equal to `wanted`, by the smallest change if it is known what the
    /// kernel has; if that is refused (someone else changed the table), by writing all of it.
    pub fn apply(&mut self, wanted: Ruleset) -> io::Result<Applied> {
        if let Some(present) = self.present.take() {
            let steps = changes(&present, &wanted);
            let changes = steps.len();
            if changes == 0 {
                self.present = Some(wanted);
                return Ok(Applied { full: false, changes });
            }
            match self.socket.transact(&Batch::incremental(&steps).finish()) {
                Ok(()) => {
                    self.present = Some(wanted);
                    return Ok(Applied { full: false, changes });
                }
                Err(error) => tracing::warn!(%error, "rules refused; writing the whole table"),
            }
        }
        let empty = Ruleset::default();
        let steps = changes(&empty, &wanted);
        let changes = steps.len();
        self.socket.transact(&Batch::full(&self.frame, &steps).finish())?;
        self.present = Some(wanted);
        Ok(Applied { full: true, changes })
    }
}

/// A transaction being written.
struct Batch {
    messages: Messages,
    /// Sets made in this transaction are referred to by number.
    sets: u32,
}

impl Batch {
    fn begin() -> Batch {
        let mut messages = Messages::default();
        messages.message(BATCH_BEGIN, 0, 0, SUBSYSTEM, |_| {});
        Batch { messages, sets: 0 }
    }

    fn incremental(steps: &[Change<'_>]) -> Batch {
        let mut batch = Batch::begin();
        batch.steps(steps);
        batch
    }

    /// Made, deleted and made again, so that it succeeds whether there was one or not.
    fn full(frame: &Frame, steps: &[Change<'_>]) -> Batch {
        let mut batch = Batch::begin();
        batch.table(NEW_TABLE);
        batch.table(DELETE_TABLE);
        batch.table(NEW_TABLE);
        batch.frame(frame);
        batch.steps(steps);
        batch
    }

    fn finish(mut self) -> Messages {
        self.messages.acknowledge_last();
        self.messages.message(BATCH_END, 0, 0, SUBSYSTEM, |_| {});
        self.messages
    }

    fn send(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Messages)) {
        self.messages.message(SUBSYSTEM << 8 | kind, flags, NFPROTO_IPV4, 0, |m| {
            m.text(1, TABLE);
            body(m);
        });
    }

    fn table(&mut self, kind: u16) {
        let flags = if kind == NEW_TABLE { NLM_F_CREATE } else { 0 };
        self.send(kind, flags, |_| {});
    }

    fn chain(&mut self, name: &str) {
        self.send(NEW_CHAIN, NLM_F_CREATE, |m| {
            m.text(3, name);
        });
    }

    fn base_chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32) {
        self.send(NEW_CHAIN, NLM_F_CREATE, |m| {
            m.text(3, name).nest(4, |m| {
                m.number(1, hook).number(2, priority as u32);
            });
            m.number(5, 1).text(7, kind);
        });
    }

    fn rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Messages)) {
        self.send(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |m| {
            m.text(2, chain).nest(4, expressions);
        });
    }

    fn flush(&mut self, chain: &str) {
        self.send(DELETE_RULE, 0, |m| {
            m.text(2, chain);
        });
    }

    /// A named set or map; `fields` are the lengths of a concatenated key's parts in bytes.
    fn set(&mut self, name: &str, set: &Set<'_>) -> u32 {
        self.sets += 1;
        let id = self.sets;
        let concat = if set.fields.len() > 1 { SET_CONCAT } else { 0 };
        let key_length: u32 = set.fields.iter().sum();
        let fields: &[u32] = if set.fields.len() > 1 { set.fields } else { &[] };
        self.send(NEW_SET, NLM_F_CREATE, |m| {
            m.text(2, name).number(3, set.flags | concat);
            m.number(4, set.key_type).number(5, key_length);
            if set.flags & SET_MAP != 0 {
                m.number(6, set.data_type);
                if set.data_type != TYPE_VERDICT {
                    m.number(7, set.data_length);
                }
            }
            m.number(10, id);
            if let Some(timeout) = set.timeout {
                m.bytes(11, &(timeout.as_millis() as u64).to_be_bytes());
            }
            m.nest(9, |m| {
                if let Some(size) = set.size {
                    m.number(1, size);
                }
                if !fields.is_empty() {
                    m.nest(2, |m| {
                        for length in fields {
                            m.nest(1, |m| {
                                m.number(1, *length);
                            });
                        }
                    });
                }
            });
        });
        id
    }

    fn elements(&mut self, kind: u16, set: &str, id: Option<u32>, elements: &[Element]) {
        let flags = if kind == NEW_ELEMENT { NLM_F_CREATE } else { 0 };
        for chunk in elements.chunks(CHUNK_ELEMENTS) {
            self.send(kind, flags, |m| {
                m.text(2, set);
                if let Some(id) = id {
                    m.number(4, id);
                }
                m.nest(3, |m| {
                    for element in chunk {
                        m.nest(1, |m| element.write(m));
                    }
                });
            });
        }
    }

    /// What never changes: hooks, maps and the rules that consult them.
    fn frame(&mut self, frame: &Frame) {
        let verdict_map = |fields, key_type| Set {
            flags: SET_MAP,
            key_type,
            fields,
            data_type: TYPE_VERDICT,
            ..Set::default()
        };
        let vip = TYPE_ADDRESS << 12 | TYPE_PROTOCOL << 6 | TYPE_PORT;
        self.set("vips", &verdict_map(&[4, 4, 4], vip));
        self.set("node-ports", &verdict_map(&[4, 4], TYPE_PROTOCOL << 6 | TYPE_PORT));
        let pair = TYPE_ADDRESS << 6 | TYPE_ADDRESS;
        self.set("hairpin", &Set { key_type: pair, fields: &[4, 4], ..Set::default() });
        self.chain("services");
        self.rule("services", |m| {
            load_address(m, REG, Address::Destination);
            load_protocol_and_port(m, REG + 1);
            lookup(m, "vips", REG, Some(REG_VERDICT), None);
        });
        self.rule("services", |m| {
            in_network(m, Address::Destination, CMP_UNEQUAL, LOOPBACK);
            if_local(m, FIB_DADDR, CMP_EQUAL);
            load_protocol_and_port(m, REG);
            lookup(m, "node-ports", REG, Some(REG_VERDICT), None);
        });
        for (chain, hook) in [("prerouting", HOOK_PREROUTING), ("output", HOOK_OUTPUT)] {
            self.base_chain(chain, "nat", hook, PRIORITY_DSTNAT);
            self.rule(chain, |m| verdict(m, VERDICT_JUMP, "services"));
        }
        self.postrouting(frame);
        for (chain, hook) in [("reject-forwarded", HOOK_PREROUTING), ("reject-own", HOOK_OUTPUT)] {
            self.base_chain(chain, "filter", hook, PRIORITY_AFTER_DSTNAT);
            self.reject(chain, frame.service_cidr);
        }
    }

    /// What is still for a service after translation has no endpoint, or is no service. A reset for
    /// TCP, since the kernel sends a host but one "unreachable" per second.
    fn reject(&mut self, chain: &str, services: Cidr) {
        let unserved = |m: &mut Messages| {
            in_network(m, Address::Destination, CMP_EQUAL, services);
            // Cluster DNS is an address of this node.
            if_local(m, FIB_DADDR, CMP_UNEQUAL);
        };
        self.rule(chain, |m| {
            unserved(m);
            meta_load(m, META_L4PROTO, REG);
            compare(m, CMP_EQUAL, &[Protocol::Tcp.number()]);
            expression(m, "reject", |m| {
                m.number(1, REJECT_RESET);
            });
        });
        self.rule(chain, |m| {
            unserved(m);
            expression(m, "reject", |m| {
                m.number(1, REJECT_ICMP).bytes(2, &[ICMP_PORT_UNREACHABLE]);
            });
        });
    }

    fn postrouting(&mut self, frame: &Frame) {
        let chain = "postrouting";
        self.base_chain(chain, "nat", HOOK_POSTROUTING, PRIORITY_SRCNAT);
        self.rule(chain, |m| {
            meta_load(m, META_MARK, REG);
            bitwise(m, MASQUERADE_MARK, 0);
            compare(m, CMP_UNEQUAL, &0u32.to_ne_bytes());
            masquerade(m);
        });
        self.rule(chain, |m| {
            load_address(m, REG, Address::Source);
            load_address(m, REG + 1, Address::Destination);
            lookup(m, "hairpin", REG, None, None);
            masquerade(m);
        });
        // Outside the cluster nobody knows the way to a pod.
        let pods = frame.cluster_cidr;
        self.rule(chain, |m| {
            in_network(m, Address::Source, CMP_EQUAL, pods);
            in_network(m, Address::Destination, CMP_UNEQUAL, pods);
            masquerade(m);
        });
    }

    fn steps(&mut self, steps: &[Change<'_>]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Change<'_>) {
        match step {
            Change::RemoveVip(vip) => {
                self.elements(DELETE_ELEMENT, "vips", None, &[Element::key(vip_key(vip))]);
            }
            Change::AddVip(vip, verdict) => {
                let element = Element::verdict(vip_key(vip), verdict);
                self.elements(NEW_ELEMENT, "vips", None, &[element]);
            }
            Change::RemoveNodePort(protocol, port) => {
                let element = Element::key(port_key(*protocol, *port));
                self.elements(DELETE_ELEMENT, "node-ports", None, &[element]);
            }
            Change::AddNodePort(protocol, port, verdict) => {
                let element = Element::verdict(port_key(*protocol, *port), verdict);
                self.elements(NEW_ELEMENT, "node-ports", None, &[element]);
            }
            Change::RemoveHairpin(address) => {
                let element = Element::key(pair_key(*address));
                self.elements(DELETE_ELEMENT, "hairpin", None, &[element]);
            }
            Change::AddHairpin(address) => {
                let element = Element::key(pair_key(*address));
                self.elements(NEW_ELEMENT, "hairpin", None, &[element]);
            }
            Change::AddSet(name, timeout) => self.affinity_set(name, *timeout),
            Change::RemoveSet(name) => self.send(DELETE_SET, 0, |m| {
                m.text(2, name);
            }),
            Change::AddChain(name) => self.chain(name),
            Change::ClearChain(name) => self.flush(name),
            Change::RemoveChain(name) => self.send(DELETE_CHAIN, 0, |m| {
                m.text(3, name);
            }),
            Change::SetRules(chain, rules) => {
                self.flush(chain);
                for rule in *rules {
                    self.write_rule(chain, rule);
                }
            }
        }
    }

    fn affinity_set(&mut self, name: &str, timeout: Duration) {
        let set = Set {
            flags: SET_TIMEOUT | SET_EVAL,
            key_type: TYPE_ADDRESS,
            fields: &[4],
            timeout: Some(timeout),
            // The kernel's own bound for sets that packets fill.
            size: Some(65_535),
            ..Set::default()
        };
        self.set(name, &set);
    }

    fn write_rule(&mut self, chain: &str, rule: &Rule) {
        match rule {
            Rule::Translate(targets) => self.translate(chain, targets),
            Rule::Spread(chains) => self.spread(chain, chains),
            Rule::Sticky { set, chain: to } => self.rule(chain, |m| {
                load_address(m, REG, Address::Source);
                lookup(m, set, REG, None, None);
                verdict(m, VERDICT_GOTO, to);
            }),
            Rule::Remember { set } => self.rule(chain, |m| {
                load_address(m, REG, Address::Source);
                expression(m, "dynset", |m| {
                    m.text(1, set).number(3, 1).number(4, REG);
                });
            }),
            Rule::MarkMasquerade => self.rule(chain, mark_masquerade),
            Rule::From { network, chain: to } => self.rule(chain, |m| {
                in_network(m, Address::Source, CMP_EQUAL, *network);
                verdict(m, VERDICT_GOTO, to);
            }),
            Rule::MarkOwn => self.rule(chain, |m| {
                if_local(m, FIB_SADDR, CMP_EQUAL);
                mark_masquerade(m);
            }),
            Rule::Own { chain: to } => self.rule(chain, |m| {
                if_local(m, FIB_SADDR, CMP_EQUAL);
                verdict(m, VERDICT_GOTO, to);
            }),
            Rule::Goto(to) => self.rule(chain, |m| verdict(m, VERDICT_GOTO, to)),
            Rule::Drop => self.rule(chain, |m| verdict(m, VERDICT_DROP, "")),
        }
    }

    fn translate(&mut self, chain: &str, targets: &[Target]) {
        if let [target] = targets {
            return self.rule(chain, |m| {
                immediate(m, REG + 1, &target.address.octets());
                immediate(m, REG + 2, &target.port.to_be_bytes());
                translate_to(m);
            });
        }
        let set = Set {
            flags: SET_ANONYMOUS | SET_CONSTANT | SET_MAP,
            key_type: TYPE_INTEGER,
            fields: &[4],
            data_type: TYPE_ADDRESS << 6 | TYPE_PORT,
            data_length: 8,
            ..Set::default()
        };
        let elements = targets.iter().enumerate().map(|(index, target)| {
            let mut data = target.address.octets().to_vec();
            data.extend(port_bytes(target.port));
            Element { key: number_key(index), data: Data::Value(data) }
        });
        let id = self.anonymous_map(&set, &elements.collect::<Vec<_>>());
        self.rule(chain, |m| {
            random(m, targets.len());
            lookup(m, ANONYMOUS_MAP, REG, Some(REG + 1), Some(id));
            translate_to(m);
        });
    }

    fn spread(&mut self, chain: &str, chains: &[String]) {
        let set = Set {
            flags: SET_ANONYMOUS | SET_CONSTANT | SET_MAP,
            key_type: TYPE_INTEGER,
            fields: &[4],
            data_type: TYPE_VERDICT,
            ..Set::default()
        };
        let elements = chains.iter().enumerate().map(|(index, chain)| Element {
            key: number_key(index),
            data: Data::Verdict(VERDICT_GOTO, chain.clone()),
        });
        let id = self.anonymous_map(&set, &elements.collect::<Vec<_>>());
        self.rule(chain, |m| {
            random(m, chains.len());
            lookup(m, ANONYMOUS_MAP, REG, Some(REG_VERDICT), Some(id));
        });
    }

    /// A constant map that lives and dies with the one rule that uses it.
    fn anonymous_map(&mut self, set: &Set<'_>, elements: &[Element]) -> u32 {
        let set = Set { size: Some(elements.len() as u32), ..*set };
        let id = self.set(ANONYMOUS_MAP, &set);
        self.elements(NEW_ELEMENT, ANONYMOUS_MAP, Some(id), elements);
        id
    }
}

/// The kernel puts a number for `%d`.
const ANONYMOUS_MAP: &str = "__map%d";
const LOOPBACK: Cidr = match Cidr::new(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Some(cidr) => cidr,
    None => panic!("a prefix of 8 is valid"),
};

#[derive(Clone, Copy, Default)]
struct Set<'a> {
    flags: u32,
    key_type: u32,
    fields: &'a [u32],
    data_type: u32,
    data_length: u32,
    timeout: Option<Duration>,
    size: Option<u32>,
}

enum Data {
    None,
    Value(Vec<u8>),
    Verdict(i32, String),
}

struct Element {
    key: Vec<u8>,
    data: Data,
}

impl Element {
    fn key(key: Vec<u8>) -> Element {
        Element { key, data: Data::None }
    }

    fn verdict(key: Vec<u8>, verdict: &Verdict) -> Element {
        let data = match verdict {
            Verdict::Goto(chain) => Data::Verdict(VERDICT_GOTO, chain.clone()),
            Verdict::Drop => Data::Verdict(VERDICT_DROP, String::new()),
        };
        Element { key, data }
    }

    fn write(&self, m: &mut Messages) {
        m.nest(1, |m| {
            m.bytes(1, &self.key);
        });
        match &self.data {
            Data::None => {}
            Data::Value(value) => {
                m.nest(2, |m| {
                    m.bytes(1, value);
                });
            }
            Data::Verdict(code, chain) => {
                m.nest(2, |m| verdict_data(m, *code, chain));
            }
        }
    }
}

/// Every part of a concatenation fills whole registers of four bytes.
fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn vip_key(vip: &Vip) -> Vec<u8> {
    let mut key = vip.address.octets().to_vec();
    key.extend(port_key(vip.protocol, vip.port));
    key
}

fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = vec![protocol.number(), 0, 0, 0];
    key.extend(port_bytes(port));
    key
}

fn pair_key(address: Ipv4Addr) -> Vec<u8> {
    [address.octets(), address.octets()].concat()
}

fn number_key(number: usize) -> Vec<u8> {
    (number as u32).to_ne_bytes().to_vec()
}

#[derive(Clone, Copy)]
enum Address {
    Source,
    Destination,
}

fn expression(m: &mut Messages, name: &str, body: impl FnOnce(&mut Messages)) {
    m.nest(1, |m| {
        m.text(1, name).nest(2, body);
    });
}

fn payload(m: &mut Messages, base: u32, offset: u32, length: u32, register: u32) {
    expression(m, "payload", |m| {
        m.number(1, register).number(2, base).number(3, offset).number(4, length);
    });
}

fn load_address(m: &mut Messages, register: u32, address: Address) {
    let offset = match address {
        Address::Source => 12,
        Address::Destination => 16,
    };
    payload(m, NETWORK_HEADER, offset, 4, register);
}

fn load_protocol_and_port(m: &mut Messages, register: u32) {
    meta_load(m, META_L4PROTO, register);
    payload(m, TRANSPORT_HEADER, 2, 2, register + 1);
}

fn meta_load(m: &mut Messages, key: u32, register: u32) {
    expression(m, "meta", |m| {
        m.number(2, key).number(1, register);
    });
}

fn compare(m: &mut Messages, operation: u32, value: &[u8]) {
    expression(m, "cmp", |m| {
        m.number(1, REG).number(2, operation).nest(3, |m| {
            m.bytes(1, value);
        });
    });
}

/// `REG = REG & mask ^ flip`, in host order as the mark is.
fn bitwise(m: &mut Messages, mask: u32, flip: u32) {
    bitwise_bytes(m, mask.to_ne_bytes(), flip.to_ne_bytes());
}

fn bitwise_bytes(m: &mut Messages, mask: [u8; 4], flip: [u8; 4]) {
    expression(m, "bitwise", |m| {
        m.number(1, REG).number(2, REG).number(3, 4);
        m.nest(4, |m| {
            m.bytes(1, &mask);
        });
        m.nest(5, |m| {
            m.bytes(1, &flip);
        });
    });
}

fn in_network(m: &mut Messages, address: Address, operation: u32, network: Cidr) {
    load_address(m, REG, address);
    bitwise_bytes(m, network.mask().octets(), [0; 4]);
    compare(m, operation, &network.address().octets());
}

/// Compares the kind of the packet's source or destination with "an address of this node".
fn if_local(m: &mut Messages, which: u32, operation: u32) {
    expression(m, "fib", |m| {
        m.number(1, REG).number(2, FIB_ADDRTYPE).number(3, which);
    });
    compare(m, operation, &RTN_LOCAL.to_ne_bytes());
}

fn lookup(m: &mut Messages, set: &str, source: u32, to: Option<u32>, id: Option<u32>) {
    expression(m, "lookup", |m| {
        m.text(1, set).number(2, source);
        if let Some(to) = to {
            m.number(3, to);
        }
        if let Some(id) = id {
            m.number(4, id);
        }
    });
}

fn immediate(m: &mut Messages, register: u32, value: &[u8]) {
    expression(m, "immediate", |m| {
        m.number(1, register).nest(2, |m| {
            m.bytes(1, value);
        });
    });
}

fn verdict(m: &mut Messages, code: i32, chain: &str) {
    expression(m, "immediate", |m| {
        m.number(1, REG_VERDICT).nest(2, |m| verdict_data(m, code, chain));
    });
}

fn verdict_data(m: &mut Messages, code: i32, chain: &str) {
    m.nest(2, |m| {
        m.number(1, code as u32);
        if !chain.is_empty() {
            m.text(2, chain);
        }
    });
}

fn random(m: &mut Messages, count: usize) {
    expression(m, "numgen", |m| {
        m.number(1, REG).number(2, count as u32).number(3, 1).number(4, 0);
    });
}

/// Destination NAT to the address in the second register and the port in the third.
fn translate_to(m: &mut Messages) {
    expression(m, "nat", |m| {
        m.number(1, 1).number(2, NFPROTO_IPV4.into()).number(3, REG + 1).number(5, REG + 2);
    });
}

fn mark_masquerade(m: &mut Messages) {
    meta_load(m, META_MARK, REG);
    bitwise(m, !MASQUERADE_MARK, MASQUERADE_MARK);
    expression(m, "meta", |m| {
        m.number(2, META_MARK).number(3, REG);
    });
}

fn masquerade(m: &mut Messages) {
    m.nest(1, |m| {
        m.text(1, "masq");
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::in_fresh, proxy::rules::tests::states};

    fn frame() -> Frame {
        let cidr = |text: &str| text.parse().expect("a network");
        Frame { cluster_cidr: cidr("10.244.0.0/16"), service_cidr: cidr("10.96.0.0/16") }
    }

    #[test]
    fn the_kernel_accepts_every_change_of_state() {
        in_fresh(|| {
            let mut table = Table::open(frame()).unwrap();
            assert!(table.apply(Ruleset::default()).unwrap().full);
            let states = states();
            for old in &states {
                for new in &states {
                    let applied = [old, new].map(|state| table.apply(state.clone()).unwrap());
                    assert!(applied.iter().all(|applied| !applied.full), "{old}\nto\n{new}");
                }
            }
        });
    }

    #[test]
    fn a_table_that_someone_else_changed_is_written_anew() {
        in_fresh(|| {
            let states = states();
            let mut ours = Table::open(frame()).unwrap();
            ours.apply(states[1].clone()).unwrap();
            let mut theirs = Table::open(frame()).unwrap();
            assert!(theirs.apply(Ruleset::default()).unwrap().full);
            assert!(ours.apply(states[6].clone()).unwrap().full);
            assert!(!ours.apply(states[7].clone()).unwrap().full);
        });
    }

    #[test]
    fn a_full_load_of_many_services_is_one_transaction() {
        in_fresh(|| {
            let mut ruleset = Ruleset::default();
            for number in 0..1000u32 {
                let address = Ipv4Addr::from_bits(0x0a60_0000 + number);
                let chain = format!("svc/shop/s{number}/tcp/80");
                let target = |last| Target { address: Ipv4Addr::new(10, 244, 1, last), port: 8080 };
                let vip = Vip { address, protocol: Protocol::Tcp, port: 80 };
                ruleset.vips.insert(vip, Verdict::Goto(chain.clone()));
                let targets = (1..4).map(target).collect();
                ruleset.chains.insert(chain, vec![Rule::Translate(targets)]);
            }
            // More endpoints than fit in one message.
            let target = |n: u32| Target { address: Ipv4Addr::from_bits(0x0af4_0000 + n), port: 1 };
            let crowd = Rule::Translate((0..3000).map(target).collect());
            ruleset.chains.insert("svc/shop/crowd/tcp/80".into(), vec![crowd]);
            let mut table = Table::open(frame()).unwrap();
            assert!(table.apply(ruleset).unwrap().full);
        });
    }
}
