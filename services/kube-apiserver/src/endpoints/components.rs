//! ComponentStatus: what the parts of the control plane on this machine say of themselves, asked each time somebody asks. Deprecated since v1.19, and
//! still the first thing that many people look at.

use super::Target;
use super::encode::{self, ListMeta};
use super::list::ListOptions;
use crate::config::Config;
use crate::errors::ApiError;
use crate::proxy::backend::{Backends, Place, Scheme};
use crate::registry::Resource;
use crate::server::body::Response;
use crate::server::handler::Call;
use crate::storage::{Store, Stored, codec};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// How long one of them may take, as upstream has it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Component {
    /// A process that answers /healthz at a port of its own.
    Process(&'static str, u16),
    /// A member of the store, by its number.
    Member(usize),
}

/// What it says.
#[derive(Debug)]
enum Health {
    Good(String),
    Bad(String, String),
    /// It says nothing.
    Unknown(String),
}

impl Component {
    fn all(config: &Config) -> Vec<Self> {
        let members = (0..config.etcd_servers.len()).map(Component::Member);
        [Component::Process("controller-manager", 10257), Component::Process("scheduler", 10259)]
            .into_iter()
            .chain(members)
            .collect()
    }

    fn name(&self) -> String {
        match self {
            Component::Process(name, _) => (*name).to_string(),
            Component::Member(index) => format!("etcd-{index}"),
        }
    }

    async fn health(&self, call: &Call) -> Health {
        let asked = async {
            match self {
                Component::Process(_, port) => process(&call.state.backends, *port).await,
                Component::Member(index) => member(&call.state.config, *index).await,
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(health) => health,
            Err(_) => Health::Unknown("context deadline exceeded".into()),
        }
    }
}

async fn process(backends: &Backends, port: u16) -> Health {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let asked = async {
        let mut connection = backends.connect(Place { scheme: Scheme::Https, address, port }).await?;
        let answer = connection.get("/healthz").await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok::<_, String>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    match asked.await {
        Ok((status, text)) if status.is_success() => Health::Good(text),
        Ok((status, text)) => {
            let why = format!("unhealthy http status code: {} ({text})", status.as_u16());
            Health::Bad(text, why)
        }
        Err(why) => Health::Unknown(format!("Get \"https://{address}:{port}/healthz\": {why}")),
    }
}

/// Through a connection of its own: the server's own goes to whichever member answers.
async fn member(config: &Config, index: usize) -> Health {
    let servers = config.etcd_servers.get(index).cloned().into_iter().collect();
    let alone = Config { etcd_servers: servers, ..config.clone() };
    let asked = async { Store::connect(&alone)?.revision().await.map_err(|e| e.to_string()) };
    match asked.await {
        Ok(_) => Health::Good("ok".into()),
        Err(why) => Health::Bad(String::new(), why),
    }
}

/// The object.
fn status(res: &Resource, name: &str, health: Health) -> Result<Stored, ApiError> {
    let (status, message, error) = match health {
        Health::Good(message) => ("True", message, String::new()),
        Health::Bad(message, error) => ("False", message, error),
        Health::Unknown(error) => ("Unknown", String::new(), error),
    };
    let mut condition = json!({"type": "Healthy", "status": status});
    for (field, text) in [("message", message), ("error", error)] {
        if !text.is_empty() {
            condition[field] = Value::String(text);
        }
    }
    let object = json!({
        "kind": res.kind, "apiVersion": res.api_version(), "metadata": {"name": name}, "conditions": [condition],
    });
    codec::stored(res, object, 0)
}

/// GET of one.
pub async fn get(call: &Call, target: &Target) -> Result<Response, ApiError> {
    call.accepted()?;
    let res = target.res;
    let found = Component::all(&call.state.config).into_iter().find(|c| c.name() == target.name);
    let component = found.ok_or_else(|| ApiError::not_found(res.group, res.plural, &target.name))?;
    encode::one(call, res, 200, &status(res, &target.name, component.health(call).await)?, &[])
}

/// GET of all of them, all asked at once.
pub async fn list(call: &Call, target: &Target) -> Result<Response, ApiError> {
    call.accepted()?;
    let res = target.res;
    let selection = ListOptions::parse_selection(res, &call.query)?;
    let all = Component::all(&call.state.config);
    let asked = all.iter().map(|c| async { status(res, &c.name(), c.health(call).await).map(Arc::new) });
    let items: Vec<Arc<Stored>> = join_all(asked).await.into_iter().collect::<Result<_, _>>()?;
    let items = items.into_iter().filter(|item| selection.matches(item)).collect();
    encode::list(call, res, items, &ListMeta::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::lookup;

    #[test]
    fn what_is_said_is_shown() {
        let res = lookup("", "v1", "componentstatuses").expect("a row");
        let unreachable = Health::Unknown("connection refused".into());
        let table = [
            (Health::Good("ok".into()), json!({"type": "Healthy", "status": "True", "message": "ok"})),
            (
                Health::Bad(String::new(), "timed out".into()),
                json!({"type": "Healthy", "status": "False", "error": "timed out"}),
            ),
            (unreachable, json!({"type": "Healthy", "status": "Unknown", "error": "connection refused"})),
        ];
        for (health, want) in table {
            let object = status(res, "scheduler", health).expect("an object").object();
            assert_eq!((&object["metadata"], &object["conditions"][0]), (&json!({"name": "scheduler"}), &want));
        }
    }
}
