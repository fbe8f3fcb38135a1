//! The default Roles and RoleBindings, and the ConfigMap by which other API servers learn how this one knows its clients.

use serde_json::{Value, json};

use super::Writer;
use super::roles;
use super::rules::{EVENTS, Rule, named, r};
use crate::config::Config;
use crate::errors::ApiError;
use crate::registry::strategy::tree::set;

const RBAC: &str = "rbac.authorization.k8s.io";
const CORE: &[&str] = &[""];
const AUTHENTICATION: &str = "extension-apiserver-authentication";

/// One Role with who has it.
struct Role {
    namespace: &'static str,
    name: &'static str,
    rules: &'static [Rule],
    users: &'static [&'static str],
    /// Service accounts of kube-system.
    accounts: &'static [&'static str],
}

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const READ: &[&str] = &["get", "list", "watch"];
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const SIGNER: &str = "system:controller:bootstrap-signer";

const fn role(namespace: &'static str, name: &'static str, rules: &'static [Rule]) -> Role {
    Role { namespace, name, rules, users: &[], accounts: &[] }
}

const ROLES: &[Role] = &[
    Role {
        users: &[MANAGER, SCHEDULER],
        ..role(SYSTEM, READER, &[named(READ, CORE, &["configmaps"], &[AUTHENTICATION])])
    },
    Role { accounts: &["bootstrap-signer"], ..role(SYSTEM, SIGNER, &[r(READ, CORE, &["secrets"])]) },
    Role {
        accounts: &["cloud-provider"],
        ..role(
            SYSTEM,
            "system:controller:cloud-provider",
            &[r(&["create", "get", "list", "watch"], CORE, &["configmaps"])],
        )
    },
    Role {
        accounts: &["token-cleaner"],
        ..role(
            SYSTEM,
            "system:controller:token-cleaner",
            &[r(&["delete", "get", "list", "watch"], CORE, &["secrets"]), EVENTS],
        )
    },
    Role {
        users: &[MANAGER],
        accounts: &["kube-controller-manager"],
        ..role(
            SYSTEM,
            "system::leader-locking-kube-controller-manager",
            &[
                r(&["watch"], CORE, &["configmaps"]),
                named(&["get", "update"], CORE, &["configmaps"], &["kube-controller-manager"]),
            ],
        )
    },
    Role {
        users: &[SCHEDULER],
        accounts: &["kube-scheduler"],
        ..role(
            SYSTEM,
            "system::leader-locking-kube-scheduler",
            &[
                r(&["watch"], CORE, &["configmaps"]),
                named(&["get", "update"], CORE, &["configmaps"], &["kube-scheduler"]),
            ],
        )
    },
    Role {
        accounts: &["bootstrap-signer"],
        ..role(
            PUBLIC,
            SIGNER,
            &[r(READ, CORE, &["configmaps"]), named(&["update"], CORE, &["configmaps"], &["cluster-info"]), EVENTS],
        )
    },
];

const READER: &str = "extension-apiserver-authentication-reader";

/// Makes what is missing.
pub async fn reconcile(writer: &Writer<'_>) -> Result<(), ApiError> {
    for role in ROLES {
        writer.reconcile(RBAC, "roles", role.object(), roles::merge_role).await?;
        writer.reconcile(RBAC, "rolebindings", role.binding(), roles::merge_binding).await?;
    }
    let wanted = authentication(&writer.state.config)?;
    // Others may add keys; these are this server's.
    writer
        .reconcile("", "configmaps", wanted, |object, wanted| {
            for (key, value) in wanted["data"].as_object().into_iter().flatten() {
                set(&mut object["data"], key, value.clone());
            }
        })
        .await
}

impl Role {
    fn object(&self) -> Value {
        let mut role = roles::object("Role", self.name, json!({}), json!({"rules": roles::list(self.rules)}));
        role["metadata"]["namespace"] = json!(self.namespace);
        role
    }

    fn binding(&self) -> Value {
        let users = self.users.iter().map(|u| roles::subject("User", u));
        let account = |a: &&str| json!({"kind": "ServiceAccount", "name": a, "namespace": SYSTEM});
        let subjects: Vec<Value> = users.chain(self.accounts.iter().map(account)).collect();
        let body = json!({"roleRef": {"apiGroup": RBAC, "kind": "Role", "name": self.name}, "subjects": subjects});
        // Upstream's names of binding and role differ in this one case.
        let name = if self.name == READER { format!("system::{READER}") } else { self.name.to_owned() };
        let mut binding = roles::object("RoleBinding", &name, json!({}), body);
        binding["metadata"]["namespace"] = json!(self.namespace);
        binding
    }
}

fn authentication(config: &Config) -> Result<Value, ApiError> {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|e| ApiError::internal(format!("{}: {e}", path.display())))
    };
    let mut data = json!({"client-ca-file": read(&config.client_ca_file)?});
    let proxy = &config.front_proxy;
    if let Some(ca) = &proxy.requestheader_client_ca_file {
        data["requestheader-client-ca-file"] = json!(read(ca)?);
        let lists = [
            ("allowed-names", &proxy.requestheader_allowed_names),
            ("username-headers", &proxy.requestheader_username_headers),
            ("uid-headers", &proxy.requestheader_uid_headers),
            ("group-headers", &proxy.requestheader_group_headers),
            ("extra-headers-prefix", &proxy.requestheader_extra_headers_prefix),
        ];
        for (key, list) in lists {
            data[format!("requestheader-{key}")] = json!(json!(list).to_string());
        }
    }
    let metadata = json!({"name": AUTHENTICATION, "namespace": SYSTEM});
    Ok(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Strategy, strategy::rbac};

    #[test]
    fn defaults_are_valid_and_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for role in ROLES {
            assert!(seen.insert((role.namespace, role.name)), "{} twice", role.name);
            let mut object = role.object();
            (rbac::ROLE.defaults)(&mut object);
            assert_eq!(rbac::ROLE.validate(&object), [], "{object}");
            let before = role.binding();
            let mut binding = before.clone();
            (rbac::ROLE_BINDING.defaults)(&mut binding);
            assert_eq!(binding, before, "as stored, so that a restart writes nothing");
            assert_eq!(rbac::ROLE_BINDING.validate(&binding), [], "{binding}");
        }
    }
}
