//! A backup as a function of any bytes (see `crate::hostile`).

use super::{
    Error,
    format::{Reader, mend},
};

/// A backup, of which the checksums of chunks are put right.
pub(crate) fn read(data: &[u8]) {
    let all = |bytes: &[u8]| -> Result<(), Error> {
        let mut reader = Reader::open(bytes, "input")?;
        while reader.next()?.is_some() {}
        assert!(reader.end().is_some(), "it was read to its end");
        Ok(())
    };
    let _ = all(data);
    let mut mended = data.to_vec();
    mend(&mut mended);
    let _ = all(&mended);
}

/// A small backup.
#[cfg(test)]
pub(crate) fn corpus() -> Vec<u8> {
    use super::format::{Unit, Writer};
    use crate::{disk::At, types::Revision};
    let header = serde_json::json!({
        "id": "b", "cluster": { "id": "c", "epoch": 1 }, "program": "0.1.0", "featureLevel": 3,
        "takenAt": 1_700_000_000, "member": 1, "confirmed": true, "base": null, "oldest": 0,
        "revision": 3, "members": [], "keys": [],
    });
    let (mut writer, first) =
        Writer::new(&serde_json::from_value(header).expect("the header of a backup"));
    let mut bytes = first.to_vec();
    for revision in 1..4 {
        let unit = Unit { at: At::first(Revision(revision)), record: vec![7; 9].into() };
        bytes.extend(writer.push(&unit).unwrap_or_default());
    }
    bytes.extend(writer.finish());
    bytes
}
