//! Extenders: HTTP services that are asked about nodes which the plugins found feasible.
//!
//! Supported are the filter and prioritize verbs of extenders that know nodes by name; a configuration that asks for more
//! is refused, so nobody relies on an extender that is never called.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use client::Client;
use client::resource::PODS;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::cycle::Unschedulable;
use crate::framework::{Refusal, SCORE_MAX};
use crate::pod::Pod;

/// The best score of an extender.
const EXTENDER_SCORE_MAX: i64 = 10;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// An extender as configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is, without the verb.
    pub url_prefix: String,
    /// Path of the filter call; empty if it has none.
    pub filter_verb: String,
    /// Path of the prioritize call; empty if it has none.
    pub prioritize_verb: String,
    /// How much its scores count.
    pub weight: i64,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Its failures are as if it were not there.
    pub ignorable: bool,
    /// Only pods that ask for one of these resources concern it; all if empty.
    pub managed_resources: Vec<String>,
}

/// An extender.
pub struct Extender {
    settings: Settings,
    http: HttpClient<HttpConnector, Full<Bytes>>,
    client: Client,
}

/// An extender that did not answer.
#[derive(Debug, thiserror::Error)]
#[error("extender {url}: {reason}")]
pub struct Failure {
    url: String,
    reason: String,
}

/// What is left after all extenders were asked.
pub struct Answer {
    /// Feasible nodes.
    pub slots: Vec<usize>,
    /// What the extenders add to their scores.
    pub scores: Vec<i64>,
    /// Why the others are not.
    pub refused: Unschedulable,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Filtered {
    // The wire name is lower case, from Go's matching of field names.
    #[serde(alias = "nodeNames", rename = "nodenames")]
    node_names: Option<Vec<String>>,
    failed_nodes: BTreeMap<String, String>,
    failed_and_unresolvable_nodes: BTreeMap<String, String>,
    error: String,
}

#[derive(Deserialize)]
struct HostPriority {
    host: String,
    score: i64,
}

impl Extender {
    /// An extender; `client` reads the pods that it is asked about.
    pub fn new(settings: Settings, client: Client) -> Extender {
        Extender { settings, http: HttpClient::builder(TokioExecutor::new()).build_http(), client }
    }

    fn concerns(&self, pod: &Pod) -> bool {
        let managed = &self.settings.managed_resources;
        managed.is_empty() || managed.iter().any(|name| pod.spec.requests.of(name) > 0)
    }

    async fn call<T: DeserializeOwned>(&self, verb: &str, args: &Value) -> Result<T, Failure> {
        let url = format!("{}/{verb}", self.settings.url_prefix.trim_end_matches('/'));
        let failure = |reason: String| Failure { url: url.clone(), reason };
        let request = Request::builder()
            .method(Method::POST)
            .uri(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(args.to_string())))
            .map_err(|e| failure(e.to_string()))?;
        let answer = async {
            let answer = self.http.request(request).await.map_err(|e| e.to_string())?;
            if !answer.status().is_success() {
                return Err(format!("answered {}", answer.status()));
            }
            let body = answer.into_body().collect().await.map_err(|e| e.to_string())?;
            serde_json::from_slice(&body.to_bytes()).map_err(|e| e.to_string())
        };
        match tokio::time::timeout(self.settings.timeout.unwrap_or(TIMEOUT_DEFAULT), answer).await {
            Ok(answer) => answer.map_err(failure),
            Err(_) => Err(failure("no answer in time".to_owned())),
        }
    }
}

/// Asks all extenders in turn.
///
/// # Errors
/// One that must not be ignored did not answer.
pub async fn ask(extenders: &[Extender], pod: &Pod, cache: &Cache, slots: Vec<usize>) -> Result<Answer, Failure> {
    let refused = Unschedulable::of_nodes(cache.nodes().count());
    let mut answer = Answer { scores: vec![0; slots.len()], slots, refused };
    let mut object = None;
    for extender in extenders.iter().filter(|extender| extender.concerns(pod)) {
        if object.is_none() {
            let read = extender.client.get(PODS, Some(&pod.spec.namespace), &pod.name).await;
            let url = extender.settings.url_prefix.clone();
            object = Some(read.map_err(|error| Failure { url, reason: format!("reading the pod: {error}") })?);
        }
        let result = consult(extender, object.as_ref().unwrap_or(&Value::Null), cache, &mut answer).await;
        match result {
            Err(error) if extender.settings.ignorable => tracing::warn!("{error}; ignored"),
            other => other?,
        }
        if answer.slots.is_empty() {
            break;
        }
    }
    Ok(answer)
}

async fn consult(extender: &Extender, pod: &Value, cache: &Cache, answer: &mut Answer) -> Result<(), Failure> {
    let name_of = |slot: &usize| cache.node(*slot).offer.name.to_string();
    let args = |slots: &[usize]| {
        let names: Vec<String> = slots.iter().map(name_of).collect();
        json!({"pod": pod, "nodes": null, "nodenames": names})
    };
    if !extender.settings.filter_verb.is_empty() {
        let filtered: Filtered = extender.call(&extender.settings.filter_verb, &args(&answer.slots)).await?;
        if !filtered.error.is_empty() {
            return Err(Failure { url: extender.settings.url_prefix.clone(), reason: filtered.error });
        }
        keep(answer, filtered, &name_of);
    }
    if !extender.settings.prioritize_verb.is_empty() && !answer.slots.is_empty() {
        let scores: Vec<HostPriority> = extender.call(&extender.settings.prioritize_verb, &args(&answer.slots)).await?;
        let scores: HashMap<String, i64> = scores.into_iter().map(|s| (s.host, s.score)).collect();
        for (slot, total) in answer.slots.iter().zip(&mut answer.scores) {
            let score = scores.get(&name_of(slot)).copied().unwrap_or(0);
            *total += score * extender.settings.weight * (SCORE_MAX / EXTENDER_SCORE_MAX);
        }
    }
    Ok(())
}

fn keep(answer: &mut Answer, filtered: Filtered, name_of: &dyn Fn(&usize) -> String) {
    let names = filtered.node_names.unwrap_or_default();
    let kept: Vec<(usize, i64)> = answer
        .slots
        .iter()
        .copied()
        .zip(answer.scores.iter().copied())
        .filter(|(s, _)| names.contains(&name_of(s)))
        .collect();
    for slot in &answer.slots {
        let name = name_of(slot);
        if let Some(reason) = filtered.failed_nodes.get(&name) {
            answer.refused.refuse(*slot, "Extender", Refusal::of(reason.clone()));
        } else if let Some(reason) = filtered.failed_and_unresolvable_nodes.get(&name) {
            answer.refused.refuse(*slot, "Extender", Refusal::hopeless(reason.clone()));
        }
    }
    (answer.slots, answer.scores) = kept.into_iter().unzip();
}
