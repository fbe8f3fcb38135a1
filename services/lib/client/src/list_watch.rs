//! The one loop that follows a resource: lists it, watches from there, and begins again when the server has forgotten the version.
//!
//! ```text
//! Listing ──page──▶ Listing ──last page──▶ Watching ──event──▶ Watching
//!    ▲                                        │ 410
//!    └────────────────────────────────────────┘
//! ```
//!
//! A watch that ends, as each does after some minutes, goes on from the version it had reached: with a pause if nothing came
//! since, so that a server that ends every watch at once is not asked in a hot loop.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use crate::error::Error;
use crate::params::{ListParams, WatchEvent, WatchKind, WatchParams};
use crate::requests::Client;
use crate::resource::Resource;

const PAGE_SIZE: u32 = 500;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// A kind that the server does not have may come with its next version, or with a definition.
const ABSENT_RETRY_LIMIT: Duration = Duration::from_secs(120);

/// Which objects of a resource are followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector in query syntax.
    pub label_selector: String,
    /// Field selector in query syntax.
    pub field_selector: String,
}

/// Takes in what the loop is told.
pub(crate) trait Sink: Send {
    /// What is read of an object.
    type Object: DeserializeOwned + Send;
    /// The version of an object.
    fn version(object: &Self::Object) -> &str;
    /// A list begins.
    fn begin(&mut self);
    /// A page of it.
    fn page(&mut self, items: Vec<Self::Object>) -> impl Future<Output = ()> + Send;
    /// It is complete: what was not on its pages is gone.
    fn end(&mut self) -> impl Future<Output = ()> + Send;
    /// The server does not have the resource.
    fn absent(&mut self) -> impl Future<Output = ()> + Send;
    /// An object is new or changed.
    fn applied(&mut self, object: Self::Object) -> impl Future<Output = ()> + Send;
    /// An object is gone.
    fn deleted(&mut self, object: Self::Object) -> impl Future<Output = ()> + Send;
    /// Nobody listens any more.
    fn is_closed(&self) -> bool;
}

/// Follows until nobody listens.
pub(crate) async fn run<S: Sink>(client: &Client, resource: Resource<'_>, selection: &Selection, sink: &mut S) {
    let (mut delay, mut absent) = (RETRY_FIRST, RETRY_FIRST);
    while !sink.is_closed() {
        let plural = resource.plural;
        match list_then_watch(client, resource, selection, sink, &mut delay).await {
            Ok(()) => return,
            Err(error) if error.is_gone() => debug!(resource = plural, "watch expired, listing again"),
            Err(error) if error.is_not_found() => {
                debug!(resource = plural, "the server does not have it");
                sink.absent().await;
                tokio::time::sleep(absent).await;
                absent = (absent * 2).min(ABSENT_RETRY_LIMIT);
            }
            Err(error) => {
                warn!(resource = plural, %error, "list or watch failed");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_LIMIT);
            }
        }
    }
}

async fn list_then_watch<S: Sink>(
    client: &Client,
    resource: Resource<'_>,
    selection: &Selection,
    sink: &mut S,
    delay: &mut Duration,
) -> Result<(), Error> {
    let mut version = list(client, resource, selection, sink).await?;
    *delay = RETRY_FIRST;
    loop {
        let before = version.clone();
        let ended = watch(client, resource, selection, sink, &mut version).await;
        if sink.is_closed() {
            return Ok(());
        }
        let failed = match ended {
            Err(error) if error.is_gone() => return Err(error),
            Err(error) => {
                debug!(resource = resource.plural, %error, "watch broke");
                true
            }
            Ok(()) => false,
        };
        if version != before {
            *delay = RETRY_FIRST;
            continue;
        }
        tokio::time::sleep(if failed { *delay } else { RETRY_FIRST }).await;
        if failed {
            *delay = (*delay * 2).min(RETRY_LIMIT);
        }
    }
}

/// Returns the version that the list was read at.
async fn list<S: Sink>(
    client: &Client,
    resource: Resource<'_>,
    selection: &Selection,
    sink: &mut S,
) -> Result<String, Error> {
    let mut params = ListParams {
        label_selector: selection.label_selector.clone(),
        field_selector: selection.field_selector.clone(),
        limit: PAGE_SIZE,
        ..ListParams::default()
    };
    sink.begin();
    loop {
        let page = client.list_as::<S::Object>(resource, selection.namespace.as_deref(), &params).await?;
        sink.page(page.items).await;
        if page.continue_token.is_empty() {
            sink.end().await;
            return Ok(page.resource_version);
        }
        params.continue_token = page.continue_token;
    }
}

async fn watch<S: Sink>(
    client: &Client,
    resource: Resource<'_>,
    selection: &Selection,
    sink: &mut S,
    version: &mut String,
) -> Result<(), Error> {
    let params = WatchParams {
        label_selector: selection.label_selector.clone(),
        field_selector: selection.field_selector.clone(),
        resource_version: version.clone(),
    };
    let mut events = client.watch_as::<S::Object>(resource, selection.namespace.as_deref(), &params).await?;
    while let Some(event) = events.next().await {
        let WatchEvent { kind, object } = event?;
        let newer = S::version(&object);
        if !newer.is_empty() {
            newer.clone_into(version);
        }
        match kind {
            WatchKind::Added | WatchKind::Modified => sink.applied(object).await,
            WatchKind::Deleted => sink.deleted(object).await,
            WatchKind::Bookmark => {}
        }
        if sink.is_closed() {
            break;
        }
    }
    Ok(())
}
