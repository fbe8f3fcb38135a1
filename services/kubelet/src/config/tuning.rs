//! Fields of KubeletConfiguration that tune machinery which this kubelet does not have: it follows events where upstream
//! polls, has no iptables chains, no client-side throttling and no features that are off. They are accepted, so that a stock file loads, and named in
//! the log when they are set.

use serde::{Deserialize, Serialize};
use serde_json::Value;

macro_rules! tuning {
    ($($field:ident = $name:literal),* $(,)?) => {
        /// The fields.
        #[derive(Clone, Debug, Default, Deserialize, Serialize)]
        #[serde(default)]
        #[allow(missing_docs)]
        pub struct Tuning {
            $(#[serde(rename = $name, skip_serializing_if = "Value::is_null")] pub $field: Value,)*
        }

        impl Tuning {
            /// Names of the fields that are set to more than their zero value.
            pub fn set(&self) -> Vec<&'static str> {
                let all = [$(($name, &self.$field)),*];
                all.into_iter().filter(|(_, value)| !is_zero(value)).map(|(name, _)| name).collect()
            }
        }
    };
}

tuning! {
    sync_frequency = "syncFrequency",
    file_check_frequency = "fileCheckFrequency",
    http_check_frequency = "httpCheckFrequency",
    runtime_request_timeout = "runtimeRequestTimeout",
    streaming_connection_idle_timeout = "streamingConnectionIdleTimeout",
    volume_stats_agg_period = "volumeStatsAggPeriod",
    cpu_manager_reconcile_period = "cpuManagerReconcilePeriod",
    config_map_and_secret_change_detection_strategy = "configMapAndSecretChangeDetectionStrategy",
    registry_pull_qps = "registryPullQPS",
    registry_burst = "registryBurst",
    event_burst = "eventBurst",
    kube_api_qps = "kubeAPIQPS",
    kube_api_burst = "kubeAPIBurst",
    content_type = "contentType",
    hairpin_mode = "hairpinMode",
    make_iptables_util_chains = "makeIPTablesUtilChains",
    iptables_masquerade_bit = "iptablesMasqueradeBit",
    iptables_drop_bit = "iptablesDropBit",
    enable_profiling_handler = "enableProfilingHandler",
    enable_debug_flags_handler = "enableDebugFlagsHandler",
    enable_contention_profiling = "enableContentionProfiling",
    container_log_max_workers = "containerLogMaxWorkers",
    max_open_files = "maxOpenFiles",
    oom_score_adj = "oomScoreAdj",
    volume_plugin_dir = "volumePluginDir",
    kernel_memcg_notification = "kernelMemcgNotification",
    image_service_endpoint = "imageServiceEndpoint",
    show_hidden_metrics = "showHiddenMetricsForVersion",
    event_record_qps = "eventRecordQPS",
    feature_gates = "featureGates",
    logging = "logging",
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => matches!(text.as_str(), "" | "0s"),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}
