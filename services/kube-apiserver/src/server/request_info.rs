//! What a request is about, from its method, path and query alone. Pure.

use super::query::{Query, decode};
use crate::authz::Attributes;
use http::Method;

/// A resolved request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// What authorization decides on.
    pub attributes: Attributes,
    /// Path elements below the subresource, as in `proxy/a/b`.
    pub rest: String,
}

/// Resources below a namespace that are subresources of the namespace itself.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

impl RequestInfo {
    /// Resolves a request.
    pub fn resolve(method: &Method, path: &str, query: &Query) -> Self {
        resource_request(method, path, query).unwrap_or_else(|| Self {
            attributes: Attributes {
                verb: method.as_str().to_ascii_lowercase(),
                path: Some(path.to_string()),
                ..Default::default()
            },
            rest: String::new(),
        })
    }
}

fn resource_request(method: &Method, path: &str, query: &Query) -> Option<RequestInfo> {
    let parts: Vec<String> = path.trim_matches('/').split('/').map(|p| decode(p, false)).collect();
    let mut parts = parts.iter().map(String::as_str).peekable();
    let mut a = Attributes::default();
    match parts.next()? {
        "api" => {}
        "apis" => a.group = parts.next().filter(|g| !g.is_empty())?.into(),
        _ => return None,
    }
    a.version = parts.next().filter(|v| !v.is_empty())?.into();
    parts.peek().filter(|p| !p.is_empty())?;
    let watched = parts.next_if_eq(&"watch").is_some();
    let mut first = parts.next().filter(|p| !p.is_empty())?;
    if first == "namespaces"
        && let Some(namespace) = parts.next().filter(|n| !n.is_empty())
    {
        a.namespace = namespace.into();
        match parts.peek() {
            Some(below) if !NAMESPACE_SUBRESOURCES.contains(below) && !below.is_empty() => first = parts.next()?,
            _ => a.name = namespace.into(),
        }
    }
    a.resource = first.into();
    if a.name.is_empty() {
        a.name = parts.next().unwrap_or_default().into();
    }
    a.subresource = parts.next().unwrap_or_default().into();
    let rest = parts.collect::<Vec<_>>().join("/");
    a.verb = verb(method, &a, query, watched).into();
    if matches!(a.verb.as_str(), "list" | "watch" | "deletecollection") && a.name.is_empty() {
        a.name = name_of_selector(query.get("fieldSelector"));
    }
    a.field_selector = query.get("fieldSelector").into();
    Some(RequestInfo { attributes: a, rest })
}

fn verb(method: &Method, a: &Attributes, query: &Query, watched: bool) -> &'static str {
    let named = !a.name.is_empty();
    match *method {
        Method::GET | Method::HEAD if watched || (!named && query.flag("watch")) => "watch",
        Method::GET | Method::HEAD if !named => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    }
}

/// A collection request limited to one name is authorized for that name.
fn name_of_selector(selector: &str) -> String {
    let name = selector.split(',').find_map(|t| t.trim().strip_prefix("metadata.name=")).unwrap_or_default();
    name.trim_start_matches('=').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_paths() {
        // method, path, query → verb group/version resource/subresource namespace name
        let table = [
            ("GET", "/api/v1/pods", "", "list /v1 pods/  "),
            ("GET", "/api/v1/pods", "watch=true", "watch /v1 pods/  "),
            ("GET", "/api/v1/watch/namespaces/a/pods/p", "", "watch /v1 pods/ a p"),
            ("GET", "/api/v1/namespaces", "", "list /v1 namespaces/  "),
            ("GET", "/api/v1/namespaces/a", "", "get /v1 namespaces/ a a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "", "update /v1 namespaces/finalize a a"),
            ("GET", "/api/v1/namespaces/a/pods/p/log", "", "get /v1 pods/log a p"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "", "create apps/v1 deployments/ a "),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "", "deletecollection apps/v1 deployments/ a "),
            ("PATCH", "/api/v1/nodes/n%2F1/status", "", "patch /v1 nodes/status  n/1"),
            ("GET", "/api/v1/secrets", "fieldSelector=metadata.name%3Ds", "list /v1 secrets/  s"),
            ("POST", "/api/v1/namespaces/a/pods/p/eviction", "", "create /v1 pods/eviction a p"),
        ];
        for (method, path, query, want) in table {
            let info = RequestInfo::resolve(&method.parse().expect("method"), path, &Query::parse(Some(query)));
            let a = info.attributes;
            let got = format!(
                "{} {}/{} {}/{} {} {}",
                a.verb, a.group, a.version, a.resource, a.subresource, a.namespace, a.name
            );
            assert_eq!(got, want, "{method} {path}?{query}");
        }
        for path in
            ["/", "/api", "/api/v1", "/api/v1/", "/apis/apps", "/apis/apps/v1/", "/healthz", "/openapi/v3/apis/apps/v1"]
        {
            let info = RequestInfo::resolve(&Method::GET, path, &Query::default());
            assert_eq!(info.attributes.path.as_deref(), Some(path));
            assert_eq!(info.attributes.verb, "get");
        }
        let info = RequestInfo::resolve(&Method::GET, "/api/v1/namespaces/a/pods/p:80/proxy/x/y", &Query::default());
        assert_eq!((info.attributes.name.as_str(), info.rest.as_str()), ("p:80", "x/y"));
    }
}
