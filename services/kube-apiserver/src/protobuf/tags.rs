//! Field numbers, from the table that `protobuf/generate.py` makes.

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

/// What a number stands for in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A field of the JSON object; whether a zero counts as a value.
    Field(Box<str>, bool),
    /// A message whose fields are the JSON object's own.
    Inline(Box<str>),
}

/// The numbers of one message, in their order.
#[derive(Debug)]
pub struct Tags(Vec<(u32, Tag)>);

impl Tags {
    /// What a number stands for.
    pub fn get(&self, number: u32) -> Option<&Tag> {
        let at = self.0.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        Some(&self.0[at].1)
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Tag)> {
        self.0.iter().map(|(number, tag)| (*number, tag))
    }
}

static PACKED: &[u8] = include_bytes!("../../protobuf/tags.json.gz");

/// Unpacked by the first protobuf body; JSON-only servers never pay for it.
static TABLE: LazyLock<HashMap<Box<str>, Tags>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the table is part of the program, and a test unpacks it")]
    unpack().expect("the table of field numbers is well formed")
});

/// The numbers of a type by its full name.
pub fn of(name: &str) -> Option<&'static Tags> {
    TABLE.get(name)
}

fn unpack() -> Result<HashMap<Box<str>, Tags>, Box<dyn std::error::Error>> {
    type Raw = HashMap<Box<str>, HashMap<Box<str>, (u32, Box<str>)>>;
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(PACKED).read_to_end(&mut text)?;
    let raw: Raw = serde_json::from_slice(&text)?;
    let tag = |field: Box<str>, flags: &str| match field.strip_prefix('+') {
        Some(inline) => Tag::Inline(inline.into()),
        None => Tag::Field(field, flags == "p"),
    };
    let tags = |fields: HashMap<Box<str>, (u32, Box<str>)>| {
        let mut tags: Vec<_> =
            fields.into_iter().map(|(field, (number, flags))| (number, tag(field, &flags))).collect();
        tags.sort_unstable_by_key(|(number, _)| *number);
        Tags(tags)
    };
    Ok(raw.into_iter().map(|(name, fields)| (name, tags(fields))).collect())
}
