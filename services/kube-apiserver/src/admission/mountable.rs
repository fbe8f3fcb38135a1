//! An account whose annotation says so has a list of the secrets that its pods may use: the `secrets` and `imagePullSecrets` it names.

use std::collections::BTreeSet;

use apimachinery::meta;
use serde_json::Value;

use crate::registry::strategy::tree::{at, items, str_at};

const ENFORCED: &str = "kubernetes.io/enforce-mountable-secrets";

/// The lists of containers that a new pod brings, and what each is called.
pub const MADE: &[(&str, &str)] = &[("initContainers", "init container"), ("containers", "container")];
/// Those that a running one may get.
pub const ADDED: &[(&str, &str)] = &[("ephemeralContainers", "ephemeral container")];

/// What of a pod its account does not allow, in words. Volumes and pull secrets come with a new pod only.
pub fn refused(pod: &Value, account: &Value, lists: &[(&str, &str)]) -> Option<String> {
    // As Go's ParseBool reads it.
    let enforced = matches!(meta::annotation(account, ENFORCED), Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
    if !enforced {
        return None;
    }
    let named = |list: &str| -> BTreeSet<String> {
        items(account, &[list]).iter().map(|s| str_at(s, &["name"]).to_owned()).collect()
    };
    let (secrets, pulls, owner) = (named("secrets"), named("imagePullSecrets"), meta::name(account));
    let not = |what: String, kind: &str| {
        Some(format!("{what} is not allowed because service account {owner} does not reference that {kind}"))
    };
    let made = lists == MADE;
    let volumes = items(pod, &["spec", "volumes"]).iter().filter(|_| made);
    for secret in volumes.filter_map(|v| Some(str_at(at(v, &["secret"])?, &["secretName"]))) {
        if !secrets.contains(secret) {
            return not(format!("volume with secret.secretName={secret:?}"), "secret");
        }
    }
    for (list, what) in lists {
        for container in items(pod, &["spec", list]) {
            if let Some((by, secret)) = used(container).into_iter().find(|(_, secret)| !secrets.contains(*secret)) {
                let name = str_at(container, &["name"]);
                return not(format!("{what} {name} with {by} referencing secret.secretName={secret:?}"), "secret");
            }
        }
    }
    let mut wanted = items(pod, &["spec", "imagePullSecrets"]).iter().filter(|_| made).enumerate();
    let (i, pull) = wanted.find(|(_, pull)| !pulls.contains(str_at(pull, &["name"])))?;
    not(format!("imagePullSecrets[{i}].name={:?}", str_at(pull, &["name"])), "imagePullSecret")
}

/// The secrets in a container's environment, each with what refers to it.
fn used(container: &Value) -> Vec<(String, &str)> {
    let one = |e| {
        Some((format!("envVar {}", str_at(e, &["name"])), str_at(at(e, &["valueFrom", "secretKeyRef"])?, &["name"])))
    };
    let all = |e| Some(("envFrom".to_owned(), str_at(at(e, &["secretRef"])?, &["name"])));
    let env = items(container, &["env"]).iter().filter_map(one);
    env.chain(items(container, &["envFrom"]).iter().filter_map(all)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_account_names() {
        let account = |value: &str| {
            json!({"metadata": {"name": "lim", "annotations": {ENFORCED: value}},
            "secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "p"}]})
        };
        let env = |secret: &str| json!({"name": "X", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}});
        let table = [
            (
                json!({"volumes": [{"secret": {"secretName": "s"}}], "imagePullSecrets": [{"name": "p"}], "containers": [{"name": "a", "env": [env("s")]}]}),
                MADE,
                "",
            ),
            (
                json!({"volumes": [{"emptyDir": {}}, {"secret": {"secretName": "t"}}]}),
                MADE,
                "volume with secret.secretName=\"t\"",
            ),
            (
                json!({"containers": [{"name": "a", "env": [{"name": "Y", "value": ""}, env("t")]}]}),
                MADE,
                "container a with envVar X referencing secret.secretName=\"t\"",
            ),
            (
                json!({"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "t"}}]}]}),
                MADE,
                "init container i with envFrom referencing secret.secretName=\"t\"",
            ),
            (
                json!({"ephemeralContainers": [{"name": "e", "env": [env("t")]}]}),
                ADDED,
                "ephemeral container e with envVar X referencing secret.secretName=\"t\"",
            ),
            (json!({"volumes": [{"secret": {"secretName": "t"}}]}), ADDED, ""),
        ];
        for (spec, lists, want) in table {
            let pod = json!({"spec": spec});
            let want = (!want.is_empty())
                .then(|| format!("{want} is not allowed because service account lim does not reference that secret"));
            assert_eq!(refused(&pod, &account("true"), lists), want, "{pod}");
            assert_eq!(refused(&pod, &account("false"), lists), None);
        }
        let pod = json!({"spec": {"imagePullSecrets": [{"name": "p"}, {"name": "s"}]}});
        let want = "imagePullSecrets[1].name=\"s\" is not allowed because service account lim does not reference that imagePullSecret";
        assert_eq!(refused(&pod, &account("true"), MADE).as_deref(), Some(want));
    }
}
