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

/// Reads the Impersonate-* headers. `Err` if there are groups or extras but no user, in upstream's words.
pub fn requested(headers: &HeaderMap) -> Result<Option<Impersonation>, String> {
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
        let wanted = references(&uid, &groups, &extras);
        let alone = || Err(format!("requested [{}] without impersonating a user", wanted.join(" ")));
        return if wanted.is_empty() { Ok(None) } else { alone() };
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
    let groups = if groups.is_empty() { account_groups(&user) } else { groups };
    let mut become_user = UserInfo { name: user.clone(), groups: complete(&user, groups), ..UserInfo::default() };
    become_user.uid = uid;
    for (key, value) in extras {
        become_user.extra.entry(key).or_default().push(value);
    }
    Ok(Some(Impersonation { user: become_user, needs }))
}

/// What is wanted besides a user, as Go prints references to objects: their fields in braces.
fn references(uid: &str, groups: &[String], extras: &[(String, String)]) -> Vec<String> {
    let version = "authentication.k8s.io/v1";
    let groups = groups.iter().map(|name| format!("{{Group  {name}    }}"));
    let extras = extras.iter().map(|(key, value)| format!("{{UserExtra  {value}  {version}  {key}}}"));
    let uid = Some(uid).filter(|uid| !uid.is_empty()).map(|uid| format!("{{UID  {uid}  {version}  }}"));
    groups.chain(extras).chain(uid).collect()
}

/// Everybody is in one of two groups. Who asks to be in the one of strangers is not in the other.
fn complete(user: &str, mut groups: Vec<String>) -> Vec<String> {
    let [known, stranger] = ["system:authenticated", "system:unauthenticated"];
    let own = if user == "system:anonymous" { stranger } else { known };
    if !groups.iter().any(|g| g == own || g == stranger) {
        groups.push(own.into());
    }
    groups
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
        let alone = "requested [{Group  g    }] without impersonating a user";
        assert_eq!(requested(&headers).expect_err("no user"), alone);
        headers.append("Impersonate-User", "system:serviceaccount:a:b".parse().expect("value"));
        let got = requested(&headers).expect("valid").expect("some");
        assert_eq!(got.user.groups, ["g", "system:authenticated"]);
        assert_eq!(
            (got.needs[0].resource.as_str(), got.needs[0].namespace.as_str(), got.needs[1].resource.as_str()),
            ("serviceaccounts", "a", "groups")
        );
    }

    #[test]
    fn everybody_is_known_or_a_stranger() {
        let table = [
            ("jane", &[][..], &["system:authenticated"][..]),
            ("jane", &["dev"], &["dev", "system:authenticated"]),
            ("jane", &["system:unauthenticated"], &["system:unauthenticated"]),
            ("system:anonymous", &[], &["system:unauthenticated"]),
            ("system:anonymous", &["dev"], &["dev", "system:unauthenticated"]),
        ];
        for (user, groups, want) in table {
            let groups = groups.iter().map(ToString::to_string).collect();
            assert_eq!(complete(user, groups), want, "{user}");
        }
    }
}
