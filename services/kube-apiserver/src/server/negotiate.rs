//! Which representation a client wants: JSON as it is, a Table, or metadata only. Pure.

use crate::errors::ApiError;
use crate::protobuf::MEDIA_TYPE;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object.
    Object,
    /// meta.k8s.io/v1 Table.
    Table,
    /// meta.k8s.io/v1 PartialObjectMetadata or its list.
    Metadata,
}

/// What a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The form.
    pub form: Form,
    /// YAML instead of JSON.
    pub yaml: bool,
}

/// The media types this server writes.
pub const WRITTEN: &[&str] = &["application/json", "application/yaml"];

/// Picks the first acceptable clause; a missing header accepts JSON.
pub fn accept(header: Option<&str>) -> Result<Accepted, ApiError> {
    let header = header.unwrap_or_default().trim();
    if header.is_empty() {
        return Ok(Accepted { form: Form::Object, yaml: false });
    }
    header.split(',').find_map(clause).ok_or_else(|| ApiError::not_acceptable(WRITTEN))
}

fn clause(text: &str) -> Option<Accepted> {
    let mut parts = text.split(';').map(str::trim);
    let yaml = match parts.next()? {
        "application/json" | "*/*" | "application/*" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let (mut kind, mut version, mut group) = ("", "v1", "meta.k8s.io");
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => kind = value,
            Some(("v", value)) => version = value,
            Some(("g", value)) => group = value,
            _ => {}
        }
    }
    let form = match kind {
        "" => Form::Object,
        "Table" => Form::Table,
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Metadata,
        _ => return None,
    };
    // A form in a version nobody here writes is passed over, as is one of another group.
    if form != Form::Object && (version != "v1" || group != "meta.k8s.io") {
        return None;
    }
    Some(Accepted { form, yaml })
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
        let table = [
            (None, Some((Form::Object, false))),
            (Some("*/*"), Some((Form::Object, false))),
            (
                Some(
                    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                ),
                Some((Form::Table, false)),
            ),
            (Some("application/vnd.kubernetes.protobuf, application/json"), Some((Form::Object, false))),
            (Some("application/json;as=Table;g=meta.k8s.io;v=v1alpha1"), None),
            (
                Some("application/json; as=PartialObjectMetadataList; g=meta.k8s.io; v=v1"),
                Some((Form::Metadata, false)),
            ),
            (Some("application/yaml"), Some((Form::Object, true))),
            (Some("application/vnd.kubernetes.protobuf"), None),
        ];
        for (header, want) in table {
            let got = accept(header).ok().map(|a| (a.form, a.yaml));
            assert_eq!(got, want, "{header:?}");
        }
    }

    #[test]
    fn contents() {
        assert_eq!(content(Some("application/json; charset=utf-8")), Ok(Content::Json));
        assert_eq!(content(Some("application/yaml")), Ok(Content::Yaml));
        assert_eq!(content(Some("application/vnd.kubernetes.protobuf")), Ok(Content::Protobuf));
        assert_eq!(content(Some("application/cbor")).map_err(|e| e.code()), Err(415));
    }
}
