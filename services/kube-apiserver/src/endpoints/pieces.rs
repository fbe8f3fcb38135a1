//! A list as JSON text that is made while it is sent: a large one is never in memory as a whole, compressed or not.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::encode::ListMeta;
use crate::registry::Resource;
use crate::storage::{Stored, codec};

/// Bytes of a piece before the item that fills it: enough for TLS records to be full, little enough for a processor's cache.
const PIECE: usize = 128 * 1024;

/// The text, from the items' own texts.
pub struct Text {
    items: Vec<Arc<Stored>>,
    /// Items written so far, and whether the end is.
    next: usize,
    done: bool,
    /// Up to the first item.
    opening: String,
    /// What each item's own text begins with and the list says once for all.
    head: Vec<u8>,
}

impl Text {
    /// Of a list of `res`.
    pub fn new(res: &Resource, items: Vec<Arc<Stored>>, meta: &ListMeta) -> Self {
        let opening = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
            res.kind,
            res.api_version(),
            meta.to_value()
        );
        Self { items, next: 0, done: false, opening, head: codec::head(res) }
    }

    /// Bytes of the whole, somewhat more than less.
    pub fn size(&self) -> usize {
        self.items.iter().map(|i| i.json.len() + 1).sum::<usize>() + self.opening.len() + 2
    }

    /// All of it at once.
    pub fn whole(mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        while self.write(&mut out, usize::MAX) {}
        out
    }

    /// Writes on until `out` holds `limit` bytes; false: nothing was left.
    fn write(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        if self.done {
            return false;
        }
        if self.next == 0 {
            out.extend_from_slice(self.opening.as_bytes());
        }
        while out.len() < limit
            && let Some(item) = self.items.get(self.next)
        {
            if self.next > 0 {
                out.push(b',');
            }
            item.write_item(&self.head, out);
            self.next += 1;
        }
        if self.next == self.items.len() {
            out.extend_from_slice(b"]}");
            self.done = true;
        }
        true
    }
}

impl Iterator for Text {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::with_capacity(PIECE + PIECE / 8);
        self.write(&mut out, PIECE).then(|| out.into())
    }
}

/// The same compressed.
pub struct Packed {
    text: Text,
    /// Gone at the end.
    packer: Option<GzEncoder<Vec<u8>>>,
}

impl Packed {
    /// Speed matters more than size here, as upstream decided.
    pub fn new(text: Text) -> Self {
        Self { text, packer: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl Iterator for Packed {
    type Item = std::io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(packer) = &mut self.packer {
            let Some(piece) = self.text.next() else {
                return self.packer.take().map(|p| p.finish().map(Bytes::from));
            };
            if let Err(error) = packer.write_all(&piece) {
                self.packer = None;
                return Some(Err(error));
            }
            let out = std::mem::take(packer.get_mut());
            if !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::lookup;

    fn list(count: usize, size: usize) -> Text {
        let res = lookup("", "v1", "configmaps").expect("a row");
        let item = |i: usize| {
            let text = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": format!("c{i}")},
                "data": {"k": "x".repeat(size)}});
            Arc::new(codec::decode(res, text.to_string().as_bytes(), 7).expect("decodes"))
        };
        Text::new(res, (0..count).map(item).collect(), &ListMeta { revision: 9, ..ListMeta::default() })
    }

    #[test]
    fn pieces_are_the_whole() {
        for (count, size, pieces) in [(0, 0, 1), (1, 10, 1), (1000, 1000, 8), (3, PIECE, 3), (2, PIECE * 3, 2)] {
            let whole = list(count, size).whole();
            assert!(whole.len() <= list(count, size).size(), "{count} x {size}");
            let parsed: Value = serde_json::from_slice(&whole).expect("parses");
            assert_eq!(parsed["items"].as_array().map(Vec::len), Some(count));
            assert_eq!(
                (&parsed["kind"], &parsed["metadata"]["resourceVersion"]),
                (&json!("ConfigMapList"), &json!("9"))
            );
            let parts: Vec<Bytes> = list(count, size).collect();
            assert_eq!(parts.concat(), whole);
            assert!(parts.len().abs_diff(pieces) <= 1, "{count} x {size}: {} pieces", parts.len());
            let packed: Vec<Bytes> = Packed::new(list(count, size)).collect::<Result<_, _>>().expect("packs");
            let mut unpacked = Vec::new();
            GzDecoder::new(packed.concat().as_slice()).read_to_end(&mut unpacked).expect("unpacks");
            assert_eq!(unpacked, whole);
        }
    }
}
