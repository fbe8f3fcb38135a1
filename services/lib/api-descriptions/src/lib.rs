//! What the types of Kubernetes v1.35 and their fields are for, in upstream's words, as `kubectl explain` shows them. The texts come from the
//! published schemas when this crate is built; here they only lie compressed, and whoever needs them unpacks them for as long.

use serde_json::Value;
use std::io::Read;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.json.gz"));

/// The unpacked texts (some megabytes): drop them when the work is done.
pub struct Descriptions(Value);

impl Descriptions {
    /// Unpacks the texts. What was packed when the program was built can be unpacked; were it damaged, there would be no texts.
    pub fn unpack() -> Self {
        let mut text = Vec::new();
        let read = flate2::read::GzDecoder::new(PACKED).read_to_end(&mut text);
        Self(read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    /// What a type is for; types go by the name of their definition, `io.k8s.api.core.v1.Pod`.
    pub fn of(&self, name: &str) -> Option<&str> {
        self.0[name][0].as_str()
    }

    /// What a type's field is for, by its name in JSON.
    pub fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        self.0[name][1][field].as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::Descriptions;

    #[test]
    fn types_and_fields_are_described() {
        let texts = Descriptions::unpack();
        let beginnings = [
            (texts.of("io.k8s.api.core.v1.Pod"), "Pod is a collection of containers"),
            (texts.of_field("io.k8s.api.core.v1.Pod", "spec"), "Specification of the desired behavior of the pod."),
            (texts.of_field("io.k8s.api.core.v1.Container", "image"), "Container image name."),
            (texts.of("io.k8s.api.core.v1.PodList"), "PodList is a list of Pod objects"),
            (texts.of("io.k8s.apimachinery.pkg.apis.meta.v1.Time"), "Time is a wrapper"),
        ];
        for (text, beginning) in beginnings {
            assert!(text.is_some_and(|text| text.starts_with(beginning)), "{beginning}: {text:?}");
        }
        assert_eq!((texts.of("Pod"), texts.of_field("io.k8s.api.core.v1.Pod", "colour")), (None, None));
    }
}
