//! A list and a watch without a copy: whoever follows keeps of each object what it needs.
//!
//! An [`crate::Informer`] keeps whole objects. Where there are tens of thousands of which a few fields matter, that is most
//! of a process's memory; here `T` says which fields are read at all, and what follows them decides what stays.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::list_watch::{self, Selection, Sink};
use crate::requests::Client;
use crate::resource::Resource;

/// What tells objects of one resource apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Identity {
    /// metadata.namespace; empty for cluster-wide objects.
    pub namespace: Box<str>,
    /// metadata.name.
    pub name: Box<str>,
    /// metadata.uid.
    pub uid: Box<str>,
    /// metadata.resourceVersion.
    pub resource_version: Box<str>,
}

/// The part of an object that is read. Every field must have a default: a bookmark carries a version alone.
pub trait Part: DeserializeOwned + Send + 'static {
    /// Which object it is a part of.
    fn identity(&self) -> Identity;

    /// metadata.resourceVersion.
    fn version(&self) -> &str;
}

/// What happened, in the order in which the server says it.
#[derive(Clone, Debug)]
pub enum News<T> {
    /// The object is new or changed.
    Applied(T),
    /// The object is gone.
    Gone(Identity),
    /// All that there was at the start has been said.
    Synced,
}

/// Lists and watches until the receiver is gone. `wrap` puts the news of several resources into one channel; a bounded
/// channel slows the server down instead of filling memory. A resource that the server does not know counts as empty.
pub async fn follow<T: Part, M: Send>(
    client: Client,
    resource: Resource<'static>,
    field_selector: &str,
    sender: mpsc::Sender<M>,
    wrap: fn(News<T>) -> M,
) {
    let selection = Selection { field_selector: field_selector.to_owned(), ..Selection::default() };
    let mut follower = Follower { sender, wrap, known: Known::default(), before: HashMap::new() };
    list_watch::run(&client, resource, &selection, &mut follower).await;
}

struct Follower<T, M> {
    sender: mpsc::Sender<M>,
    wrap: fn(News<T>) -> M,
    known: Known,
    /// What was known when a list began and is not on its pages so far.
    before: HashMap<Key, Box<str>>,
}

type Key = (Box<str>, Box<str>);

/// The uid of each object that was told of, by namespace and name.
#[derive(Debug, Default)]
struct Known(HashMap<Key, Box<str>>);

impl Known {
    /// An object under a known name with another uid is another object: returns the first one, which is gone.
    fn applied(&mut self, id: Identity) -> Option<Identity> {
        match self.0.entry((id.namespace.clone(), id.name.clone())) {
            Entry::Vacant(entry) => {
                entry.insert(id.uid);
                None
            }
            Entry::Occupied(entry) if **entry.get() == *id.uid => None,
            Entry::Occupied(mut entry) => {
                let uid = entry.insert(id.uid.clone());
                Some(Identity { uid, ..id })
            }
        }
    }

    fn remove(&mut self, id: &Identity) -> Option<Box<str>> {
        self.0.remove(&(id.namespace.clone(), id.name.clone()))
    }
}

impl<T: Part, M: Send> Sink for Follower<T, M> {
    type Object = T;

    fn version(object: &T) -> &str {
        object.version()
    }

    fn begin(&mut self) {
        // A list that failed half-way has taken nothing away.
        self.before.extend(self.known.0.drain());
    }

    async fn page(&mut self, items: Vec<T>) {
        for item in items {
            let id = item.identity();
            if let Some(uid) = self.before.remove(&(id.namespace.clone(), id.name.clone())) {
                self.known.applied(Identity { uid, ..id });
            }
            self.applied(item).await;
        }
    }

    async fn end(&mut self) {
        for ((namespace, name), uid) in std::mem::take(&mut self.before) {
            self.tell(News::Gone(Identity { namespace, name, uid, resource_version: Box::default() })).await;
        }
        self.tell(News::Synced).await;
    }

    async fn absent(&mut self) {
        self.tell(News::Synced).await;
    }

    async fn applied(&mut self, object: T) {
        if let Some(replaced) = self.known.applied(object.identity()) {
            self.tell(News::Gone(replaced)).await;
        }
        self.tell(News::Applied(object)).await;
    }

    async fn deleted(&mut self, object: T) {
        let id = object.identity();
        self.known.remove(&id);
        self.tell(News::Gone(id)).await;
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl<T, M> Follower<T, M> {
    async fn tell(&self, news: News<T>) {
        // Fails when the receiver has ended, which the loop looks for.
        let _ = self.sender.send((self.wrap)(news)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_used_again_is_two_objects() {
        let id = |uid: &str| Identity { name: "a".into(), uid: uid.into(), ..Identity::default() };
        let mut known = Known::default();
        assert_eq!(known.applied(id("1")), None);
        assert_eq!(known.applied(id("1")), None);
        assert_eq!(known.applied(id("2")), Some(id("1")));
        assert_eq!(known.remove(&id("2")).as_deref(), Some("2"));
    }
}
