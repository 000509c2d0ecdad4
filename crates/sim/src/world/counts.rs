//! What happened in a run, in numbers.

use std::fmt;

macro_rules! counts {
    ($($field:ident $name:literal),* $(,)?) => {
        /// What happened in a run.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        #[allow(missing_docs)] // each is the count of what it names
        pub struct Counts {
            $(pub $field: u64,)*
        }

        impl Counts {
            /// Each count with its name.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field)),*]
            }

            /// Adds those of another run.
            pub fn add(&mut self, other: &Counts) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counts! {
    writes "writes",
    reads "reads",
    refusals "refusals",
    retries "retries",
    events "events",
    resumed "watches resumed",
    joined "events over all namespaces",
    rejoined "watches over all namespaces resumed",
    lists "lists over all namespaces",
    cells "cells",
    terms "terms",
    crashes "crashes",
    torn "torn writes",
    rotten "rotten disks",
    snapshots "snapshots",
    joint "joint changes of keepers",
    begun "members begun by order",
    left "members that left",
    former "former members that said so",
    rewrites "rewrites",
    cuts "cuts",
    ambushes "ambushed elections",
    steps "steps",
    awards "awards",
    started "containers started",
    refused_pods "pods refused",
    node_crashes "node crashes",
    node_power_cuts "power cuts of nodes",
    away "container runtimes away",
    deployments "deployments",
    made "pods made by controllers",
    collected "secrets collected",
    services "services",
    returned "reservations returned",
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, n)) in self.named().into_iter().enumerate() {
            write!(f, "{}{n} {name}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
