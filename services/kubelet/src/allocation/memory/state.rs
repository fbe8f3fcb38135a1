//! `memory_manager_state`: which containers have which memory, in upstream's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::checkpoint::{self, Kept, list, map};

/// The file's name, in the kubelet's folder.
pub const FILE: &str = "memory_manager_state";

/// Bytes of one kind of memory on one NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// All there is.
    pub total: u64,
    /// What no container gets.
    pub system_reserved: u64,
    /// What containers can get.
    pub allocatable: u64,
    /// What they have.
    pub reserved: u64,
    /// What they can still get.
    pub free: u64,
}

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Blocks that lie on it.
    pub number_of_assignments: u64,
    /// By kind: `memory` and the sizes of huge pages.
    pub memory_map: BTreeMap<String, Table>,
    /// The nodes that its blocks lie on, itself among them.
    pub cells: Vec<usize>,
}

/// Memory of one kind that a container has, somewhere on these nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Block {
    /// The nodes.
    #[serde(rename = "numaAffinity")]
    pub nodes: Vec<usize>,
    /// The kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
}

/// By pod, then by container.
pub type Entries = BTreeMap<String, BTreeMap<String, Vec<Block>>>;

/// The machine's nodes.
pub type Nodes = BTreeMap<usize, Node>;

/// What is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What each node has left.
    pub nodes: Nodes,
    /// What containers have.
    pub entries: Entries,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checkpoint {
    policy_name: String,
    machine_state: Nodes,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: Entries,
    checksum: u32,
}

impl Kept for Checkpoint {
    const PREFIX: &str = "[memorymanager] ";

    fn policy(&self) -> &str {
        &self.policy_name
    }

    fn checksum(&mut self) -> &mut u32 {
        &mut self.checksum
    }

    fn text(&self) -> String {
        let nodes = map(self.machine_state.iter().map(|(id, node)| (id, node_text(node))));
        let containers = |all: &BTreeMap<String, Vec<Block>>| {
            map(all.iter().map(|(name, blocks)| (name, list(blocks.iter().map(block_text)))))
        };
        format!(
            "(*state.MemoryManagerCheckpoint){{PolicyName:(string){} MachineState:(state.NUMANodeMap){nodes} \
             Entries:(state.ContainerMemoryAssignments){} Checksum:(checksum.Checksum)0}}",
            self.policy_name,
            map(self.entries.iter().map(|(pod, all)| (pod, containers(all)))),
        )
    }
}

fn node_text(node: &Node) -> String {
    let tables = map(node.memory_map.iter().map(|(kind, t)| {
        let amounts = format!(
            "TotalMemSize:(uint64){} SystemReserved:(uint64){} Allocatable:(uint64){} Reserved:(uint64){} Free:(uint64){}",
            t.total, t.system_reserved, t.allocatable, t.reserved, t.free
        );
        (kind, format!("<*>{{{amounts}}}"))
    }));
    format!(
        "<*>{{NumberOfAssignments:(int){} MemoryMap:(map[v1.ResourceName]*state.MemoryTable){tables} Cells:([]int){}}}",
        node.number_of_assignments,
        list(&node.cells)
    )
}

fn block_text(block: &Block) -> String {
    let Block { nodes, kind, size } = block;
    format!("{{NUMAAffinity:([]int){} Type:(v1.ResourceName){kind} Size:(uint64){size}}}", list(nodes))
}

/// The file's text.
///
/// # Errors
/// Never in practice: what was put together here can be encoded.
pub fn encode(policy: &str, state: &State) -> Result<String, String> {
    checkpoint::encode(Checkpoint {
        policy_name: policy.to_owned(),
        machine_state: state.nodes.clone(),
        entries: state.entries.clone(),
        checksum: 0,
    })
}

/// What the file says.
///
/// # Errors
/// It is not such a file, its checksum is not that of its content, or another policy wrote it.
pub fn decode(text: &str, policy: &str) -> Result<State, String> {
    let file: Checkpoint = checkpoint::decode(text, policy)?;
    Ok(State { nodes: file.machine_state, entries: file.entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = r#"{"policyName":"static","machineState":{"0":{"numberOfAssignments":0,"memoryMap":{"memory":{"total":2048,"systemReserved":512,"allocatable":1536,"reserved":512,"free":1024}},"cells":[]}},"entries":{"pod":{"container1":[{"numaAffinity":[0],"type":"memory","size":512}]}},"checksum":4215593881}"#;

    #[test]
    fn upstreams_files_are_read_and_written() {
        assert_eq!(encode("static", &decode(THEIRS, "static").unwrap()).unwrap(), THEIRS);
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(
            decode(THEIRS, "None").unwrap_err(),
            "[memorymanager] configured policy \"None\" differs from state checkpoint policy \"static\""
        );
        assert_eq!(decode(&THEIRS.replace("1024", "1025"), "static").unwrap_err(), "checkpoint is corrupted");
    }
}
