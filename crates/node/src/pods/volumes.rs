//! A pod's volumes: gathered from what they refer to, laid out before anything starts, and brought up to
//! date about once a minute while the pod runs.
//!
//! Source: the kubelet's volume plugins (`pkg/volume/{configmap,secret,downwardapi,projected}`).

use super::Cx;
use super::backoff::Retry;
use super::downward;
use super::events::{Events, Type};
use super::ops::What;
use super::pod::Pod;
use super::security::{fs_group, only_user};
use super::sources::{Got, Key, Source, Sources, decode, is_immutable};
use super::spec::{List, containers};
use super::tokens::Tokens;
use base::Time;
use base::runtime::{Answer, Failure, Op, Volume, VolumeFile, VolumeKind};
use objects::Tree;
use objects::kinds::pod::defaults::VOLUME_SOURCES;
use objects::kinds::resources::quantity;
use objects::kinds::tree::Fields;
use objects::status::quote;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What is laid out is compared with its sources this often.
const REFRESH: Duration = Duration::from_secs(45);
/// What another pod has read so recently will do for that.
const RECENT: Duration = Duration::from_secs(10);
/// Volumes whose content the node writes.
const OBJECTS: [&str; 4] = ["configMap", "secret", "downwardAPI", "projected"];
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(122);

/// The volumes of a pod.
#[derive(Debug)]
pub(super) struct Volumes {
    paths: BTreeMap<String, String>,
    /// All of them are there.
    ready: bool,
    laid: Option<Vec<Volume>>,
    /// Laid out next, once the host has answered.
    laying: Option<Vec<Volume>>,
    /// When the pod was first seen: nothing read before then will do.
    first: Time,
    /// Nothing that may change and was read before then will do.
    since: Time,
    /// What they hold is being read.
    gathering: bool,
    /// Something they show has changed since it was read.
    stale: bool,
    /// When they are to be compared with their sources again.
    refresh: Time,
    retry: Retry,
    pub(super) tokens: Tokens,
}

/// Files by path.
type Files = BTreeMap<String, VolumeFile>;

/// What keeps a volume from being laid out.
enum Lack {
    /// It is being read.
    Wait,
    /// This.
    Why(String),
}

impl Volumes {
    pub(super) fn new(now: Time) -> Volumes {
        Volumes {
            paths: BTreeMap::new(),
            ready: false,
            laid: None,
            laying: None,
            first: now,
            since: now,
            gathering: false,
            stale: false,
            refresh: Time::ZERO,
            retry: Retry::default(),
            tokens: Tokens::default(),
        }
    }

    /// Where each volume lies.
    pub(super) fn paths(&self) -> &BTreeMap<String, String> {
        &self.paths
    }

    /// Where they lie, as the sandbox of a pod that was found says.
    pub(super) fn found(&mut self, paths: BTreeMap<String, String>) {
        if !self.ready && self.laid.is_none() && self.laying.is_none() {
            self.paths = paths;
            self.ready = true;
        }
    }

    /// Something a volume shows has changed.
    pub(super) fn changed(&mut self) {
        self.stale = true;
        self.refresh = Time::ZERO;
    }

    /// They are laid out anew before the next sandbox: after a reboot those in memory are empty.
    pub(super) fn lost(&mut self) {
        if self.laying.is_none() && self.laid.is_none() {
            self.ready = false;
            self.refresh = Time::ZERO;
        }
    }
}

/// The volumes that a container mounts.
fn used(pod: &Tree) -> BTreeSet<&str> {
    let all = List::ALL.into_iter().flat_map(|l| containers(pod, l));
    all.flat_map(|c| c.list("volumeMounts")).map(|m| m.text("name")).collect()
}

/// Whether a volume is files that the node writes, of objects and of what it knows itself: they are in
/// memory, and nobody else may write them.
pub(super) fn shows_objects(pod: &Tree, name: &str) -> bool {
    let volume = pod.at("spec").list("volumes").iter().find(|v| v.text("name") == name);
    volume.is_some_and(|v| OBJECTS.iter().any(|s| v.has(s)))
}

/// Whether any volume of a pod is memory.
pub(super) fn in_memory(pod: &Tree) -> bool {
    let memory = |v: &Tree| OBJECTS.iter().any(|s| v.has(s)) || v.at("emptyDir").text("medium") == "Memory";
    pod.at("spec").list("volumes").iter().any(memory)
}

impl Pod {
    /// Lays the volumes out, or brings them up to date. Whether they are there.
    pub(super) fn lay_out(&mut self, cx: &mut Cx<'_>) -> bool {
        let now = cx.now.mono;
        let v = &mut self.volumes;
        if v.laying.is_some() {
            return v.ready;
        }
        if !v.gathering {
            let due = if v.ready { v.refresh.max(v.retry.at) } else { v.retry.at };
            if now < due {
                self.wake_at(due);
                return self.volumes.ready;
            }
            v.gathering = true;
            v.since = if v.laid.is_some() && !v.stale { now - RECENT } else { now };
        }
        v.stale = false;
        match self.gather(cx) {
            // What is wrong is said once all is known.
            Err(lacks) if lacks.iter().any(|(_, lack)| matches!(lack, Lack::Wait)) => {}
            Err(lacks) => {
                self.volumes.gathering = false;
                self.volumes.retry.failed(now, RETRY_FIRST, RETRY_MOST);
                let at = self.volumes.retry.at;
                self.wake_at(at);
                for (name, lack) in lacks {
                    let Lack::Why(why) = lack else { continue };
                    self.not_mounted(cx, &name, &why);
                }
            }
            Ok(volumes) => {
                self.volumes.gathering = false;
                if volumes.is_empty() || self.volumes.laid.as_ref() == Some(&volumes) {
                    self.laid_out(cx, volumes, None);
                } else {
                    let op = Op::Volumes { pod: self.uid.to_string(), volumes: volumes.clone() };
                    self.volumes.laying = Some(volumes);
                    cx.shared.ops.ask(&self.uid, What::Volumes, op, cx.fx);
                }
            }
        }
        self.volumes.ready
    }

    fn laid_out(&mut self, cx: &mut Cx<'_>, volumes: Vec<Volume>, paths: Option<BTreeMap<String, String>>) {
        let now = cx.now.mono;
        let v = &mut self.volumes;
        v.retry.done();
        v.laid = Some(volumes);
        v.ready = true;
        // Each pod at its own moment.
        let spread = self.uid.bytes().fold(0_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b))) % 10;
        v.refresh = if v.stale { now } else { now + REFRESH + Duration::from_secs(spread) };
        if let Some(paths) = paths {
            v.paths = paths;
        }
        let at = v.refresh;
        self.wake_at(at);
    }

    /// The host has answered.
    pub(super) fn volumes_done(&mut self, cx: &mut Cx<'_>, result: Result<Answer, Failure>) {
        let Some(volumes) = self.volumes.laying.take() else { return };
        let whys: Vec<(String, String)> = match result {
            Ok(Answer::Volumes(made)) => {
                let (mut paths, mut whys) = (BTreeMap::new(), Vec::new());
                for (name, at) in made {
                    match at {
                        Ok(path) => drop(paths.insert(name, path)),
                        Err(why) => whys.push((name, super::start::failure(Err(why)))),
                    }
                }
                if whys.is_empty() {
                    self.laid_out(cx, volumes, Some(paths));
                    return;
                }
                whys
            }
            other => {
                let why = super::start::failure(other);
                volumes.into_iter().map(|v| (v.name, why.clone())).collect()
            }
        };
        self.volumes.retry.failed(cx.now.mono, RETRY_FIRST, RETRY_MOST);
        let at = self.volumes.retry.at;
        self.wake_at(at);
        for (name, why) in whys {
            self.not_mounted(cx, &name, &why);
        }
    }

    fn not_mounted(&self, cx: &mut Cx<'_>, volume: &str, why: &str) {
        let message = format!("MountVolume.SetUp failed for volume {} : {why}", quote(volume));
        Events::record(cx, &self.tree, "", Type::Warning, "FailedMount", &message);
    }

    /// The volumes with all they hold, or what each lacks.
    fn gather(&mut self, cx: &mut Cx<'_>) -> Result<Vec<Volume>, Vec<(String, Lack)>> {
        let tree = self.tree.clone();
        let used = used(&tree);
        let (mut volumes, mut lacks) = (Vec::new(), Vec::new());
        for volume in tree.at("spec").list("volumes") {
            let name = volume.text("name");
            if !used.contains(name) {
                continue;
            }
            match self.kind(cx, &tree, volume) {
                Ok(kind) => {
                    let group = if matches!(kind, VolumeKind::Host { .. }) { None } else { fs_group(&tree) };
                    volumes.push(Volume { name: name.to_owned(), kind, group });
                }
                Err(lack) => lacks.push((name.to_owned(), lack)),
            }
        }
        if lacks.is_empty() { Ok(volumes) } else { Err(lacks) }
    }

    fn kind(&mut self, cx: &mut Cx<'_>, pod: &Tree, volume: &Tree) -> Result<VolumeKind, Lack> {
        let source = VOLUME_SOURCES.iter().find(|s| volume.has(s)).copied().unwrap_or("emptyDir");
        let s = volume.at(source);
        match source {
            "emptyDir" => match s.text("medium") {
                "" => Ok(VolumeKind::Empty { memory: false, bytes_max: 0 }),
                "Memory" => {
                    let limit = quantity(s.at("sizeLimit")).map_or(0, |q| q.value());
                    Ok(VolumeKind::Empty { memory: true, bytes_max: u64::try_from(limit).unwrap_or(0) })
                }
                other => Err(Lack::Why(format!("emptyDir of medium {} is not supported on this node", quote(other)))),
            },
            "hostPath" => Ok(VolumeKind::Host { path: s.text("path").to_owned(), kind: s.text("type").to_owned() }),
            "configMap" | "secret" => {
                let mut files = Files::new();
                let name = if source == "secret" { s.text("secretName") } else { s.text("name") };
                self.add_object(cx, pod, source == "secret", name, s, mode(s), &mut files)?;
                Ok(whole(files))
            }
            "downwardAPI" => {
                let mut files = Files::new();
                self.add_downward(cx, pod, s.list("items"), mode(s), &mut files)?;
                Ok(whole(files))
            }
            "projected" => self.projected(cx, pod, volume.text("name"), s),
            other => Err(Lack::Why(format!("volumes of type {other} are not supported on this node"))),
        }
    }

    fn projected(&mut self, cx: &mut Cx<'_>, pod: &Tree, name: &str, s: &Tree) -> Result<VolumeKind, Lack> {
        let mode = mode(s);
        let mut files = Files::new();
        let (mut whys, mut wait) = (Vec::new(), false);
        for (i, source) in s.list("sources").iter().enumerate() {
            let result = if source.has("secret") {
                let s = source.at("secret");
                self.add_object(cx, pod, true, s.text("name"), s, mode, &mut files)
            } else if source.has("configMap") {
                let s = source.at("configMap");
                self.add_object(cx, pod, false, s.text("name"), s, mode, &mut files)
            } else if source.has("downwardAPI") {
                self.add_downward(cx, pod, source.at("downwardAPI").list("items"), mode, &mut files)
            } else if source.has("serviceAccountToken") {
                self.add_token(cx, (name, i), source.at("serviceAccountToken"), mode, &mut files)
            } else {
                let kind = source.as_object().and_then(|o| o.keys().next()).map_or("", String::as_str);
                Err(Lack::Why(format!("projected sources of type {kind} are not supported on this node")))
            };
            match result {
                Ok(()) => {}
                Err(Lack::Wait) => wait = true,
                Err(Lack::Why(why)) => whys.push(why),
            }
        }
        // What is wrong is said once all is known.
        match whys.as_slice() {
            _ if wait => Err(Lack::Wait),
            [] => Ok(whole(files)),
            [why] => Err(Lack::Why(why.clone())),
            whys => Err(Lack::Why(format!("[{}]", whys.join(", ")))),
        }
    }

    /// An object of the namespace, new enough.
    fn object(&mut self, cx: &mut Cx<'_>, source: Source, name: &str) -> Result<Option<Arc<Tree>>, Lack> {
        let namespace: Arc<str> = self.tree.at("metadata").text("namespace").into();
        let key = Key { source, namespace, name: name.into() };
        let since = match cx.shared.sources.known(&key) {
            Some(Got::Have(tree)) if is_immutable(tree) => self.volumes.first,
            _ => self.volumes.since,
        };
        match Sources::get(cx, &self.uid, &key, since) {
            None => Err(Lack::Wait),
            Some(Got::Have(tree)) => Ok(Some(tree)),
            Some(Got::Missing) => Ok(None),
            Some(Got::Refused(why)) => Err(Lack::Why(why)),
        }
    }

    #[allow(clippy::too_many_arguments)] // a volume's and a projection's source have the same parts
    fn add_object(
        &mut self,
        cx: &mut Cx<'_>,
        pod: &Tree,
        secret: bool,
        name: &str,
        s: &Tree,
        mode: u32,
        files: &mut Files,
    ) -> Result<(), Lack> {
        let _ = pod;
        let source = if secret { Source::Secret } else { Source::ConfigMap };
        let optional = s.flag("optional");
        let object = match self.object(cx, source, name)? {
            Some(object) => object,
            None if optional => return Ok(()),
            None => {
                let plural = if secret { "secret" } else { "configmap" };
                return Err(Lack::Why(format!("{plural} {} not found", quote(name))));
            }
        };
        let bytes = |key: &str| -> Option<Arc<[u8]>> {
            let text = |field: &str| object.at(field).at(key).as_str();
            match (text("data"), text("binaryData")) {
                (Some(t), _) if secret => Some(decode(t).into()),
                (Some(t), _) => Some(t.as_bytes().into()),
                (None, Some(t)) => Some(decode(t).into()),
                (None, None) => None,
            }
        };
        let items = s.list("items");
        if items.is_empty() {
            let keys = object.entries("data").chain(object.entries("binaryData"));
            for (key, _) in keys {
                add(files, key, bytes(key).unwrap_or_default(), mode);
            }
            return Ok(());
        }
        for item in items {
            let key = item.text("key");
            match bytes(key) {
                Some(content) => add(files, item.text("path"), content, own_mode(item, mode)),
                None if optional => {}
                None if secret => return Err(Lack::Why(format!("references non-existent secret key: {key}"))),
                None => return Err(Lack::Why(format!("configmap references non-existent config key: {key}"))),
            }
        }
        Ok(())
    }

    fn add_downward(&self, cx: &Cx<'_>, pod: &Tree, items: &[Tree], mode: u32, files: &mut Files) -> Result<(), Lack> {
        let addresses = self.addresses(cx);
        for item in items {
            let value = if item.has("fieldRef") {
                downward::field(&cx.shared.facts, pod, &addresses, item.at("fieldRef").text("fieldPath"))
            } else {
                downward::resource(&cx.shared.facts, pod, None, item.at("resourceFieldRef"))
            };
            let value = value.map_err(Lack::Why)?;
            add(files, item.text("path"), value.into_bytes().into(), own_mode(item, mode));
        }
        Ok(())
    }

    fn add_token(
        &mut self,
        cx: &mut Cx<'_>,
        place: (&str, usize),
        s: &Tree,
        mode: u32,
        files: &mut Files,
    ) -> Result<(), Lack> {
        let token = match self.token(cx, place, s) {
            None => return Err(Lack::Wait),
            Some(Err(why)) => return Err(Lack::Why(why)),
            Some(Ok(token)) => token,
        };
        let owner = only_user(&self.tree);
        let mode = if owner.is_some() || fs_group(&self.tree).is_some() { 0o600 } else { mode };
        let file = VolumeFile { path: s.text("path").to_owned(), bytes: token.into_bytes().into(), mode, owner };
        files.insert(file.path.clone(), file);
        Ok(())
    }
}

fn mode(source: &Tree) -> u32 {
    own(source.int("defaultMode")).unwrap_or(0o644)
}

fn own_mode(item: &Tree, default: u32) -> u32 {
    own(item.int("mode")).unwrap_or(default)
}

fn own(mode: Option<i64>) -> Option<u32> {
    mode.and_then(|m| u32::try_from(m).ok())
}

fn add(files: &mut Files, path: &str, bytes: Arc<[u8]>, mode: u32) {
    files.insert(path.to_owned(), VolumeFile { path: path.to_owned(), bytes, mode, owner: None });
}

fn whole(files: Files) -> VolumeKind {
    VolumeKind::Files(files.into_values().collect())
}
