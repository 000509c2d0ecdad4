//! DefaultTolerationSeconds: a pod that does not say otherwise stays for a while on a node that is not
//! ready or not reachable.

use crate::Tree;
use crate::kinds::tree::{self, Fields};
use crate::request::Config;
use serde_json::json;

pub(super) fn admit(config: &Config, pod: &mut Tree) {
    let spec = tree::child(pod, "spec");
    let mut all = spec.list("tolerations").to_vec();
    let said = all.len();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = |t: &Tree| {
            (t.text("key").is_empty() || t.text("key") == key) && matches!(t.text("effect"), "" | "NoExecute")
        };
        if !all.get(..said).unwrap_or_default().iter().any(tolerated) {
            all.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": config.default_toleration_seconds}));
        }
    }
    if all.len() > said {
        tree::set(spec, "tolerations", all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_pod_left_open_is_filled_in() {
        let config = Config::default();
        for (given, want) in [
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 1),
            (json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 5}]), 2),
            (json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]), 3),
        ] {
            let mut pod = json!({"spec": {"tolerations": given}});
            admit(&config, &mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(want), "{given}");
        }
    }
}
