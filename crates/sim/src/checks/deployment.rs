//! Deployments: whoever makes pods for a ReplicaSet makes no more than it was ever told to have, no template has
//! two ReplicaSets, and in the end there is what was asked for and the status says so.
//!
//! That there are never more pods than replicas and surge is not asked of every commit: a leader that was lost
//! leaves requests on their way, and the next one, which cannot know of them, makes what is missing as well; so it
//! is in Kubernetes, and the surplus goes again. What each of them makes itself it must not make twice: its plans
//! rest on objects at least as new as the answers it was given. One that was answered that nobody knows what
//! became of a request may do so again, and is not asked.

use super::committed::{Change, Committed, controller, is_going, uid};
use super::{Checked, ensure};
use decide::pod::is_finished;
use objects::Tree;
use std::collections::{BTreeMap, BTreeSet};

/// Storage group-kinds.
pub const DEPLOYMENT: &str = "Deployment.apps";
/// See [`DEPLOYMENT`].
pub const REPLICA_SET: &str = "ReplicaSet.apps";
/// See [`DEPLOYMENT`].
pub const POD: &str = "Pod";

/// Who makes pods: the controllers of one start of a keeper.
pub type Maker = (usize, u64);

/// What was made by whom.
#[derive(Default)]
pub struct Deployments {
    /// By the uid that a request gives what it makes.
    asked: BTreeMap<String, Maker>,
    unsure: BTreeSet<Maker>,
    /// The most pods that each ReplicaSet was ever told to have.
    most: BTreeMap<String, i64>,
    /// Pods by their uids: who made them, and for which ReplicaSet.
    made: BTreeMap<String, (Maker, String)>,
}

impl Deployments {
    /// A pod will be made of this request, if it is executed.
    pub fn asks(&mut self, maker: Maker, uid: String) {
        self.asked.insert(uid, maker);
    }

    /// It was told that nobody knows what became of a request.
    pub fn unsure(&mut self, maker: Maker) {
        self.unsure.insert(maker);
    }

    /// How many pods controllers have made.
    pub fn made(&self) -> u64 {
        self.made.len() as u64
    }

    /// Something was committed.
    ///
    /// # Errors
    /// Somebody has made a pod too many, or a second ReplicaSet of one template.
    pub fn changed(&mut self, all: &Committed, change: &Change) -> Checked {
        match (change.storage, &change.before, &change.after) {
            (REPLICA_SET, before, Some(set)) => {
                let replicas = set["spec"]["replicas"].as_i64().unwrap_or(1);
                let most = self.most.entry(uid(set).to_owned()).or_default();
                *most = replicas.max(*most);
                if before.is_none() { only_one(all, set) } else { Ok(()) }
            }
            (POD, None, Some(pod)) => self.created(all, pod),
            _ => Ok(()),
        }
    }

    fn created(&mut self, all: &Committed, pod: &Tree) -> Checked {
        let Some(maker) = self.asked.remove(uid(pod)) else { return Ok(()) };
        let Some(set) = controller(pod) else { return Ok(()) };
        self.made.insert(uid(pod).to_owned(), (maker, set.to_owned()));
        if self.unsure.contains(&maker) {
            return Ok(());
        }
        let made = (maker, set.to_owned());
        let counts = |p: &&Tree| {
            self.made.get(uid(p)) == Some(&made) && controller(p) == Some(set) && !is_going(p) && !is_finished(p)
        };
        let have = all.all(POD).filter(counts).count() as i64;
        let most = self.most.get(set).copied().unwrap_or_default();
        ensure("deployment", have <= most, || {
            let name = &pod["metadata"]["name"];
            format!("{name} is the {have}th pod that {maker:?} has made for a ReplicaSet of {most} at most")
        })
    }
}

/// The template of a ReplicaSet as its Deployment has it.
fn template(of: &Tree) -> Tree {
    let mut template = of["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    template
}

fn only_one(all: &Committed, set: &Tree) -> Checked {
    let Some(owner) = controller(set) else { return Ok(()) };
    let twin = all
        .all(REPLICA_SET)
        .find(|s| uid(s) != uid(set) && controller(s) == Some(owner) && !is_going(s) && template(s) == template(set));
    ensure("deployment", twin.is_none(), || {
        format!("{} has the same template as {:?}", set["metadata"]["name"], twin.map(|t| &t["metadata"]["name"]))
    })
}

/// The end of a run, when nothing has happened for long: of each Deployment there are the pods it wants, of its
/// newest template, and no others; and its status counts them. One whose pods wait before they are started again
/// waits with them.
///
/// # Errors
/// It is not so.
pub fn settled(all: &Committed) -> Checked {
    for set in all.all(REPLICA_SET).filter(|s| !is_going(s)) {
        let have = pods(all, set).count() as i64;
        ensure("deployment", set["spec"]["replicas"] == have, || {
            format!("{} has {have} pods at the end and wants {}", set["metadata"]["name"], set["spec"]["replicas"])
        })?;
    }
    for deployment in all.all(DEPLOYMENT) {
        let name = &deployment["metadata"]["name"];
        ensure("deployment", !is_going(deployment), || format!("{name} is still being deleted at the end"))?;
        let sets: Vec<&Tree> = all.all(REPLICA_SET).filter(|s| controller(s) == Some(uid(deployment))).collect();
        let backs_off = |p: &Tree| {
            let all = p["status"]["containerStatuses"].as_array().into_iter().flatten();
            all.into_iter().any(|c| c["state"]["waiting"]["reason"] == "CrashLoopBackOff")
        };
        if sets.iter().flat_map(|s| pods(all, s)).any(backs_off) || is_stuck(deployment, &sets) {
            continue;
        }
        let want = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
        let newest = |s: &&Tree| template(s) == deployment["spec"]["template"];
        let count = |of: &mut dyn Iterator<Item = &&Tree>| of.map(|s| pods(all, s).count() as i64).sum::<i64>();
        let (new, whole) = (count(&mut sets.iter().filter(|s| newest(s))), count(&mut sets.iter()));
        ensure("deployment", (new, whole) == (want, want), || {
            format!("{name} has {new} pods of its newest template at the end, {whole} in all, and wants {want}")
        })?;
        let status = &deployment["status"];
        let says = |field: &str| status[field].as_i64().unwrap_or(0);
        let fields = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
        let right = fields.iter().all(|f| says(f) == want) && says("unavailableReplicas") == 0;
        let observed = status["observedGeneration"] == deployment["metadata"]["generation"];
        ensure("deployment", right && observed, || {
            let generation = &deployment["metadata"]["generation"];
            format!("{name}, with {want} pods and at generation {generation}, says at the end: {status}")
        })?;
    }
    Ok(())
}

/// A Deployment that recreates, and has adopted several ReplicaSets with pods that were made for another number of
/// replicas: Kubernetes' controller takes it for one that is being scaled, and then does nothing about it; so does
/// the one here.
fn is_stuck(deployment: &Tree, sets: &[&Tree]) -> bool {
    let with_pods: Vec<&&Tree> = sets.iter().filter(|s| s["spec"]["replicas"] != 0).collect();
    let made_for =
        |s: &Tree| s["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"].as_str()?.parse().ok();
    let another = |s: &&&Tree| made_for(s).is_some_and(|n: i64| deployment["spec"]["replicas"] != n);
    deployment["spec"]["strategy"]["type"] == "Recreate" && with_pods.len() > 1 && with_pods.iter().any(another)
}

/// The pods of a ReplicaSet as it counts them.
fn pods<'a>(all: &'a Committed, set: &'a Tree) -> impl Iterator<Item = &'a Tree> {
    all.all(POD).filter(|p| controller(p) == Some(uid(set)) && !is_going(p) && !is_finished(p))
}
