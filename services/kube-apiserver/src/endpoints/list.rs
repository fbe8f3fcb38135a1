//! GET of a collection: from the watch cache at the newest version, or from the store at an exact one.

use super::Target;
use super::encode::{self, ListMeta};
use super::pages::{self, NEWEST, Page, Token};
use super::read::invalid_version;
use crate::errors::{ApiError, FieldError};
use crate::registry::Resource;
use crate::server::body::Response;
use crate::server::handler::Call;
use crate::server::query::Query;
use crate::storage::selection::Selection;
use crate::storage::{self, StoreError, Stored};
use std::sync::Arc;

/// The most entries one read of the store asks for.
const CHUNK: i64 = 1000;

/// What a list request asks for.
#[derive(Debug)]
pub struct ListOptions {
    /// Which objects.
    pub selection: Selection,
    /// How many; 0: all.
    pub limit: usize,
    /// Where to go on.
    pub token: Option<Token>,
    /// Which version.
    pub at: At,
}

/// The version a list is read at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At least everything committed when the request came.
    Newest,
    /// At least this; 0: whatever the cache has.
    NotOlder(i64),
    /// Exactly this.
    Exact(i64),
}

impl ListOptions {
    /// Reads the query.
    pub fn parse(res: &Resource, query: &Query) -> Result<Self, ApiError> {
        let selection = Self::parse_selection(res, query)?;
        if query.has("sendInitialEvents") {
            let error = FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error]));
        }
        let limit = query.number("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let token = match query.get("continue") {
            "" => None,
            text => Some(Token::decode(text)?),
        };
        let at = version(query.get("resourceVersion"), query.get("resourceVersionMatch"), limit > 0, token.is_some())?;
        Ok(Self { selection, limit, token, at })
    }

    /// Reads only the selectors.
    pub fn parse_selection(res: &Resource, query: &Query) -> Result<Selection, ApiError> {
        Selection::parse(res, query.get("labelSelector"), query.get("fieldSelector"))
    }
}

/// Combines resourceVersion and resourceVersionMatch as upstream documents it.
fn version(version: &str, matching: &str, limited: bool, continued: bool) -> Result<At, ApiError> {
    let refuse = |error: FieldError| Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error]));
    if continued {
        if !matching.is_empty() {
            return refuse(FieldError::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !version.is_empty() && version != "0" {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        return Ok(At::Newest);
    }
    if version.is_empty() {
        return match matching {
            "" => Ok(At::Newest),
            _ => refuse(FieldError::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            )),
        };
    }
    let revision: i64 = version.parse().ok().filter(|r| *r >= 0).ok_or_else(|| invalid_version(version))?;
    match matching {
        "NotOlderThan" => Ok(At::NotOlder(revision)),
        "Exact" if revision == 0 => {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            refuse(FieldError::forbidden("resourceVersionMatch", why))
        }
        "Exact" => Ok(At::Exact(revision)),
        // A first page of a given version has always meant exactly that version.
        "" if limited && revision > 0 => Ok(At::Exact(revision)),
        "" => Ok(At::NotOlder(revision)),
        other => refuse(FieldError::not_supported("resourceVersionMatch", other, &["Exact", "NotOlderThan", ""])),
    }
}

/// Answers with the list.
pub async fn list(call: &Call, target: &Target) -> Result<Response, ApiError> {
    call.accepted()?;
    let options = ListOptions::parse(target.res, &call.query)?;
    let (items, meta) = read(call, target, &options).await?;
    encode::list(call, target.res, items, &meta)
}

/// The matching objects.
pub async fn read(
    call: &Call,
    target: &Target,
    options: &ListOptions,
) -> Result<(Vec<Arc<Stored>>, ListMeta), ApiError> {
    match (&options.token, options.at) {
        (Some(token), _) => {
            let revision = if token.rv == NEWEST { 0 } else { token.rv };
            let page = from_store(call, target, options, &token.start, revision).await;
            page.map_err(|e| if e.code() == 410 { pages::expired(token) } else { e })
        }
        // Upstream, too, lets only plain pages past a cache that is not filled: they show which object is to blame if it cannot be.
        (None, At::Newest | At::NotOlder(_))
            if options.limit > 0
                && options.selection.is_everything()
                && !call.state.storage.cache(target.res).is_ready() =>
        {
            from_store(call, target, options, "", 0).await
        }
        (None, At::Exact(revision)) => from_store(call, target, options, "", revision).await,
        (None, at) => from_cache(call, target, options, at).await,
    }
}

/// The key prefix of a collection, below the resource's.
fn below(target: &Target) -> String {
    if target.res.namespaced && !target.namespace.is_empty() { format!("{}/", target.namespace) } else { String::new() }
}

async fn from_cache(
    call: &Call,
    target: &Target,
    options: &ListOptions,
    at: At,
) -> Result<(Vec<Arc<Stored>>, ListMeta), ApiError> {
    let cacher = call.state.storage.cache(target.res);
    match at {
        At::NotOlder(revision) => cacher.at_least(revision).await?,
        _ => drop(cacher.fresh().await?),
    }
    let prefix = below(target);
    if let Some(name) =
        options.selection.single_name().filter(|_| !target.namespace.is_empty() || !target.res.namespaced)
    {
        // One name: no need to look at the others.
        let (found, revision) = cacher.get_at(&format!("{prefix}{name}"));
        let items = found.into_iter().filter(|o| options.selection.matches(o)).collect();
        return Ok((items, ListMeta { revision, ..ListMeta::default() }));
    }
    let (all, revision) = cacher.snapshot(&prefix);
    let total = all.len();
    if options.limit == 0 || (total <= options.limit && options.selection.is_everything()) {
        let items = if options.selection.is_everything() {
            all
        } else {
            all.into_iter().filter(|o| options.selection.matches(o)).collect()
        };
        return Ok((items, ListMeta { revision, ..ListMeta::default() }));
    }
    let mut page = Page::new(options.limit);
    for object in all {
        let matches = options.selection.matches(&object);
        if !page.offer(|| relative(target, &object), object.clone(), matches) {
            break;
        }
    }
    Ok(finish(page, options, revision, i64::try_from(total).unwrap_or(i64::MAX)))
}

/// The key of an object below its collection's prefix.
fn relative(target: &Target, object: &Stored) -> String {
    let key = object.key(target.res);
    key.strip_prefix(&below(target)).map(str::to_string).unwrap_or(key)
}

fn finish(page: Page<Arc<Stored>>, options: &ListOptions, revision: i64, total: i64) -> (Vec<Arc<Stored>>, ListMeta) {
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    if page.more {
        meta.continue_token = Token::after(&page.last, revision).encode();
        let left = total - i64::try_from(page.items.len()).unwrap_or(i64::MAX);
        meta.remaining = options.selection.is_everything().then_some(left);
    }
    (page.items, meta)
}

async fn from_store(
    call: &Call,
    target: &Target,
    options: &ListOptions,
    start: &str,
    revision: i64,
) -> Result<(Vec<Arc<Stored>>, ListMeta), ApiError> {
    let store = call.state.storage.store();
    let own = store.prefix(target.res);
    let prefix = format!("{own}{}", below(target));
    let (mut start, mut revision, mut total) = (start.to_string(), revision, None);
    let mut page = Page::new(options.limit);
    let chunk = if options.limit == 0 { CHUNK } else { CHUNK.min(i64::try_from(options.limit).unwrap_or(CHUNK) + 1) };
    loop {
        let read = match store.timed("list", target.res, store.page(&prefix, &start, chunk, revision)).await {
            Err(StoreError::Other(why)) if why.contains("future revision") => {
                let message = format!("Too large resource version: {revision}");
                return Err(ApiError::timeout(message, 1).with_cause(
                    "ResourceVersionTooLarge",
                    "Too large resource version",
                    "",
                ));
            }
            other => other?,
        };
        if revision == 0 {
            revision = read.revision;
        }
        total.get_or_insert(read.count);
        let mut full = false;
        for entry in &read.entries {
            let opened = call.state.storage.opened(target.res, entry).await;
            let object = opened.map_err(|error| ApiError::internal(storage::unreadable(entry, &error)))?;
            let matches = options.selection.matches(&object);
            if !page.offer(|| relative(target, &object), object.clone(), matches) {
                full = true;
                break;
            }
        }
        match read.entries.last() {
            Some(last) if read.more && !full => {
                start = format!("{}\0", String::from_utf8_lossy(last.key.get(prefix.len()..).unwrap_or_default()));
            }
            _ => break,
        }
    }
    Ok(finish(page, options, revision, total.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let table = [
            (("", "", false, false), Some(At::Newest)),
            (("0", "", true, false), Some(At::NotOlder(0))),
            (("5", "", false, false), Some(At::NotOlder(5))),
            (("5", "", true, false), Some(At::Exact(5))),
            (("5", "Exact", false, false), Some(At::Exact(5))),
            (("5", "NotOlderThan", true, false), Some(At::NotOlder(5))),
            (("0", "Exact", false, false), None),
            (("", "Exact", false, false), None),
            (("x", "", false, false), None),
            (("5", "Sometimes", false, false), None),
            (("", "", true, true), Some(At::Newest)),
            (("5", "", true, true), None),
        ];
        for ((v, m, limited, continued), want) in table {
            assert_eq!(version(v, m, limited, continued).ok(), want, "{v:?} {m:?} {limited} {continued}");
        }
    }
}
