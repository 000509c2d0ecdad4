//! Pulls: at most so many at a time, and one for all pods that want the same image at the same moment.

use super::Cx;
use super::ops::What;
use base::Time;
use base::runtime::{Answer, Failure, Image, Op, PullAuth, Why};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct Pull {
    image: String,
    auth: Vec<PullAuth>,
    /// Since when it is under way.
    began: Option<Time>,
    result: Option<(Result<Image, Failure>, Duration)>,
    waiting: BTreeSet<Arc<str>>,
}

/// What a pull came to, and how long it took.
pub(super) type Pulled = (Result<Image, Failure>, Duration);

/// The pulls.
#[derive(Debug)]
pub(super) struct Images {
    most: usize,
    under_way: usize,
    pulls: BTreeMap<String, Pull>,
    turn: VecDeque<String>,
}

impl Images {
    pub(super) fn new(most: usize) -> Images {
        Images { most, under_way: 0, pulls: BTreeMap::new(), turn: VecDeque::new() }
    }

    /// Has an image pulled for a pod, who is told when it is done. Gives the name of the pull.
    pub(super) fn pull(cx: &mut Cx<'_>, pod: &Arc<str>, image: &str, auth: Vec<PullAuth>) -> String {
        // Who may pull with other credentials must not wait for, or profit from, those who may not.
        let who: Vec<&str> = auth.iter().map(|a| a.username.as_str()).collect();
        let mut name = format!("{image} {}", who.join(" "));
        while cx.shared.images.pulls.get(&name).is_some_and(|p| p.auth != auth || p.result.is_some()) {
            name.push('+');
        }
        let images = &mut cx.shared.images;
        let pull = images.pulls.entry(name.clone()).or_insert_with(|| {
            images.turn.push_back(name.clone());
            Pull { image: image.to_owned(), auth, began: None, result: None, waiting: BTreeSet::new() }
        });
        pull.waiting.insert(pod.clone());
        Images::pump(cx);
        name
    }

    fn pump(cx: &mut Cx<'_>) {
        while cx.shared.images.under_way < cx.shared.images.most {
            let images = &mut cx.shared.images;
            let Some(name) = images.turn.pop_front() else { break };
            let Some(pull) = images.pulls.get_mut(&name) else { continue };
            let Some(pod) = pull.waiting.first().cloned() else {
                images.pulls.remove(&name);
                continue;
            };
            pull.began = Some(cx.now.mono);
            images.under_way += 1;
            let op = Op::PullImage { image: pull.image.clone(), auth: pull.auth.clone() };
            cx.shared.ops.ask(&pod, What::Pull(name), op, cx.fx);
        }
    }

    /// A pull came back.
    pub(super) fn done(cx: &mut Cx<'_>, name: &str, result: Result<Answer, Failure>) {
        cx.shared.images.under_way -= 1;
        let now = cx.now.mono;
        if let Some(pull) = cx.shared.images.pulls.get_mut(name) {
            let took = now.since(pull.began.unwrap_or(now));
            let result = match result {
                Ok(Answer::Image(image)) => Ok(image),
                Ok(_) => {
                    Err(Failure { why: Why::NotFound, message: "the image was pulled and is not there".to_owned() })
                }
                Err(failure) => Err(failure),
            };
            pull.result = Some((result, took));
            let waiting: Vec<Arc<str>> = pull.waiting.iter().cloned().collect();
            if waiting.is_empty() {
                cx.shared.images.pulls.remove(name);
            }
            cx.shared.dirty.extend(waiting);
        }
        Images::pump(cx);
    }

    /// What a pull came to, told once to each pod that waits for it.
    pub(super) fn take(&mut self, pod: &str, name: &str) -> Option<Pulled> {
        let pull = self.pulls.get_mut(name)?;
        let result = pull.result.clone()?;
        pull.waiting.remove(pod);
        if pull.waiting.is_empty() {
            self.pulls.remove(name);
        }
        Some(result)
    }

    /// A pod no longer waits for a pull.
    pub(super) fn leave(&mut self, pod: &str, name: &str) {
        if let Some(pull) = self.pulls.get_mut(name) {
            pull.waiting.remove(pod);
            if pull.waiting.is_empty() && (pull.result.is_some() || pull.began.is_none()) {
                self.pulls.remove(name);
            }
        }
    }

    pub(super) fn check(&self) {
        assert!(self.under_way <= self.most, "{} images are pulled at once", self.under_way);
    }
}

/// Whether a reference to an image can be one (`docker/reference`): the kubelet's words if not.
pub(super) fn check_name(image: &str) -> Result<(), String> {
    let wrong = || Err(format!("couldn't parse image name \"{image}\": invalid reference format"));
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    if digest.is_some_and(|d| !matches!(d.split_once(':'), Some((a, hex)) if !a.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))) {
        return wrong();
    }
    let (path, last) = name.rsplit_once('/').map_or((None, name), |(p, l)| (Some(p), l));
    let (last, tag) = last.split_once(':').map_or((last, None), |(l, t)| (l, Some(t)));
    let tag_ok = |t: &str| {
        !t.is_empty()
            && t.len() <= 128
            && !t.starts_with(['.', '-'])
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let component = |c: &str| {
        let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        ends(c.bytes().next())
            && ends(c.bytes().last())
            && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    let host = |h: &str| {
        let (h, port) = h.rsplit_once(':').map_or((h, None), |(a, p)| (a, Some(p)));
        !h.is_empty()
            && h.bytes().all(|b| b.is_ascii_alphanumeric() || b".-[]:".contains(&b))
            && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
    };
    if tag.is_some_and(|t| !tag_ok(t)) || !component(last) || name.len() > 255 {
        return wrong();
    }
    let Some(path) = path else { return Ok(()) };
    let (first, rest) = path.split_once('/').map_or((path, None), |(f, r)| (f, Some(r)));
    let first_ok = if first.contains(['.', ':']) || first == "localhost" { host(first) } else { component(first) };
    let rest_ok = rest.is_none_or(|r| r.split('/').all(component));
    if first_ok && rest_ok { Ok(()) } else { wrong() }
}

/// A duration as Go prints it, to the millisecond: `1.5s`, `120ms`, `1m2.3s`.
pub(super) fn go_duration(d: Duration) -> String {
    let ms = d.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let mut seconds = format!("{}.{:03}", ms / 1000, ms % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_of_an_image_is_refused() {
        for ok in [
            "busybox",
            "busybox:1.36",
            "localhost:5000/a/b:t",
            "quay.io/a-b/c_d@sha256:0123456789abcdef0123456789abcdef",
            "me/app",
            "registry.example:5000/x",
        ] {
            assert_eq!(check_name(ok), Ok(()), "{ok}");
        }
        for bad in ["", "Busybox", "a:b:c", "a//b", "-a", "a b", "x@sha256:zz", "a:", "/a"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (ms, want) in [
            (0, "0s"),
            (120, "120ms"),
            (1500, "1.5s"),
            (62_300, "1m2.3s"),
            (10_000, "10s"),
            (300_000, "5m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(ms)), want);
        }
    }
}
