//! A few seeds of every day, and the proof that the checkers can fail.
#![allow(clippy::unwrap_used, clippy::panic)]

use sim::{Bug, Counts, run};

#[test]
fn a_smoke_of_seeds_is_clean() {
    let mut all = Counts::default();
    for seed in 0..60 {
        let counts = run(seed, Bug::None).unwrap_or_else(|v| panic!("seed {seed}: {}: {}", v.checker, v.what));
        all.add(&counts);
    }
    println!("{all}");
    let never: Vec<_> = all.named().into_iter().filter(|(_, n)| *n == 0).collect();
    assert!(never.is_empty(), "something never happened: {never:?}");
}

#[test]
fn one_seed_gives_one_history() {
    assert_eq!(run(3, Bug::None).unwrap(), run(3, Bug::None).unwrap());
}

/// Which checkers catch a bug within so many seeds: the first one.
fn caught(bug: Bug, seeds: u64) -> Option<(&'static str, u64)> {
    let found = (0..seeds).find_map(|s| run(s, bug).err().map(|v| (v.checker, s)));
    println!("{bug:?}: {found:?}");
    found
}

#[test]
fn an_acknowledgement_before_fsync_is_caught() {
    let (checker, _) = caught(Bug::AckBeforeFsync, 30).unwrap();
    // Whichever comes first: a replica applies something else in the place of what was forgotten, or logs it
    // there, or a client finds it gone, or a pod is not bound any more, or a service has what root knows nothing of.
    assert!(["applied", "log", "acknowledged", "award", "shared"].contains(&checker), "{checker}");
}

#[test]
fn a_vote_not_persisted_is_caught() {
    assert_eq!(caught(Bug::VoteNotPersisted, 40).unwrap().0, "election");
}

#[test]
fn a_read_without_quorum_is_caught() {
    assert_eq!(caught(Bug::ReadWithoutQuorum, 20).unwrap().0, "register");
}

#[test]
fn a_promise_forgotten_over_a_change_of_leader_is_caught() {
    assert_eq!(caught(Bug::ClosedForgotten, 120).unwrap().0, "frontier");
}

#[test]
fn an_award_before_its_commit_is_caught() {
    assert_eq!(caught(Bug::AwardBeforeCommit, 40).unwrap().0, "award");
}

#[test]
fn a_stop_that_stops_nothing_is_caught() {
    assert_eq!(caught(Bug::StopForgotten, 10).unwrap().0, "containers");
}

#[test]
fn an_entry_that_controllers_are_not_told_of_is_caught() {
    let (checker, _) = caught(Bug::CommitUntold, 30).unwrap();
    assert!(["deployment", "owners"].contains(&checker), "{checker}");
}

#[test]
fn a_creation_that_controllers_forget_is_caught() {
    assert_eq!(caught(Bug::CreationForgotten, 60).unwrap().0, "deployment");
}

#[test]
fn what_root_was_not_asked_for_is_caught() {
    assert_eq!(caught(Bug::RootUnasked, 10).unwrap().0, "shared");
}

#[test]
fn a_change_of_a_node_that_nobody_is_told_of_is_caught() {
    let (checker, _) = caught(Bug::NodeUntold, 10).unwrap();
    // Those who go by it may come to harm first.
    assert!(["nodes", "award"].contains(&checker), "{checker}");
}

#[test]
fn a_node_whose_signs_of_life_are_lost_is_caught() {
    // It takes a registry that has been led by one keeper for longer than a node may be silent.
    assert_eq!(caught(Bug::SignLost, 80).unwrap().0, "nodes");
}

#[test]
fn a_lost_event_is_caught() {
    assert_eq!(caught(Bug::EventLost, 5).unwrap().0, "watch");
}

#[test]
fn a_change_of_keepers_that_the_disk_forgets_is_caught() {
    let (checker, _) = caught(Bug::ChangeForgotten, 60).unwrap();
    assert!(["applied", "election", "log"].contains(&checker), "{checker}");
}

#[test]
fn a_member_ended_without_the_word_of_a_quorum_is_caught() {
    let (checker, _) = caught(Bug::EndUnasked, 120).unwrap();
    assert!(["acknowledged", "liveness"].contains(&checker), "{checker}");
}

#[test]
fn another_life_ended_than_the_one_that_was_named_is_caught() {
    let (checker, _) = caught(Bug::AnotherEnded, 120).unwrap();
    assert!(["liveness", "acknowledged"].contains(&checker), "{checker}");
}

#[test]
fn a_life_that_nobody_names_and_that_keeps_silent_is_caught() {
    assert_eq!(caught(Bug::FormerUnsaid, 40).unwrap().0, "keeping");
}

#[test]
fn a_cell_founded_anew_is_caught() {
    let (checker, _) = caught(Bug::FoundedAnew, 30).unwrap();
    assert!(["applied", "election"].contains(&checker), "{checker}");
}
