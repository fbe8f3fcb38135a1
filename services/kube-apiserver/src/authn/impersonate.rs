//! Acting as somebody else, for those who may.

use super::UserInfo;
use crate::authz::Attributes;
use crate::server::query::decode;
use http::HeaderMap;

/// Who the request wants to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// The user to become.
    pub user: UserInfo,
    /// What the caller must be allowed for that.
    pub needs: Vec<Attributes>,
}

/// Reads the Impersonate-* headers. `Err` if there are groups or extras but no user.
pub fn requested(headers: &HeaderMap) -> Result<Option<Impersonation>, &'static str> {
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_string).collect()
    };
    let user = all("impersonate-user").pop().unwrap_or_default();
    let (uid, groups) = (all("impersonate-uid").pop().unwrap_or_default(), all("impersonate-group"));
    let extras: Vec<(String, String)> = headers
        .iter()
        .filter_map(|(name, value)| {
            Some((decode(name.as_str().strip_prefix("impersonate-extra-")?, false), value.to_str().ok()?.to_string()))
        })
        .collect();
    if user.is_empty() {
        let alone = !groups.is_empty() || !uid.is_empty() || !extras.is_empty();
        return if alone { Err("requested impersonation without impersonating a user") } else { Ok(None) };
    }
    let mut needs = vec![user_attributes(&user)];
    needs.extend(groups.iter().map(|g| attributes("", "groups", "", g)));
    if !uid.is_empty() {
        needs.push(attributes("authentication.k8s.io", "uids", "", &uid));
    }
    for (key, value) in &extras {
        needs.push(Attributes {
            subresource: key.clone(),
            ..attributes("authentication.k8s.io", "userextras", "", value)
        });
    }
    let mut become_user = match user.as_str() {
        "system:anonymous" => UserInfo::anonymous(),
        _ => UserInfo::authenticated(user.clone(), if groups.is_empty() { account_groups(&user) } else { groups }),
    };
    become_user.uid = uid;
    for (key, value) in extras {
        become_user.extra.entry(key).or_default().push(value);
    }
    Ok(Some(Impersonation { user: become_user, needs }))
}

fn account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn account_groups(user: &str) -> Vec<String> {
    match account(user) {
        Some((namespace, _)) => vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
        None => Vec::new(),
    }
}

fn user_attributes(user: &str) -> Attributes {
    match account(user) {
        Some((namespace, name)) => attributes("", "serviceaccounts", namespace, name),
        None => attributes("", "users", "", user),
    }
}

fn attributes(group: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    Attributes {
        verb: "impersonate".into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Attributes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_a_user() {
        let mut headers = HeaderMap::new();
        assert_eq!(requested(&headers), Ok(None));
        headers.append("Impersonate-Group", "g".parse().expect("value"));
        assert!(requested(&headers).is_err());
        headers.append("Impersonate-User", "system:serviceaccount:a:b".parse().expect("value"));
        let got = requested(&headers).expect("valid").expect("some");
        assert_eq!(got.user.groups, ["g", "system:authenticated"]);
        assert_eq!(
            (got.needs[0].resource.as_str(), got.needs[0].namespace.as_str(), got.needs[1].resource.as_str()),
            ("serviceaccounts", "a", "groups")
        );
    }
}
