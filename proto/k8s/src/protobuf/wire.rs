//! Protobuf's wire format: tags, varints and lengths; knows no message.

/// A wire type, as it stands in a tag.
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other; ends after the first error.
pub(super) struct Parts<'a>(pub(super) &'a [u8]);

impl<'a> Parts<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("unexpected EOF")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("unexpected EOF")?;
        self.0 = rest;
        Ok(taken)
    }

    fn part(&mut self) -> Result<(u32, Wire<'a>), String> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "proto: illegal tag")?;
        let wire = match (tag & 7) as u32 {
            VARINT => Wire::Varint(self.varint()?),
            FIXED64 => {
                let bytes = self.take(8)?.try_into().map_err(|_| "unexpected EOF")?;
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            BYTES => {
                let count = usize::try_from(self.varint()?).map_err(|_| "unexpected EOF")?;
                Wire::Bytes(self.take(count)?)
            }
            FIXED32 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((number, wire))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}

/// A buffer that is filled from its end, so that the length of what is nested is known when its tag
/// is written, without a pass that only counts.
pub(super) struct Backwards {
    bytes: Vec<u8>,
    /// Where the content begins.
    at: usize,
}

impl Backwards {
    pub(super) fn with_capacity(capacity: usize) -> Backwards {
        Backwards { bytes: vec![0; capacity], at: capacity }
    }

    /// How much has been written.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn raw(&mut self, content: &[u8]) {
        if self.at < content.len() {
            self.grow(content.len());
        }
        self.at -= content.len();
        self.bytes[self.at..self.at + content.len()].copy_from_slice(content);
    }

    fn grow(&mut self, wanted: usize) {
        let used = self.len();
        let capacity = (self.bytes.len() * 2).max(used + wanted + 64);
        let mut bytes = vec![0; capacity];
        bytes[capacity - used..].copy_from_slice(&self.bytes[self.at..]);
        self.at = capacity - used;
        self.bytes = bytes;
    }

    pub(super) fn varint(&mut self, mut value: u64) {
        let (mut digits, mut count) = ([0; 10], 0);
        while value >= 0x80 {
            digits[count] = value as u8 | 0x80;
            value >>= 7;
            count += 1;
        }
        digits[count] = value as u8;
        self.raw(&digits[..=count]);
    }

    pub(super) fn tag(&mut self, number: u32, wire: u32) {
        self.varint(u64::from(number << 3 | wire));
    }

    pub(super) fn int(&mut self, number: u32, value: u64) {
        self.varint(value);
        self.tag(number, VARINT);
    }

    pub(super) fn bytes(&mut self, number: u32, content: &[u8]) {
        self.raw(content);
        self.varint(content.len() as u64);
        self.tag(number, BYTES);
    }

    /// Makes what was written since `end` (an earlier [`Backwards::len`]) the message `number`.
    pub(super) fn message(&mut self, number: u32, end: usize) {
        self.varint((self.len() - end) as u64);
        self.tag(number, BYTES);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.split_off(self.at)
    }
}
