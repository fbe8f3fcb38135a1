//! Which requests are recorded, and how much of each: audit.k8s.io/v1 Policy. The first rule that matches decides. Pure.

use crate::authn::UserInfo;
use crate::authz::Attributes;
use serde::Deserialize;

/// How much is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

impl Level {
    /// As it stands in events.
    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// Before anything else.
    RequestReceived,
    /// A long-running answer begins.
    ResponseStarted,
    /// The answer has been made.
    ResponseComplete,
    /// The handler failed badly.
    Panic,
}

impl Stage {
    /// As it stands in events.
    pub fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// A policy as its file has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "may be there and means nothing")]
    metadata: serde_json::Value,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much.
    pub level: Level,
    /// Not at these stages.
    pub omit: Vec<Stage>,
    /// Without managedFields in bodies.
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy file.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
        let (policy, _): (Self, _) = apimachinery::config_file::parse(text)?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(format!("{} {} is not an audit.k8s.io/v1 Policy", policy.api_version, policy.kind));
        }
        if policy.rules.is_empty() {
            return Err("rules: a policy without rules records nothing".into());
        }
        Ok(policy)
    }

    /// The verdict on a request; nothing is recorded of what no rule matches.
    pub fn verdict(&self, user: &UserInfo, attributes: &Attributes) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, attributes)) else {
            return Verdict::default();
        };
        let omit = rule.omit_stages.iter().chain(&self.omit_stages).copied().collect();
        Verdict {
            level: rule.level,
            omit,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn matches(&self, user: &UserInfo, a: &Attributes) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
        let grouped = self.user_groups.is_empty() || self.user_groups.iter().any(|g| user.in_group(g));
        if !any(&self.users, &user.name) || !grouped || !any(&self.verbs, &a.verb) {
            return false;
        }
        match &a.path {
            Some(path) => self.matches_path(path),
            None => self.matches_resource(a),
        }
    }

    fn matches_path(&self, path: &str) -> bool {
        let limited = !self.resources.is_empty() || !self.namespaces.is_empty();
        let fits = |url: &String| match url.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => url == path,
        };
        if self.non_resource_urls.is_empty() { !limited } else { self.non_resource_urls.iter().any(fits) }
    }

    fn matches_resource(&self, a: &Attributes) -> bool {
        if !self.namespaces.is_empty() && !self.namespaces.contains(&a.namespace) {
            return false;
        }
        if self.resources.is_empty() {
            return self.non_resource_urls.is_empty();
        }
        self.resources.iter().any(|r| r.group == a.group && r.matches(a))
    }
}

impl Resources {
    /// `pods` is not `pods/log`; `pods/*` is every subresource, `*/status` that of every resource.
    fn matches(&self, a: &Attributes) -> bool {
        let named = self.resource_names.is_empty() || self.resource_names.contains(&a.name);
        let full = a.full_resource();
        let fits = |wanted: &String| match wanted.as_str() {
            "*" => true,
            wanted if wanted == full => true,
            wanted => match wanted.split_once('/') {
                Some(("*", sub)) => !a.subresource.is_empty() && sub == a.subresource,
                Some((resource, "*")) => resource == a.resource,
                _ => false,
            },
        };
        named && (self.resources.is_empty() || self.resources.iter().any(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &[u8] = b"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ['/healthz*', /version]
- level: None
  users: [system:apiserver]
- level: Metadata
  resources: [{group: '', resources: [secrets, 'pods/*']}]
- level: RequestResponse
  verbs: [create]
  namespaces: [prod]
  resources: [{group: apps, resources: ['*']}]
- level: Request
  userGroups: [admins]
  resources: [{group: '', resources: ['*/status'], resourceNames: [x]}]
";

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY).expect("a policy");
        let level = |user: &str, group: &str, verb: &str, path: &str| {
            let user = UserInfo { name: user.into(), groups: vec![group.into()], ..UserInfo::anonymous() };
            let query = crate::server::query::Query::default();
            let method = if verb == "create" { http::Method::POST } else { http::Method::GET };
            let info = crate::server::request_info::RequestInfo::resolve(&method, path, &query);
            policy.verdict(&user, &info.attributes).level
        };
        let table = [
            ("a", "", "get", "/healthz/ping", Level::None),
            ("a", "", "get", "/metrics", Level::None),
            ("system:apiserver", "", "get", "/api/v1/namespaces/n/secrets/s", Level::None),
            ("a", "", "get", "/api/v1/namespaces/n/secrets/s", Level::Metadata),
            ("a", "", "get", "/api/v1/namespaces/n/pods/p/log", Level::Metadata),
            ("a", "", "get", "/api/v1/namespaces/n/pods/p", Level::Metadata),
            ("a", "", "create", "/apis/apps/v1/namespaces/prod/deployments", Level::RequestResponse),
            ("a", "", "create", "/apis/apps/v1/namespaces/test/deployments", Level::None),
            ("a", "admins", "get", "/api/v1/nodes/x/status", Level::Request),
            ("a", "admins", "get", "/api/v1/nodes/y/status", Level::None),
        ];
        for (user, group, verb, path, want) in table {
            assert_eq!(level(user, group, verb, path), want, "{user} {verb} {path}");
        }
        assert!(Policy::parse(b"apiVersion: v1\nkind: Policy\nrules: [{level: None}]").is_err());
        let loud = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: None}\n- {level: Loud}";
        assert!(
            Policy::parse(loud).is_err_and(|why| why.starts_with("line 5: rules[1].level: unknown variant `Loud`"))
        );
    }
}
