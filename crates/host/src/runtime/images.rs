//! The images this machine has, and removing those that nothing uses when the disk fills.

use super::Runtime;
use crate::{facts, pause};
use base::runtime::{Failure, Why};
use k8s_cri::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An image younger than this, as seen from here, is not removed: it may have been pulled for a container
/// that is about to be made.
const AGE_MIN: Duration = Duration::from_secs(120);

/// An image that is here, as a Node's status lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredImage {
    /// All its names, those with digests first.
    pub names: Vec<String>,
    /// Its size.
    pub bytes: u64,
}

/// When each image was noticed, and last used. Forgotten at a restart: everything is young then.
#[derive(Default, Debug)]
pub(super) struct Notes(Mutex<BTreeMap<String, Note>>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Note {
    noticed: Instant,
    used: Instant,
}

impl Runtime {
    /// All images, the largest first.
    ///
    /// # Errors
    /// Why the runtime does not say.
    pub async fn image_list(&self) -> Result<Vec<StoredImage>, Failure> {
        let images = self.client.images_all().await?.into_iter();
        let mut images: Vec<_> = images
            .map(|i| StoredImage { names: i.repo_digests.into_iter().chain(i.repo_tags).collect(), bytes: i.size })
            .collect();
        images.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.names.cmp(&b.names)));
        Ok(images)
    }

    /// Notes what is used, and removes images that nothing uses, those unused for longest first, if more
    /// than `above_percent` of their disk is full, until it is no more than `down_to_percent` (the kubelet's
    /// defaults are 85 and 80). To be called every few minutes. Says how many bytes the removed images had.
    ///
    /// # Errors
    /// Why the runtime or the system does not say what is there, or that there is not enough that could be
    /// removed.
    pub async fn collect_images(&self, above_percent: u64, down_to_percent: u64) -> Result<u64, Failure> {
        let images = self.client.images_all().await?;
        let used = used(&images, &self.client.containers_all().await?);
        let now = Instant::now();
        let notes = {
            let mut notes = self.images.0.lock().unwrap_or_else(PoisonError::into_inner);
            note(&mut notes, &images, &used, now);
            notes.clone()
        };
        let Some(at) = self.client.image_filesystem().await? else { return Ok(0) };
        let to_free = excess(&at, above_percent, down_to_percent)?;
        if to_free == 0 {
            return Ok(0);
        }
        let mut freed = 0;
        for (id, bytes) in victims(&images, &notes, &used, now) {
            if freed >= to_free {
                break;
            }
            tracing::info!(image = %id, bytes, "the disk fills: removing an image that nothing uses");
            self.client.remove_image(&id).await?;
            freed += bytes;
        }
        if freed < to_free {
            let message = format!(
                "more than {above_percent}% of the disk of {} is used, and images that nothing uses had only {freed} \
                 of {to_free} bytes that should be freed",
                at.display()
            );
            return Err(Failure { why: Why::Failed, message });
        }
        Ok(freed)
    }
}

/// Bytes beyond what should be used of a path's file system, if more than the limit is.
fn excess(at: &Path, above_percent: u64, down_to_percent: u64) -> Result<u64, Failure> {
    let disk = facts::disk(at).map_err(|e| Failure {
        why: Why::Failed,
        message: format!("cannot ask how full the disk of {} is: {e}", at.display()),
    })?;
    Ok(excess_of(disk.bytes, disk.bytes_free, above_percent, down_to_percent))
}

fn excess_of(all: u64, free: u64, above_percent: u64, down_to_percent: u64) -> u64 {
    let percent = |p: u64| all / 100 * p;
    if all.saturating_sub(free) <= percent(above_percent) {
        return 0;
    }
    all.saturating_sub(free).saturating_sub(percent(down_to_percent))
}

/// Ids of the images that some container was made of, whatever name the container has for it.
fn used(images: &[v1::Image], containers: &[v1::Container]) -> BTreeSet<String> {
    let names = containers.iter().flat_map(|c| [Some(&c.image_ref), c.image.as_ref().map(|i| &i.image)]);
    // Every sandbox is made of the pause image. Not every containerd says that it is pinned (1.6.20 does not).
    let names: BTreeSet<&str> = names.flatten().map(String::as_str).chain([pause::NAME]).collect();
    let is_used = |i: &&v1::Image| {
        let mut all = i.repo_digests.iter().chain(&i.repo_tags).chain([&i.id]);
        all.any(|name| names.contains(name.as_str()))
    };
    images.iter().filter(is_used).map(|i| i.id.clone()).collect()
}

fn note(notes: &mut BTreeMap<String, Note>, images: &[v1::Image], used: &BTreeSet<String>, now: Instant) {
    let there: BTreeSet<&str> = images.iter().map(|i| i.id.as_str()).collect();
    notes.retain(|id, _| there.contains(id.as_str()));
    for image in images {
        let note = notes.entry(image.id.clone()).or_insert(Note { noticed: now, used: now });
        if used.contains(&image.id) {
            note.used = now;
        }
    }
}

/// Ids and sizes of what may be removed, in the order in which it should be.
fn victims(
    images: &[v1::Image],
    notes: &BTreeMap<String, Note>,
    used: &BTreeSet<String>,
    now: Instant,
) -> Vec<(String, u64)> {
    let free = images.iter().filter(|i| !i.pinned && !used.contains(&i.id));
    let noted = free.filter_map(|i| Some((notes.get(&i.id)?, i)));
    let mut old: Vec<_> = noted.filter(|(n, _)| now.duration_since(n.noticed) >= AGE_MIN).collect();
    old.sort_by_key(|(n, i)| (n.used, n.noticed, i.id.clone()));
    old.into_iter().map(|(_, i)| (i.id.clone(), i.size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str, size: u64) -> v1::Image {
        v1::Image { id: id.into(), repo_tags: vec![tag.into()], size, ..Default::default() }
    }

    #[test]
    fn what_nothing_uses_goes_first_what_is_used_pinned_or_young_stays() {
        let start = Instant::now();
        let minutes = |n: u64| start + Duration::from_secs(60 * n);
        let mut images = vec![image("a", "a:1", 1), image("b", "b:1", 2), image("c", "c:1", 3), image("p", "p:1", 4)];
        images.push(image("pause", pause::NAME, 6));
        images[3].pinned = true;
        let made_of = |name: &str| v1::Container { image_ref: name.into(), ..Default::default() };
        let mut notes = BTreeMap::new();
        note(&mut notes, &images, &used(&images, &[made_of("a:1"), made_of("b")]), minutes(0));
        note(&mut notes, &images, &used(&images, &[made_of("a:1")]), minutes(5));
        images.push(image("young", "young:1", 5));
        let now_used = used(&images, &[made_of("c:1")]);
        note(&mut notes, &images, &now_used, minutes(6));
        let order = victims(&images, &notes, &now_used, minutes(7));
        assert_eq!(order, [("b".to_owned(), 2), ("a".to_owned(), 1)]);
        images.remove(0);
        note(&mut notes, &images, &now_used, minutes(8));
        assert!(!notes.contains_key("a"), "what is gone is forgotten");
    }

    #[test]
    fn nothing_is_removed_below_the_limit() {
        for (all, free, excess) in [(1000, 150, 0), (1000, 140, 60), (1000, 0, 200), (1000, 1000, 0), (0, 0, 0)] {
            assert_eq!(excess_of(all, free, 85, 80), excess, "{all} {free}");
        }
    }
}
