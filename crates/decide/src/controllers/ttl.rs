//! How long a node may believe what it has read of Secrets and ConfigMaps: an annotation that follows how many nodes
//! there are (kube-controller-manager's ttl-controller).

use super::{Action, Plan, text};
use objects::Tree;
use serde_json::json;

/// The annotation.
const TTL: &str = "node.alpha.kubernetes.io/ttl";

/// From so many nodes, to so many, it is so many seconds. Where two steps lie over each other, each node stays on its
/// own: a cluster that grows and shrinks by one is not written anew every time.
const STEPS: [(usize, usize, i64); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// What one of so many nodes needs.
pub fn plan(node: &Tree, nodes: usize) -> Plan {
    let mut plan = Plan::default();
    if super::is_terminating(node) {
        return plan;
    }
    let said = node["metadata"]["annotations"][TTL].as_str().and_then(|t| t.parse::<i64>().ok());
    let wanted = seconds(said, nodes);
    if said != Some(wanted) {
        plan.because(format!("the ttl of {} is to be {wanted} s, of {nodes} nodes", text(&node["metadata"]["name"])));
        let mut tree = node.clone();
        if !tree["metadata"]["annotations"].is_object() {
            tree["metadata"]["annotations"] = json!({});
        }
        tree["metadata"]["annotations"][TTL] = json!(wanted.to_string());
        plan.actions.push(Action::Update { tree });
    }
    plan
}

/// Whether a node more or less made it so many that other nodes may be on a wrong step now.
pub fn is_step(nodes: usize) -> bool {
    STEPS.iter().any(|(min, max, _)| nodes + 1 == *min || nodes.checked_sub(1) == Some(*max))
}

fn seconds(said: Option<i64>, nodes: usize) -> i64 {
    let mut step = said.and_then(|said| STEPS.iter().position(|(_, _, s)| *s == said)).unwrap_or(0);
    while let Some((min, max, seconds)) = STEPS.get(step) {
        if nodes > *max {
            step += 1;
        } else if nodes < *min {
            step -= 1;
        } else {
            return *seconds;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_number_of_nodes_with_some_inertia() {
        for (said, nodes, want) in [
            (None, 1, 0),
            (None, 100, 0),
            (None, 101, 15),
            (Some(15), 95, 15),
            (Some(15), 89, 0),
            (Some(0), 700, 30),
            (Some(300), 3, 0),
            (Some(60), 5000, 300),
            (Some(7), 5, 0),
        ] {
            assert_eq!(seconds(said, nodes), want, "{said:?} of {nodes}");
        }
        let steps: Vec<usize> = (0..=2001).filter(|n| is_step(*n)).collect();
        assert_eq!(steps, [89, 101, 449, 501, 899, 1001, 1799, 2001]);
    }

    #[test]
    fn a_node_is_written_once() {
        let node = json!({"metadata": {"name": "n", "annotations": {"a": "b"}}});
        let first = plan(&node, 3);
        let [Action::Update { tree }] = &first.actions[..] else { panic!("{first:?}") };
        assert_eq!(tree["metadata"]["annotations"], json!({"a": "b", TTL: "0"}));
        assert!(plan(tree, 3).actions.is_empty());
    }
}
