//! A list and a watch without a copy: whoever follows keeps of each object what it needs.
//!
//! An [`crate::Informer`] keeps whole objects. Where there are tens of thousands of which a few fields matter, that is most
//! of a process's memory; here `T` says which fields are read at all, and what follows them decides what stays.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::error::Error;
use crate::params::{ListParams, WatchEvent, WatchKind, WatchParams};
use crate::requests::Client;
use crate::resource::Resource;

const PAGE_SIZE: u32 = 500;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// How often a resource that the server does not serve is asked for again.
const RETRY_UNKNOWN: Duration = Duration::from_secs(30);

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
pub async fn follow<T: Part, M>(
    client: Client,
    resource: Resource<'static>,
    field_selector: &str,
    sender: mpsc::Sender<M>,
    wrap: fn(News<T>) -> M,
) {
    let mut follower = Follower { client, resource, field_selector, sender, wrap, known: Known::default() };
    let mut delay = RETRY_FIRST;
    while !follower.sender.is_closed() {
        let failed = match follower.list_then_watch(&mut delay).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        if failed.is_gone() {
            debug!(resource = %resource.plural, "watch expired, listing again");
        } else if failed.is_not_found() {
            debug!(resource = %resource.plural, "the server does not serve it");
            follower.tell(News::Synced).await;
            tokio::time::sleep(RETRY_UNKNOWN).await;
        } else {
            warn!(resource = %resource.plural, error = %failed, "list or watch failed");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_LIMIT);
        }
    }
}

struct Follower<'a, T, M> {
    client: Client,
    resource: Resource<'static>,
    field_selector: &'a str,
    sender: mpsc::Sender<M>,
    wrap: fn(News<T>) -> M,
    known: Known,
}

/// The uid of each object that was told of, by namespace and name.
#[derive(Debug, Default)]
struct Known(HashMap<(Box<str>, Box<str>), Box<str>>);

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

impl<T: Part, M> Follower<'_, T, M> {
    async fn list_then_watch(&mut self, delay: &mut Duration) -> Result<(), Error> {
        let mut version = self.list().await?;
        *delay = RETRY_FIRST;
        loop {
            let before = version.clone();
            match self.watch_from(&mut version).await {
                Err(error) if error.is_gone() => return Err(error),
                // The receiver has ended.
                _ if self.sender.is_closed() => return Ok(()),
                Err(error) => debug!(resource = %self.resource.plural, %error, "watch broke"),
                Ok(()) => {}
            }
            if version == before {
                tokio::time::sleep(*delay).await;
                *delay = (*delay * 2).min(RETRY_LIMIT);
            } else {
                *delay = RETRY_FIRST;
            }
        }
    }

    /// Tells of every object and then of those that vanished since the last list; returns the list's version.
    async fn list(&mut self) -> Result<String, Error> {
        let mut params =
            ListParams { field_selector: self.field_selector.to_owned(), limit: PAGE_SIZE, ..ListParams::default() };
        let mut before = std::mem::take(&mut self.known);
        let version = loop {
            let page = self.client.list_as::<T>(self.resource, None, &params).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    // What was not listed yet is still known.
                    self.known.0.extend(before.0);
                    return Err(error);
                }
            };
            for item in page.items {
                let id = item.identity();
                if let Some(uid) = before.remove(&id) {
                    self.known.applied(Identity { uid, ..id });
                }
                self.applied(item).await;
            }
            if page.continue_token.is_empty() {
                break page.resource_version;
            }
            params.continue_token = page.continue_token;
        };
        for ((namespace, name), uid) in before.0 {
            self.tell(News::Gone(Identity { namespace, name, uid, resource_version: Box::default() })).await;
        }
        self.tell(News::Synced).await;
        Ok(version)
    }

    async fn watch_from(&mut self, version: &mut String) -> Result<(), Error> {
        let params = WatchParams {
            field_selector: self.field_selector.to_owned(),
            resource_version: version.clone(),
            ..WatchParams::default()
        };
        let mut events = self.client.watch_as::<T>(self.resource, None, &params).await?;
        while let Some(event) = events.next().await {
            let WatchEvent { kind, object } = event?;
            let id = object.identity();
            if !id.resource_version.is_empty() {
                id.resource_version.as_ref().clone_into(version);
            }
            match kind {
                WatchKind::Added | WatchKind::Modified => self.applied(object).await,
                WatchKind::Deleted => {
                    self.known.remove(&id);
                    self.tell(News::Gone(id)).await;
                }
                WatchKind::Bookmark => {}
            }
            if self.sender.is_closed() {
                break;
            }
        }
        Ok(())
    }

    async fn applied(&mut self, object: T) {
        if let Some(replaced) = self.known.applied(object.identity()) {
            self.tell(News::Gone(replaced)).await;
        }
        self.tell(News::Applied(object)).await;
    }

    async fn tell(&self, news: News<T>) {
        // Fails when the receiver has ended, which every loop here looks for.
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
