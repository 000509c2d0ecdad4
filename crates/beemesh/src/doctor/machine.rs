//! The machine itself: who runs on it, its clock, its disk, and whether others reach it.

use super::Check;
use super::look::{Clock, Disk, Node, Seeing};
use identity::GRACE;
use std::path::Path;
use std::time::Duration;

/// A leader whose clock is further from its voters' hands over.
const APART_MS: u64 = 500;
/// Certificates begin so long before they are made: clocks further apart refuse each other.
const REFUSED_MS: u64 = identity::lifetime::SKEW.as_millis() as u64;
/// What the log keeps for itself on a full disk, with room for what it rewrites.
const FREE_MIN: u64 = 256 << 20;
/// A write that is acknowledged waits for one of these at each voter.
const SYNC_SLOW: Duration = Duration::from_millis(20);
const SYNC_TOO_SLOW: Duration = Duration::from_secs(1);

pub(super) fn node(node: &Node, data: &Path) -> Check {
    match node {
        Node::Runs(r) if r.report.version != env!("CARGO_PKG_VERSION") => Check::warn(
            "node",
            format!(
                "{} runs release {}, and this command is of {}",
                r.report.name,
                r.report.version,
                env!("CARGO_PKG_VERSION")
            ),
            "use one release of both",
        ),
        Node::Runs(r) if !r.report.failed.is_empty() => Check::fail(
            "node",
            format!("{} could not start {} of its cells", r.report.name, r.report.failed.len()),
            "`beemesh cells` says which, and why",
        ),
        Node::Runs(r) => Check::ok(
            "node",
            format!("{} of mesh {} runs (process {})", r.report.name, r.report.trust_domain, r.report.pid),
        ),
        Node::Silent(why) => {
            Check::fail("node", why.clone(), "look at its log; if it hangs, stop it and run `beemesh up`")
        }
        Node::None => Check::ok("node", format!("none runs on {}: what follows is whether one could", data.display())),
    }
}

pub(super) fn rights(is_root: bool) -> Check {
    if is_root {
        return Check::ok("rights", "root, as pods need it");
    }
    Check::warn("rights", "not root: a node without pods works so", "as root, or `beemesh up --runtime none`")
}

pub(super) fn clock(clock: &Clock) -> Check {
    let by_ntp = "set the clock by NTP (systemd-timesyncd or chrony)";
    if clock.now < clock.built {
        let detail = format!(
            "it is {} here, before this program was put on the disk ({})",
            clock.now.rfc3339(),
            clock.built.rfc3339()
        );
        return Check::fail("clock", detail, by_ntp);
    }
    if let Some((from, to)) = clock.svid
        && !(from <= clock.now && clock.now <= to)
    {
        let (now, from, to_told) = (clock.now.rfc3339(), from.rfc3339(), to.rfc3339());
        let detail = format!("it is {now} here, and the node's certificate is good from {from} to {to_told}");
        let remedy = "set the clock by NTP; if it is right, see in the node's log why the certificate was not renewed";
        // A certificate that nobody renewed is taken a while longer.
        if to < clock.now && clock.now <= to + GRACE {
            let until = (to + GRACE).rfc3339();
            return Check::warn("clock", format!("{detail}; other nodes take it until {until}"), remedy);
        }
        return Check::fail("clock", detail, remedy);
    }
    // The one in the middle: one peer's clock that is wrong is that peer's matter.
    let mut ahead: Vec<i64> = clock.peers_ahead_ms.clone();
    ahead.sort_unstable();
    let middle = ahead.get(ahead.len() / 2).copied();
    let apart = middle.map_or(0, i64::unsigned_abs);
    let peers = match middle {
        None => "no peer to compare it with".to_owned(),
        Some(ms) if ms < 0 => format!("{apart} ms ahead of the middle of {} peers", ahead.len()),
        Some(_) => format!("{apart} ms behind the middle of {} peers", ahead.len()),
    };
    match (clock.is_synchronised, apart) {
        (_, REFUSED_MS..) => Check::fail("clock", format!("{peers}: certificates fail by that"), by_ntp),
        (_, APART_MS..) => Check::warn("clock", format!("{peers}: a leader so far off hands over"), by_ntp),
        (Some(false), _) => {
            Check::warn("clock", format!("the system says that it is not synchronised; {peers}"), by_ntp)
        }
        (Some(true), _) => Check::ok("clock", format!("synchronised, by what the system says; {peers}")),
        (None, _) => {
            Check::ok("clock", format!("{peers}; whether it is synchronised, systemd-timesyncd does not say here"))
        }
    }
}

pub(super) fn disk(disk: &Disk, data: &Path) -> Check {
    let at = data.display();
    let (free, sync) = match disk {
        Disk::Unreadable(why) => {
            return Check::fail(
                "disk",
                format!("{at}: {why}"),
                "run this as the user who runs the node, or give --data",
            );
        }
        Disk::Read { free_bytes, all_bytes, free_inodes, sync } => {
            let free = format!("{} of {} are free", size(*free_bytes), size(*all_bytes));
            let remedy = "free some space, or move the data directory";
            if *free_bytes < FREE_MIN || *free_inodes == 0 {
                return Check::fail(
                    "disk",
                    format!("{at}: {free}, and {free_inodes} inodes: only deletes are taken soon"),
                    remedy,
                );
            }
            if *free_bytes < all_bytes / 10 {
                return Check::warn("disk", format!("{at}: {free}: the node says DiskPressure below a tenth"), remedy);
            }
            (free, sync)
        }
    };
    let faster = "every write that is acknowledged waits for that: put the data directory on a faster disk";
    match sync {
        None => Check::ok("disk", format!("{at}: {free}; nothing was written, since there is no data directory yet")),
        Some(Err(why)) => Check::fail(
            "disk",
            format!("{at}: a small write failed: {why}"),
            "run this as the user who runs the node; if it is that user, see to the disk",
        ),
        Some(Ok(took)) if *took >= SYNC_TOO_SLOW => {
            Check::fail("disk", format!("{at}: {free}; a small write was durable after {}", ms(*took)), faster)
        }
        Some(Ok(took)) if *took >= SYNC_SLOW => {
            Check::warn("disk", format!("{at}: {free}; a small write was durable after {}", ms(*took)), faster)
        }
        Some(Ok(took)) => Check::ok("disk", format!("{at}: {free}; a small write was durable after {}", ms(*took))),
    }
}

/// Whether others reach this node, by what links show: nobody tells a node how it is seen.
pub(super) fn reach(seeing: Option<&Seeing>) -> Check {
    let Some(s) = seeing else { return Check::ok("reach", "no peer yet") };
    let own = if s.own_addresses.is_empty() { "none".to_owned() } else { s.own_addresses.join(", ") };
    match (s.dialled_there, s.dialled_here) {
        (0, 0) => Check::ok("reach", format!("no peer yet; others are told: {own}")),
        (0, _) => Check::warn(
            "reach",
            format!(
                "all {} links were dialled here: whether others reach this node at {own} was not seen",
                s.dialled_here
            ),
            "if it is behind a router, forward a UDP port to it and say so with --advertise ADDR:PORT",
        ),
        (n, _) => Check::ok(
            "reach",
            format!("{n} of {} links were dialled by others; they are told: {own}", n + s.dialled_here),
        ),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

fn ms(took: Duration) -> String {
    format!("{}.{} ms", took.as_millis(), took.as_micros() / 100 % 10)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use base::Wall;

    const NOW: Wall = Wall(1_769_846_400_000);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_clock_is_judged_by_certificates_peers_and_the_system() {
        let good = Clock {
            now: NOW,
            built: NOW - HOUR,
            svid: Some((NOW - HOUR, NOW + HOUR)),
            is_synchronised: Some(true),
            peers_ahead_ms: vec![3, -2, 90_000],
        };
        for (clock, level, words) in [
            (good.clone(), Level::Ok, "3 ms behind the middle of 3 peers"),
            (
                Clock { peers_ahead_ms: vec![], is_synchronised: None, ..good.clone() },
                Level::Ok,
                "no peer to compare it with; whether",
            ),
            (Clock { is_synchronised: Some(false), ..good.clone() }, Level::Warn, "not synchronised"),
            (
                Clock { peers_ahead_ms: vec![-600], ..good.clone() },
                Level::Warn,
                "600 ms ahead of the middle of 1 peers",
            ),
            (Clock { peers_ahead_ms: vec![300_000, 300_001], ..good.clone() }, Level::Fail, "certificates fail"),
            (Clock { peers_ahead_ms: vec![i64::MIN], ..good.clone() }, Level::Fail, "certificates fail"),
            (
                Clock { svid: Some((NOW + HOUR, NOW + HOUR)), ..good.clone() },
                Level::Fail,
                "the node's certificate is good from",
            ),
            (
                Clock { svid: Some((NOW - HOUR * 2, NOW - HOUR)), ..good.clone() },
                Level::Warn,
                "other nodes take it until",
            ),
            (
                Clock { svid: Some((NOW - HOUR * 99, NOW - HOUR * 25)), ..good.clone() },
                Level::Fail,
                "the node's certificate is good from",
            ),
            (Clock { built: NOW + HOUR, ..good.clone() }, Level::Fail, "before this program"),
        ] {
            let check = super::clock(&clock);
            assert!(check.level == level && check.detail.contains(words), "{check:?}");
            assert_eq!(check.level == Level::Ok, check.remedy.is_empty(), "{check:?}");
        }
    }

    #[test]
    fn a_disk_is_judged_by_its_room_and_by_how_soon_a_write_is_durable() {
        let read =
            |free: u64, sync| Disk::Read { free_bytes: free << 20, all_bytes: 10_000 << 20, free_inodes: 5, sync };
        let took = |ms| Some(Ok(Duration::from_millis(ms)));
        for (disk, level, words) in [
            (read(5000, took(1)), Level::Ok, "4 GiB of 9 GiB are free; a small write was durable after 1.0 ms"),
            (read(5000, None), Level::Ok, "no data directory yet"),
            (read(5000, took(20)), Level::Warn, "after 20.0 ms"),
            (read(5000, took(1000)), Level::Fail, "after 1000.0 ms"),
            (read(5000, Some(Err("no".to_owned()))), Level::Fail, "failed: no"),
            (read(999, took(1)), Level::Warn, "DiskPressure"),
            (read(255, took(1)), Level::Fail, "255 MiB"),
            (Disk::Unreadable("no".into()), Level::Fail, "/d: no"),
        ] {
            let check = super::disk(&disk, Path::new("/d"));
            assert!(check.level == level && check.detail.contains(words), "{check:?}");
        }
        let no_inodes = Disk::Read { free_bytes: 1 << 40, all_bytes: 2 << 40, free_inodes: 0, sync: None };
        assert_eq!(super::disk(&no_inodes, Path::new("/d")).level, Level::Fail);
    }

    #[test]
    fn a_node_that_nobody_dialled_may_not_be_reached() {
        let seeing = |here, there| Seeing {
            dialled_here: here,
            dialled_there: there,
            own_addresses: vec!["192.0.2.1:7443".into()],
        };
        assert_eq!(reach(None), Check::ok("reach", "no peer yet"));
        for (here, there, level, words) in [
            (0, 0, Level::Ok, "no peer yet; others are told: 192.0.2.1:7443"),
            (2, 0, Level::Warn, "all 2 links were dialled here"),
            (1, 1, Level::Ok, "1 of 2 links were dialled by others"),
        ] {
            let check = reach(Some(&seeing(here, there)));
            assert!(check.level == level && check.detail.contains(words), "{check:?}");
        }
    }

    #[test]
    fn root_is_needed_for_pods_only() {
        assert_eq!((rights(true).level, rights(false).level), (Level::Ok, Level::Warn));
    }
}
