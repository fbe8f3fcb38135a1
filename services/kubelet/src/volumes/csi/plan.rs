//! What is asked of a CSI driver, from the volume, the driver's object and its abilities; and where everything lies. Pure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cri_api::csi::VolumeCapability;
use cri_api::csi::node_service_capability::rpc::Type as Ability;
use cri_api::csi::volume_capability::access_mode::Mode;
use cri_api::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::pod::{Map, Pod, Volume};

/// A volume as its driver is asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The driver.
    pub driver: String,
    /// The driver's own name of the volume.
    pub handle: String,
    /// The persistent volume, or the pod's volume if it is inline: names the folder.
    pub name: String,
    /// The file system, if the user chose one.
    pub fs_type: String,
    /// Options for mount(8).
    pub flags: Vec<String>,
    /// Access modes of the persistent volume.
    pub modes: Vec<String>,
    /// Whether the pod asked for it read-only.
    pub read_only: bool,
    /// A block device instead of a file system.
    pub block: bool,
    /// It lives and dies with the pod.
    pub inline: bool,
    /// What the driver told about the volume when it made it, or what the pod says.
    pub attributes: Map,
    /// Namespace and name of the secrets for staging, publishing and growing.
    pub secrets: [Option<(String, String)>; 3],
    /// Bytes.
    pub capacity: i64,
}

/// Indexes of [`Wanted::secrets`].
pub const STAGE: usize = 0;
/// See [`STAGE`].
pub const PUBLISH: usize = 1;
/// See [`STAGE`].
pub const EXPAND: usize = 2;

/// What a volume of a pod wants of a CSI driver, if it is one's; with the persistent volume behind it if it has one.
///
/// # Errors
/// A field that is required is missing, by name.
pub fn wanted(pod: &Pod, volume: &Volume, pv: Option<&Value>) -> Option<Result<Wanted, String>> {
    if let Some(inline) = &volume.csi {
        let digest = Sha256::digest(format!("{}{}", pod.metadata.uid, volume.name));
        let secret = |name: &String| (pod.metadata.namespace.clone(), name.clone());
        let publish = inline.node_publish_secret_ref.as_ref().map(|s| secret(&s.name));
        return Some(Ok(Wanted {
            driver: inline.driver.clone(),
            handle: format!("csi-{digest:x}"),
            name: volume.name.clone(),
            fs_type: inline.fs_type.clone().unwrap_or_default(),
            modes: vec!["ReadWriteOnce".into()],
            read_only: inline.read_only,
            inline: true,
            attributes: inline.volume_attributes.clone(),
            secrets: [None, publish, None],
            ..Wanted::default()
        }));
    }
    let pv = pv?;
    let spec = &pv["spec"];
    let wanted = || persistent(volume, pv, spec).ok_or_else(|| "csi: driver and volumeHandle are required".to_owned());
    spec["csi"].is_object().then(wanted)
}

fn persistent(volume: &Volume, pv: &Value, spec: &Value) -> Option<Wanted> {
    let csi = &spec["csi"];
    let text = |v: &Value| v.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let texts = |v: &Value| v.as_array().into_iter().flatten().filter_map(text).collect();
    let secret = |field: &str| text(&csi[field]["namespace"]).zip(text(&csi[field]["name"]));
    Some(Wanted {
        driver: text(&csi["driver"])?,
        handle: text(&csi["volumeHandle"])?,
        name: text(&pv["metadata"]["name"])?,
        fs_type: text(&csi["fsType"]).unwrap_or_default(),
        flags: texts(&spec["mountOptions"]),
        modes: texts(&spec["accessModes"]),
        read_only: volume.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only),
        block: spec["volumeMode"] == "Block",
        inline: false,
        attributes: Map::deserialize(&csi["volumeAttributes"]).unwrap_or_default(),
        secrets: [secret("nodeStageSecretRef"), secret("nodePublishSecretRef"), secret("nodeExpandSecretRef")],
        capacity: super::super::payload::size_limit(spec["capacity"].get("storage")).unwrap_or(0),
    })
}

/// What the CSIDriver object says; the defaults are those of a driver without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A controller attaches volumes to the node first.
    pub attach: bool,
    /// The driver is told about the pod.
    pub pod_info: bool,
    /// Published volumes are published again now and then.
    pub republish: bool,
    /// `None`, `File` or `ReadWriteOnceWithFSType`.
    pub group_policy: String,
    /// Audience and lifetime of the service-account tokens that the driver gets.
    pub tokens: Vec<(String, i64)>,
    /// Tokens go with the secrets (KEP-5538).
    pub tokens_in_secrets: bool,
    /// `Persistent`, `Ephemeral`.
    pub lifecycles: Vec<String>,
}

impl Rules {
    /// Reads the object.
    pub fn of(object: Option<&Value>) -> Rules {
        let none = Value::Null;
        let spec = object.map_or(&none, |o| &o["spec"]);
        let list = |field: &str| spec[field].as_array().into_iter().flatten();
        let lifecycles: Vec<String> =
            list("volumeLifecycleModes").filter_map(Value::as_str).map(str::to_owned).collect();
        Rules {
            attach: spec["attachRequired"] != false,
            pod_info: spec["podInfoOnMount"] == true,
            republish: spec["requiresRepublish"] == true,
            group_policy: spec["fsGroupPolicy"].as_str().unwrap_or("ReadWriteOnceWithFSType").to_owned(),
            tokens: list("tokenRequests")
                .map(|t| {
                    let audience = t["audience"].as_str().unwrap_or_default().to_owned();
                    (audience, t["expirationSeconds"].as_i64().unwrap_or(3600))
                })
                .collect(),
            tokens_in_secrets: spec["serviceAccountTokenInSecrets"] == true,
            lifecycles: if lifecycles.is_empty() { vec!["Persistent".into()] } else { lifecycles },
        }
    }

    /// Whether the driver does volumes of this life.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, wanted: &Wanted) -> Result<(), String> {
        let mode = lifecycle(wanted);
        if self.lifecycles.iter().any(|m| m == mode) {
            return Ok(());
        }
        let only = self.lifecycles.iter().map(|m| format!("{m:?}")).collect::<Vec<_>>().join(", ");
        Err(format!("volume mode {mode:?} not supported by driver {} (only supports [{only}])", wanted.driver))
    }
}

fn lifecycle(wanted: &Wanted) -> &'static str {
    if wanted.inline { "Ephemeral" } else { "Persistent" }
}

/// Whether the kubelet gives the volume's files to the pod's group.
pub fn takes_group(wanted: &Wanted, rules: &Rules) -> bool {
    if wanted.read_only || wanted.block {
        return false;
    }
    match rules.group_policy.as_str() {
        "None" => false,
        "File" => true,
        _ => {
            let one_node = |m: &String| m == "ReadWriteOnce" || m == "ReadWriteOncePod";
            !wanted.fs_type.is_empty() && wanted.modes.iter().any(one_node)
        }
    }
}

/// How the volume is to be mounted; with the group if the driver itself gives files to it.
pub fn capability(wanted: &Wanted, abilities: &[Ability], group: Option<u32>) -> VolumeCapability {
    let split = abilities.contains(&Ability::SingleNodeMultiWriter);
    let mode = match wanted.modes.first().map(String::as_str) {
        Some("ReadOnlyMany") => Mode::MultiNodeReaderOnly,
        Some("ReadWriteMany") => Mode::MultiNodeMultiWriter,
        Some("ReadWriteOncePod") if split => Mode::SingleNodeSingleWriter,
        Some("ReadWriteOnce") if split => Mode::SingleNodeMultiWriter,
        _ => Mode::SingleNodeWriter,
    };
    let does_groups = abilities.contains(&Ability::VolumeMountGroup);
    let access = if wanted.block {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume {
            fs_type: wanted.fs_type.clone(),
            mount_flags: wanted.flags.clone(),
            volume_mount_group: group.filter(|_| does_groups).map(|g| g.to_string()).unwrap_or_default(),
        })
    };
    VolumeCapability { access_mode: Some(AccessMode { mode: mode.into() }), access_type: Some(access) }
}

/// The key under which a driver finds service-account tokens.
pub const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// The volume's attributes with what the driver wants to know of the pod.
pub fn context(pod: &Pod, wanted: &Wanted, rules: &Rules) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = wanted.attributes.clone().into_iter().collect();
    if rules.pod_info {
        let m = &pod.metadata;
        let account = if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
        for (key, value) in [
            ("pod.name", m.name.as_str()),
            ("pod.namespace", &m.namespace),
            ("pod.uid", &m.uid),
            ("serviceAccount.name", account),
            ("ephemeral", if wanted.inline { "true" } else { "false" }),
        ] {
            all.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
        }
    }
    all
}

/// The tokens by audience, as drivers read them; text and end of each in seconds since 1970.
pub fn tokens(all: &[(String, String, i64)]) -> String {
    let one = |(audience, token, expires): &(String, String, i64)| {
        let end = jiff::Timestamp::from_second(*expires).map(apimachinery::time::rfc3339).unwrap_or_default();
        (audience.clone(), json!({"token": token, "expirationTimestamp": end}))
    };
    Value::Object(all.iter().map(one).collect()).to_string()
}

/// The name of the VolumeAttachment of a volume and a node.
pub fn attachment(wanted: &Wanted, node: &str) -> String {
    format!("csi-{:x}", Sha256::digest(format!("{}{}{node}", wanted.handle, wanted.driver)))
}

/// What is written down about a volume before its driver is asked for it, under upstream's names, so that whoever comes
/// after this process can give it back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// See [`Wanted::name`].
    #[serde(rename = "specVolID")]
    pub name: String,
    /// See [`Wanted::handle`].
    #[serde(rename = "volumeHandle")]
    pub handle: String,
    /// See [`Wanted::driver`].
    #[serde(rename = "driverName")]
    pub driver: String,
    /// The node.
    pub node_name: String,
    /// Name of the VolumeAttachment.
    #[serde(rename = "attachmentID")]
    pub attachment: String,
    /// `Persistent` or `Ephemeral`.
    pub volume_lifecycle_mode: String,
}

/// The record of a volume.
pub fn record(wanted: &Wanted, node: &str) -> Record {
    Record {
        name: wanted.name.clone(),
        handle: wanted.handle.clone(),
        driver: wanted.driver.clone(),
        node_name: node.to_owned(),
        attachment: if wanted.inline { String::new() } else { attachment(wanted, node) },
        volume_lifecycle_mode: lifecycle(wanted).to_owned(),
    }
}

/// Where a volume of a pod lies. The paths are upstream's: drivers know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The record.
    pub record: PathBuf,
    /// Where the driver publishes it for the pod.
    pub target: PathBuf,
    /// Where the driver stages it for the node.
    pub staging: PathBuf,
    /// A link to the target in the pod's folder: block volumes are published elsewhere.
    pub link: Option<PathBuf>,
}

/// The file name of records.
pub const RECORD: &str = "vol_data.json";

/// The folder of everything that belongs to CSI on the node.
pub fn base(root: &Path) -> PathBuf {
    root.join("plugins/kubernetes.io/csi")
}

/// A pod's folder of CSI volumes with file systems.
pub fn pod_volumes(root: &Path, uid: &str) -> PathBuf {
    super::super::pod_folder(root, uid).join("volumes/kubernetes.io~csi")
}

/// A pod's folder of links to CSI block volumes.
pub fn pod_devices(root: &Path, uid: &str) -> PathBuf {
    super::super::pod_folder(root, uid).join("volumeDevices/kubernetes.io~csi")
}

/// Finds the places of a volume.
pub fn places(root: &Path, uid: &str, record: &Record, block: bool) -> Places {
    let name = &record.name;
    if block {
        let devices = base(root).join("volumeDevices");
        return Places {
            record: devices.join(name).join("data").join(RECORD),
            target: devices.join("publish").join(name).join(uid),
            staging: devices.join("staging").join(name),
            link: Some(pod_devices(root, uid).join(name)),
        };
    }
    let folder = pod_volumes(root, uid).join(name);
    let digest = format!("{:x}", Sha256::digest(&record.handle));
    Places {
        record: folder.join(RECORD),
        target: folder.join("mount"),
        staging: base(root).join(&record.driver).join(digest).join("globalmount"),
        link: None,
    }
}
