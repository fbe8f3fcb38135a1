//! Unpacks the generated table. Its format is described in `schema/generate.py`.

use super::{FieldData, Gvk, ListType, PatchStrategy, RawShape, Schemas, TypeData};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::LazyLock;

static TABLE: &[u8] = include_bytes!("../../schema/v1.35.json.gz");

/// Why a table cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The compressed stream is damaged.
    #[error("schema table: {0}")]
    Unpack(#[from] std::io::Error),
    /// Not in the table's format.
    #[error("schema table: {0}")]
    Format(#[from] serde_json::Error),
    /// A type expression that names nothing.
    #[error("schema table: unknown type {0:?}")]
    Type(String),
    /// A list type that does not exist.
    #[error("schema table: unknown list type {0:?}")]
    ListType(String),
}

#[derive(Deserialize)]
struct Table {
    types: BTreeMap<String, Definition>,
}

#[derive(Deserialize)]
struct Definition {
    #[serde(default)]
    g: Vec<(Box<str>, Box<str>, Box<str>)>,
    k: Option<String>,
    #[serde(default)]
    a: u8,
    #[serde(default)]
    f: BTreeMap<Box<str>, Row>,
}

#[derive(Deserialize)]
struct Row {
    t: String,
    #[serde(default)]
    r: u8,
    l: Option<String>,
    #[serde(default)]
    m: Vec<Box<str>>,
    #[serde(default)]
    s: String,
    p: Option<Box<str>>,
    #[serde(default)]
    a: u8,
    d: Option<Box<Value>>,
}

/// The types of Kubernetes v1.35.
pub fn builtin() -> &'static Schemas {
    static BUILTIN: LazyLock<Schemas> = LazyLock::new(|| {
        #[expect(clippy::expect_used, reason = "the table is part of the program, and a test unpacks it")]
        unpack(TABLE).expect("the built-in schema table is well formed")
    });
    &BUILTIN
}

fn unpack(packed: &[u8]) -> Result<Schemas, LoadError> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text)?;
    build(serde_json::from_str(&text)?)
}

fn build(table: Table) -> Result<Schemas, LoadError> {
    let mut schemas = Schemas::default();
    let mut interned = BTreeMap::new();
    for (index, name) in (0u32..).zip(table.types.keys()) {
        schemas.names.insert(name.as_str().into(), index);
    }
    for (index, (name, definition)) in (0u32..).zip(table.types) {
        let first = schemas.fields.len() as u32;
        for (field, row) in definition.f {
            let data = field_data(&mut schemas, &mut interned, field, row)?;
            schemas.fields.push(data);
        }
        let opaque = definition.k.as_deref().map(opaque).transpose()?;
        let gvk = definition.g.first().map(|(group, version, kind)| Gvk {
            group: group.clone(),
            version: version.clone(),
            kind: kind.clone(),
        });
        for key in definition.g {
            schemas.kinds.insert(key, index);
        }
        let (count, atomic) = (schemas.fields.len() as u32 - first, definition.a != 0);
        schemas.types.push(TypeData { name: name.into(), gvk, opaque, atomic, first, count, defaults: false });
    }
    mark_defaults(&mut schemas);
    Ok(schemas)
}

fn opaque(text: &str) -> Result<RawShape, LoadError> {
    Ok(match text {
        "any" => RawShape::Any,
        "object" => RawShape::Object,
        "quantity" => RawShape::Quantity,
        "intstr" => RawShape::IntOrString,
        "time" => RawShape::Time,
        "microtime" => RawShape::MicroTime,
        other => return Err(LoadError::Type(other.to_string())),
    })
}

fn field_data(
    schemas: &mut Schemas,
    interned: &mut BTreeMap<RawShape, u32>,
    name: Box<str>,
    row: Row,
) -> Result<FieldData, LoadError> {
    let list_type = match row.l.as_deref() {
        None => None,
        Some("atomic") => Some(ListType::Atomic),
        Some("set") => Some(ListType::Set),
        Some("map") => Some(ListType::Map),
        Some(other) => return Err(LoadError::ListType(other.to_string())),
    };
    let strategy = |name| row.s.split(',').any(|s| s == name);
    Ok(FieldData {
        name,
        shape: shape(schemas, interned, &row.t)?,
        required: row.r != 0,
        atomic_map: row.a != 0,
        list_type,
        patch: PatchStrategy {
            merge: strategy("merge"),
            replace: strategy("replace"),
            retain_keys: strategy("retainKeys"),
        },
        merge_key: row.p,
        map_keys: row.m.into(),
        default: row.d,
    })
}

fn shape(schemas: &mut Schemas, interned: &mut BTreeMap<RawShape, u32>, text: &str) -> Result<RawShape, LoadError> {
    let unknown = || LoadError::Type(text.to_string());
    if let Some(name) = text.strip_prefix('@') {
        return schemas.names.get(name).map(|index| RawShape::Type(*index)).ok_or_else(unknown);
    }
    if let Some(element) = text.strip_prefix(['[', '{']) {
        let element = shape(schemas, interned, element)?;
        let next = schemas.shapes.len() as u32;
        let index = *interned.entry(element).or_insert(next);
        if index == next {
            schemas.shapes.push(element);
        }
        return Ok(if text.starts_with('[') { RawShape::List(index) } else { RawShape::Map(index) });
    }
    Ok(match text {
        "s" => RawShape::String,
        "y" => RawShape::Bytes,
        "t" => RawShape::Time,
        "b" => RawShape::Bool,
        "i" => RawShape::Int32,
        "j" => RawShape::Int64,
        "f" => RawShape::Double,
        "o" => RawShape::Object,
        _ => return Err(unknown()),
    })
}

/// Marks every type with a default in it or below it. Types may contain themselves, so this runs until nothing changes.
fn mark_defaults(schemas: &mut Schemas) {
    loop {
        let mut changed = false;
        for index in 0..schemas.types.len() {
            let data = &schemas.types[index];
            if data.defaults {
                continue;
            }
            let fields = &schemas.fields[data.first as usize..(data.first + data.count) as usize];
            if fields.iter().any(|f| f.default.is_some() || leads_to_defaults(schemas, f.shape)) {
                schemas.types[index].defaults = true;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

fn leads_to_defaults(schemas: &Schemas, shape: RawShape) -> bool {
    match shape {
        RawShape::Type(index) => schemas.types[index as usize].defaults,
        RawShape::List(index) | RawShape::Map(index) => leads_to_defaults(schemas, schemas.shapes[index as usize]),
        _ => false,
    }
}
