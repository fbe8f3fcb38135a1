//! A proxy in front of this server, known by its client certificate, says in headers who its client is. Pure.

use super::UserInfo;
use crate::config::FrontProxy;
use crate::server::query::decode;
use http::HeaderMap;

/// Whether a certificate with this common name may speak for others.
pub fn is_allowed(config: &FrontProxy, common_name: &str) -> bool {
    config.requestheader_allowed_names.is_empty() || config.requestheader_allowed_names.iter().any(|n| n == common_name)
}

/// The user that the headers name; `None` if they name none.
pub fn user(headers: &HeaderMap, config: &FrontProxy) -> Option<UserInfo> {
    let first = |names: &[String]| -> Option<String> {
        let values = names.iter().filter_map(|n| headers.get(n.as_str())?.to_str().ok());
        values.map(str::trim).find(|v| !v.is_empty()).map(str::to_owned)
    };
    let name = first(&config.requestheader_username_headers)?;
    let groups = config.requestheader_group_headers.iter().flat_map(|n| headers.get_all(n.as_str()));
    let groups = groups.filter_map(|v| v.to_str().ok()).map(str::to_owned).filter(|g| !g.is_empty());
    let mut user = UserInfo::authenticated(name, groups);
    user.uid = first(&config.requestheader_uid_headers).unwrap_or_default();
    for (header, value) in headers {
        let key = config.requestheader_extra_headers_prefix.iter().find_map(|prefix| {
            let key = header.as_str().strip_prefix(&prefix.to_ascii_lowercase())?;
            (!key.is_empty()).then(|| decode(key, false))
        });
        if let Some((key, value)) = key.zip(value.to_str().ok()) {
            user.extra.entry(key).or_default().push(value.to_owned());
        }
    }
    Some(user)
}

/// Takes out the headers: nobody behind this server may take them for the proxy's word.
pub fn clear(headers: &mut HeaderMap, config: &FrontProxy) {
    let lists = [
        &config.requestheader_username_headers,
        &config.requestheader_uid_headers,
        &config.requestheader_group_headers,
    ];
    for name in lists.into_iter().flatten() {
        headers.remove(name.as_str());
    }
    let prefixes: Vec<String> =
        config.requestheader_extra_headers_prefix.iter().map(|p| p.to_ascii_lowercase()).collect();
    let extra: Vec<_> =
        headers.keys().filter(|n| prefixes.iter().any(|p| n.as_str().starts_with(p))).cloned().collect();
    for name in extra {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn config() -> FrontProxy {
        let list = |text: &str| vec![text.to_owned()];
        FrontProxy {
            requestheader_username_headers: list("X-Remote-User"),
            requestheader_uid_headers: list("X-Remote-Uid"),
            requestheader_group_headers: list("X-Remote-Group"),
            requestheader_extra_headers_prefix: list("X-Remote-Extra-"),
            ..FrontProxy::default()
        }
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn headers_name_a_user() {
        let all = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.org%2fteam", "x"),
            ("x-other", "1"),
        ]);
        let user = user(&all, &config()).expect("a user");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(user.extra["example.org/team"], ["x"]);
        let mut left = all;
        clear(&mut left, &config());
        assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }

    #[test]
    fn groups_without_a_user_are_nobody() {
        assert_eq!(user(&headers(&[("x-remote-group", "system:masters")]), &config()), None);
        assert_eq!(user(&headers(&[("x-remote-user", " ")]), &config()), None);
    }

    #[test]
    fn names_of_proxies_may_be_limited() {
        assert!(is_allowed(&config(), "any"));
        let limited = FrontProxy { requestheader_allowed_names: vec!["front".into()], ..config() };
        assert!(is_allowed(&limited, "front") && !is_allowed(&limited, "any"));
    }
}
