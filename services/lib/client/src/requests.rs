//! One method per API verb, on dynamic objects.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::connection::Connection;
use crate::error::{Error, Status};
use crate::params::{DeleteParams, List, ListParams, Patch, WatchEvent, WatchParams};
use crate::resource::Resource;
use crate::{kubeconfig, watch};

/// Longer than any request but a watch should take; the server's own limit is 60 s.
const REQUEST_LIMIT: Duration = Duration::from_secs(65);

/// A cheap, cloneable handle on one API server.
#[derive(Clone)]
pub struct Client(Arc<Connection>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// A client for the current context of a kubeconfig. Connects on first use.
    ///
    /// # Errors
    /// The file or its credentials are unusable; names the file.
    pub fn from_kubeconfig(path: &Path) -> Result<Client, Error> {
        Ok(Client(Arc::new(Connection::new(&kubeconfig::load(path)?)?)))
    }

    /// A client of the same server that identifies itself with a token only.
    ///
    /// # Errors
    /// The token cannot stand in a header.
    pub fn with_token(&self, token: &str) -> Result<Client, Error> {
        Ok(Client(Arc::new(self.0.with_token(token)?)))
    }

    /// Replaces the token of this client and its clones.
    ///
    /// # Errors
    /// The token cannot stand in a header.
    pub fn set_token(&self, token: &str) -> Result<(), Error> {
        self.0.set_token(token)
    }

    /// Goes on with another certificate and its key, in one PEM text, for this client and its clones.
    ///
    /// # Errors
    /// The text does not hold both.
    pub fn set_certificate(&self, pem: &[u8]) -> Result<(), Error> {
        self.0.set_certificate(pem)
    }

    /// Reads one object.
    ///
    /// # Errors
    /// [`Error::Api`] with the server's status, or no answer; the same for all methods below.
    pub async fn get(&self, resource: Resource<'_>, namespace: Option<&str>, name: &str) -> Result<Value, Error> {
        self.json(Method::GET, &resource.path(namespace, Some(name), None), None).await
    }

    /// Reads one page of a collection.
    pub async fn list(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<List, Error> {
        let path = list_path(resource, namespace, params);
        let mut answer = self.json(Method::GET, &path, None).await?;
        let Value::Array(mut items) = answer["items"].take() else {
            return Err(Error::Answer { request: path, reason: "a list without items".to_owned() });
        };
        // Lists leave out the type of their items; events and single reads have it, so callers always do.
        for item in &mut items {
            item["apiVersion"] = resource.api_version().into();
            item["kind"] = resource.kind.into();
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(List {
            resource_version: text(&answer["metadata"]["resourceVersion"]),
            continue_token: text(&answer["metadata"]["continue"]),
            items,
        })
    }

    /// As [`Client::list`], reading of each object only what `T` asks for.
    pub async fn list_as<T: DeserializeOwned>(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<List<T>, Error> {
        let path = list_path(resource, namespace, params);
        let bytes = self.bytes(Method::GET, &path, None).await?;
        let page: Page<T> =
            serde_json::from_slice(&bytes).map_err(|e| Error::Answer { request: path, reason: e.to_string() })?;
        let Page { metadata: PageMeta { resource_version, continue_token }, items } = page;
        Ok(List { resource_version, continue_token, items })
    }

    /// Creates an object.
    pub async fn create(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        object: &Value,
    ) -> Result<Value, Error> {
        self.json(Method::POST, &resource.path(namespace, None, None), json_body(object)).await
    }

    /// Creates through a subresource, such as `binding`, `token` or `eviction`.
    pub async fn create_sub(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, Error> {
        self.json(Method::POST, &resource.path(namespace, Some(name), Some(subresource)), json_body(object)).await
    }

    /// Replaces an object.
    pub async fn update(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
        object: &Value,
    ) -> Result<Value, Error> {
        self.json(Method::PUT, &resource.path(namespace, Some(name), None), json_body(object)).await
    }

    /// Replaces through a subresource, such as `status`.
    pub async fn update_sub(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, Error> {
        self.json(Method::PUT, &resource.path(namespace, Some(name), Some(subresource)), json_body(object)).await
    }

    /// Patches an object or one of its subresources.
    pub async fn patch(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<&str>,
        patch: &Patch,
    ) -> Result<Value, Error> {
        let (content_type, value) = patch.parts();
        let body = Some((content_type, Bytes::from(value.to_string())));
        self.json(Method::PATCH, &resource.path(namespace, Some(name), subresource), body).await
    }

    /// Deletes an object; the answer is the object (still terminating) or a Status.
    pub async fn delete(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        name: &str,
        params: &DeleteParams,
    ) -> Result<Value, Error> {
        self.json(Method::DELETE, &resource.path(namespace, Some(name), None), json_body(&params.body())).await
    }

    /// Deletes all objects of a collection that a selector matches.
    pub async fn delete_collection(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        label_selector: &str,
        params: &DeleteParams,
    ) -> Result<Value, Error> {
        let mut query = Query::default();
        query.add("labelSelector", label_selector);
        let path = query.append_to(resource.path(namespace, None, None));
        self.json(Method::DELETE, &path, json_body(&params.body())).await
    }

    /// Watches a collection from `params.resource_version` on. The stream ends when the server ends the watch.
    pub async fn watch(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        params: &WatchParams,
    ) -> Result<impl Stream<Item = Result<WatchEvent, Error>> + Send + Unpin + use<>, Error> {
        self.watch_as::<Value>(resource, namespace, params).await
    }

    /// As [`Client::watch`], reading of each object only what `T` asks for.
    pub async fn watch_as<T: DeserializeOwned + Send>(
        &self,
        resource: Resource<'_>,
        namespace: Option<&str>,
        params: &WatchParams,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, Error>> + Send + Unpin + use<T>, Error> {
        let mut query = Query::default();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("labelSelector", &params.label_selector);
        query.add("fieldSelector", &params.field_selector);
        query.add("resourceVersion", &params.resource_version);
        let path = query.append_to(resource.path(namespace, None, None));
        let answer = self.send(Method::GET, &path, None).await?;
        Ok(watch::events(path, answer.into_body()))
    }

    /// Reads any path as JSON, such as discovery documents.
    pub async fn get_raw(&self, path: &str) -> Result<Value, Error> {
        self.json(Method::GET, path, None).await
    }

    /// Reads any path as text, such as logs or health checks.
    pub async fn get_text(&self, path: &str) -> Result<String, Error> {
        let bytes = self.bytes(Method::GET, path, None).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn json(&self, method: Method, path: &str, body: Option<(&str, Bytes)>) -> Result<Value, Error> {
        let request = format!("{method} {path}");
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Answer { request, reason: e.to_string() })
    }

    async fn bytes(&self, method: Method, path: &str, body: Option<(&str, Bytes)>) -> Result<Bytes, Error> {
        let request = format!("{method} {path}");
        let whole = async {
            let answer = self.send(method, path, body).await?;
            collect(answer, &request).await
        };
        match tokio::time::timeout(REQUEST_LIMIT, whole).await {
            Ok(result) => result,
            Err(_) => Err(Error::Answer { request, reason: format!("none within {} s", REQUEST_LIMIT.as_secs()) }),
        }
    }

    /// Sends and turns an error answer into [`Error::Api`].
    async fn send(&self, method: Method, path: &str, body: Option<(&str, Bytes)>) -> Result<Response<Incoming>, Error> {
        let request = format!("{method} {path}");
        let answer = self.0.send(method, path, body).await?;
        let code = answer.status();
        if code.is_success() {
            return Ok(answer);
        }
        let bytes = collect(answer, &request).await?;
        let mut status: Status = serde_json::from_slice(&bytes).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(&bytes).trim().to_owned(),
            ..Status::default()
        });
        status.code = code.as_u16();
        if status.message.is_empty() {
            status.message = format!("{request}: {code}");
        }
        Err(Error::Api(Box::new(status)))
    }
}

fn list_path(resource: Resource<'_>, namespace: Option<&str>, params: &ListParams) -> String {
    let mut query = Query::default();
    query.add("labelSelector", &params.label_selector);
    query.add("fieldSelector", &params.field_selector);
    query.add("continue", &params.continue_token);
    query.add("resourceVersion", &params.resource_version);
    if params.limit > 0 {
        query.add("limit", &params.limit.to_string());
    }
    query.append_to(resource.path(namespace, None, None))
}

/// The wire form of a [`List`].
#[derive(Deserialize)]
struct Page<T> {
    metadata: PageMeta,
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PageMeta {
    #[serde(rename = "resourceVersion", default)]
    resource_version: String,
    #[serde(rename = "continue", default)]
    continue_token: String,
}

async fn collect(answer: Response<Incoming>, request: &str) -> Result<Bytes, Error> {
    let body = answer.into_body().collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|e| Error::Answer { request: request.to_owned(), reason: e.to_string() })
}

fn json_body(object: &Value) -> Option<(&'static str, Bytes)> {
    Some(("application/json", Bytes::from(object.to_string())))
}

/// A query string; values are percent-encoded, empty ones left out.
#[derive(Default)]
struct Query(String);

impl Query {
    fn add(&mut self, key: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.0.push(char::from(byte));
            } else {
                self.0.push_str(&format!("%{byte:02X}"));
            }
        }
    }

    fn append_to(self, path: String) -> String {
        path + &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded_and_skip_empty_values() {
        let mut query = Query::default();
        query.add("labelSelector", "a in (b,c)");
        query.add("fieldSelector", "");
        query.add("limit", "5");
        assert_eq!(query.append_to("/x".to_owned()), "/x?labelSelector=a%20in%20%28b%2Cc%29&limit=5");
    }
}
