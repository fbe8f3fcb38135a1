//! Which representation a client wants: the object, a Table or metadata only, as JSON, YAML or protobuf. Pure.

use crate::errors::ApiError;
use crate::protobuf::MEDIA_TYPE;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object.
    Object,
    /// A Table.
    Table(Version),
    /// PartialObjectMetadata or its list.
    Metadata(Version),
}

/// Versions of meta.k8s.io; they differ in their name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// v1.
    V1,
    /// v1beta1, for older clients.
    V1Beta1,
}

impl Version {
    /// Group and version.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// application/json.
    Json,
    /// application/yaml.
    Yaml,
    /// application/vnd.kubernetes.protobuf.
    Protobuf,
}

/// What a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The form.
    pub form: Form,
    /// The encoding.
    pub encoding: Encoding,
    /// Whether JSON would do as well, for what has no protobuf form.
    pub or_json: bool,
}

/// The media types this server writes.
pub const WRITTEN: &[&str] = &["application/json", "application/yaml", MEDIA_TYPE];

/// Picks the clause that the client prefers and this server can write; a missing header accepts JSON.
pub fn accept(header: Option<&str>) -> Result<Accepted, ApiError> {
    let header = header.unwrap_or_default().trim();
    if header.is_empty() {
        return Ok(Accepted { form: Form::Object, encoding: Encoding::Json, or_json: true });
    }
    let mut clauses: Vec<Clause> = header.split(',').filter_map(clause).collect();
    // Stable: clauses of equal weight stay in the client's order.
    clauses.sort_by_key(|c| std::cmp::Reverse(c.weight));
    let Some(first) = clauses.first().copied() else { return Err(ApiError::not_acceptable(WRITTEN)) };
    let or_json = clauses.iter().any(|c| c.encoding == Encoding::Json && c.form == first.form);
    Ok(Accepted { form: first.form, encoding: first.encoding, or_json })
}

#[derive(Clone, Copy)]
struct Clause {
    form: Form,
    encoding: Encoding,
    /// Thousandths.
    weight: u16,
}

fn clause(text: &str) -> Option<Clause> {
    let mut parts = text.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        MEDIA_TYPE => Encoding::Protobuf,
        _ => return None,
    };
    let (mut kind, mut version, mut group, mut weight) = ("", "v1", "meta.k8s.io", 1000);
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => kind = value,
            Some(("v", value)) => version = value,
            Some(("g", value)) => group = value,
            Some(("q", value)) => weight = (value.parse::<f32>().unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u16,
            _ => {}
        }
    }
    let form = match kind {
        "" => Form::Object,
        // A table's cells are of any type: it has no message.
        "Table" if encoding != Encoding::Protobuf => Form::Table(written(group, version)?),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Metadata(written(group, version)?),
        _ => return None,
    };
    (weight > 0).then_some(Clause { form, encoding, weight })
}

/// The version of a form; one that nobody here writes is passed over, as is one of another group.
fn written(group: &str, version: &str) -> Option<Version> {
    match (group, version) {
        ("meta.k8s.io", "v1") => Some(Version::V1),
        ("meta.k8s.io", "v1beta1") => Some(Version::V1Beta1),
        _ => None,
    }
}

/// How a request body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// application/json, or nothing said.
    Json,
    /// application/yaml.
    Yaml,
    /// application/vnd.kubernetes.protobuf.
    Protobuf,
}

/// The media types of objects this server reads.
pub const READ: &[&str] = &["application/json", "application/yaml", MEDIA_TYPE];

/// Reads a Content-Type for objects.
pub fn content(header: Option<&str>) -> Result<Content, ApiError> {
    match header.unwrap_or_default().split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => Ok(Content::Json),
        "application/yaml" => Ok(Content::Yaml),
        MEDIA_TYPE => Ok(Content::Protobuf),
        _ => Err(ApiError::unsupported_media_type(READ)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts() {
        use Encoding::{Json, Protobuf, Yaml};
        let tables = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        let table = [
            (None, Some((Form::Object, Json))),
            (Some("*/*"), Some((Form::Object, Json))),
            (Some(tables), Some((Form::Table(Version::V1), Json))),
            (Some("application/vnd.kubernetes.protobuf, application/json"), Some((Form::Object, Protobuf))),
            (Some("application/vnd.kubernetes.protobuf;stream=watch"), Some((Form::Object, Protobuf))),
            (Some("application/vnd.kubernetes.protobuf;q=0.5, application/json"), Some((Form::Object, Json))),
            (Some("application/json;as=Table;g=meta.k8s.io;v=v1alpha1"), None),
            (Some("application/json;as=Table;g=meta.k8s.io;v=v1beta1"), Some((Form::Table(Version::V1Beta1), Json))),
            (Some("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1"), None),
            (
                Some("application/json; as=PartialObjectMetadataList; g=meta.k8s.io; v=v1"),
                Some((Form::Metadata(Version::V1), Json)),
            ),
            (Some(metadata), Some((Form::Metadata(Version::V1), Protobuf))),
            (Some("application/yaml"), Some((Form::Object, Yaml))),
            (Some("application/cbor"), None),
            (Some("application/json;q=0"), None),
        ];
        for (header, want) in table {
            let got = accept(header).ok().map(|a| (a.form, a.encoding));
            assert_eq!(got, want, "{header:?}");
        }
        assert!(accept(Some(metadata)).is_ok_and(|a| a.or_json));
        assert!(accept(Some("application/vnd.kubernetes.protobuf")).is_ok_and(|a| !a.or_json));
    }

    #[test]
    fn contents() {
        assert_eq!(content(Some("application/json; charset=utf-8")), Ok(Content::Json));
        assert_eq!(content(Some("application/yaml")), Ok(Content::Yaml));
        assert_eq!(content(Some("application/vnd.kubernetes.protobuf")), Ok(Content::Protobuf));
        assert_eq!(content(Some("application/cbor")).map_err(|e| e.code()), Err(415));
    }
}
