//! `cpu_manager_state`: which containers have which CPUs, in upstream's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::checkpoint::{self, Kept, map};
use super::set::CpuSet;

/// The file's name, in the kubelet's folder.
pub const FILE: &str = "cpu_manager_state";

/// By pod, then by container.
pub type Entries = BTreeMap<String, BTreeMap<String, CpuSet>>;

/// What is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What everybody else runs on.
    pub shared: CpuSet,
    /// CPUs that containers have for themselves.
    pub entries: Entries,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checkpoint {
    policy_name: String,
    default_cpu_set: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, BTreeMap<String, String>>,
    checksum: u32,
}

impl Kept for Checkpoint {
    const PREFIX: &str = "";

    fn policy(&self) -> &str {
        &self.policy_name
    }

    fn checksum(&mut self) -> &mut u32 {
        &mut self.checksum
    }

    fn text(&self) -> String {
        format!(
            "(*state.CPUManagerCheckpoint){{PolicyName:(string){} DefaultCPUSet:(string){} \
             Entries:(map[string]map[string]string){} Checksum:(checksum.Checksum)0}}",
            self.policy_name,
            self.default_cpu_set,
            map(self.entries.iter().map(|(pod, containers)| (pod, map(containers)))),
        )
    }
}

/// The file's text.
///
/// # Errors
/// Never in practice: what was put together here can be encoded.
pub fn encode(policy: &str, state: &State) -> Result<String, String> {
    let text =
        |sets: &BTreeMap<String, CpuSet>| sets.iter().map(|(name, set)| (name.clone(), set.to_string())).collect();
    checkpoint::encode(Checkpoint {
        policy_name: policy.to_owned(),
        default_cpu_set: state.shared.to_string(),
        entries: state.entries.iter().map(|(uid, sets)| (uid.clone(), text(sets))).collect(),
        checksum: 0,
    })
}

/// What the file says.
///
/// # Errors
/// It is not such a file, its checksum is not that of its content, or another policy wrote it.
pub fn decode(text: &str, policy: &str) -> Result<State, String> {
    let file: Checkpoint = checkpoint::decode(text, policy)?;
    let mut entries = Entries::new();
    for (uid, containers) in &file.entries {
        for (name, set) in containers {
            entries.entry(uid.clone()).or_default().insert(name.clone(), CpuSet::parse(set)?);
        }
    }
    Ok(State { shared: CpuSet::parse(&file.default_cpu_set)?, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_files_are_read_and_written() {
        for (policy, text) in [
            ("none", r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#),
            ("none", r#"{"policyName":"none","defaultCpuSet":"4-6","checksum":354655845}"#),
            (
                "none",
                r#"{"policyName":"none","defaultCpuSet":"1-3","entries":{"pod":{"container1":"4-6","container2":"1-3"}},"checksum":3610638499}"#,
            ),
        ] {
            assert_eq!(encode(policy, &decode(text, policy).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn other_files_are_refused() {
        let text = r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#;
        let other = decode(text, "static").unwrap_err();
        assert_eq!(other, r#"configured policy "static" differs from state checkpoint policy "none""#);
        assert_eq!(decode(&text.replace("\"\"", "\"1\""), "none").unwrap_err(), "checkpoint is corrupted");
    }
}
