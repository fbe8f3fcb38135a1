//! What the API server says, as one stream of news about only those parts of objects that decisions read.

use client::Client;
use client::follow::{News, follow};
use client::resource::{
    NAMESPACES, NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, REPLICASETS, Resource, SERVICES,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::objects::{
    BudgetObject, ClaimObject, ClassObject, CsiNodeObject, DeviceClassObject, NamespaceObject, NodeObject, PodObject,
    ResourceClaimObject, SelectingObject, SliceObject, VolumeObject,
};

/// More than this waits at the server.
const PENDING_MAX: usize = 512;
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

const BUDGETS: Resource = Resource::new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true);
const CLASSES: Resource = Resource::new("storage.k8s.io", "v1", "storageclasses", "StorageClass", false);
const CSINODES: Resource = Resource::new("storage.k8s.io", "v1", "csinodes", "CSINode", false);
const STATEFULSETS: Resource = Resource::new("apps", "v1", "statefulsets", "StatefulSet", true);
const SLICES: Resource = Resource::new("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", false);
const DEVICECLASSES: Resource = Resource::new("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", false);
pub const RESOURCECLAIMS: Resource = Resource::new("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", true);
const CONTROLLERS: Resource = Resource::new("", "v1", "replicationcontrollers", "ReplicationController", true);

/// News of all resources.
pub enum Told {
    /// Boxed, as a pod is twice as large as the others.
    Pod(Box<News<PodObject>>),
    Node(News<NodeObject>),
    Namespace(News<NamespaceObject>),
    Service(News<SelectingObject>),
    ReplicaSet(News<SelectingObject>),
    StatefulSet(News<SelectingObject>),
    Controller(News<SelectingObject>),
    Budget(News<BudgetObject>),
    Claim(News<ClaimObject>),
    Volume(News<VolumeObject>),
    Class(News<ClassObject>),
    CsiNode(News<CsiNodeObject>),
    Slice(News<SliceObject>),
    DeviceClass(News<DeviceClassObject>),
    ResourceClaim(News<ResourceClaimObject>),
}

impl Told {
    /// The end of a first list.
    pub fn is_synced(&self) -> bool {
        if let Told::Pod(news) = self {
            return matches!(**news, News::Synced);
        }
        matches!(
            self,
            Told::Node(News::Synced)
                | Told::Namespace(News::Synced)
                | Told::Service(News::Synced)
                | Told::ReplicaSet(News::Synced)
                | Told::StatefulSet(News::Synced)
                | Told::Controller(News::Synced)
                | Told::Budget(News::Synced)
                | Told::Claim(News::Synced)
                | Told::Volume(News::Synced)
                | Told::Class(News::Synced)
                | Told::CsiNode(News::Synced)
                | Told::Slice(News::Synced)
                | Told::DeviceClass(News::Synced)
                | Told::ResourceClaim(News::Synced)
        )
    }
}

/// The stream, and how many ends of first lists it will bring. It ends when the set is dropped.
pub fn start(client: &Client) -> (mpsc::Receiver<Told>, JoinSet<()>, usize) {
    let (sender, news) = mpsc::channel(PENDING_MAX);
    let mut tasks = JoinSet::new();
    macro_rules! follow {
        ($($resource:expr, $fields:expr, $wrap:expr;)*) => {
            $(tasks.spawn(follow(client.clone(), $resource, $fields, sender.clone(), $wrap));)*
        };
    }
    follow! {
        NODES, "", Told::Node;
        PODS, UNFINISHED, |news| Told::Pod(Box::new(news));
        NAMESPACES, "", Told::Namespace;
        SERVICES, "", Told::Service;
        REPLICASETS, "", Told::ReplicaSet;
        STATEFULSETS, "", Told::StatefulSet;
        CONTROLLERS, "", Told::Controller;
        BUDGETS, "", Told::Budget;
        PERSISTENTVOLUMECLAIMS, "", Told::Claim;
        PERSISTENTVOLUMES, "", Told::Volume;
        CLASSES, "", Told::Class;
        CSINODES, "", Told::CsiNode;
        SLICES, "", Told::Slice;
        DEVICECLASSES, "", Told::DeviceClass;
        RESOURCECLAIMS, "", Told::ResourceClaim;
    }
    let count = tasks.len();
    (news, tasks, count)
}
