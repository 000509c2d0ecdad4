//! What the whole mesh shares: no two services have the same address or node port, in whichever namespaces they are,
//! and none has what root has not handed out to its namespace.
//!
//! Root's record is looked at as soon as any replica has applied it, which is before anybody can have heard of it; a
//! service as soon as any replica of its cell has. So what is given back is seen to be free before another takes it.

use super::committed::{Committed, uid};
use super::{Checked, ensure};
use agree::cell::Member;
use base::CellId;
use objects::Tree;
use objects::allotment::{self, Allotment, Item};
use std::collections::{BTreeMap, BTreeSet};

/// What there is of services, all over the mesh.
pub struct Shared {
    root: Committed,
    cells: BTreeMap<CellId, Committed>,
    /// Who has it: the cell, and the service's uid.
    held: BTreeMap<Item, (CellId, String)>,
    allotments: BTreeMap<String, Allotment>,
    /// How many services were made, and how many reservations returned.
    pub made: u64,
    /// See [`Shared::made`].
    pub returned: u64,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            root: Committed::new(&[allotment::STORAGE]),
            cells: BTreeMap::new(),
            held: BTreeMap::new(),
            allotments: BTreeMap::new(),
            made: 0,
            returned: 0,
        }
    }
}

/// What a service has, read here once more. The API's own has the first address of all, which is handed out to nobody.
fn items_of(service: Option<&Tree>) -> BTreeSet<Item> {
    let Some(service) = service.filter(|s| s["spec"]["type"] != "ExternalName") else { return BTreeSet::new() };
    let meta = &service["metadata"];
    if meta["namespace"] == "default" && meta["name"] == "kubernetes" {
        return BTreeSet::new();
    }
    let spec = &service["spec"];
    let address = spec["clusterIP"].as_str().and_then(|a| a.parse().ok()).map(Item::Address);
    let ports = spec["ports"].as_array().into_iter().flatten().map(|p| &p["nodePort"]);
    let ports = ports.chain([&spec["healthCheckNodePort"]]).filter_map(|p| u16::try_from(p.as_u64()?).ok());
    address.into_iter().chain(ports.filter(|p| *p > 0).map(Item::Port)).collect()
}

fn items_in(a: &Allotment) -> BTreeSet<Item> {
    let blocks = a.blocks.iter().flat_map(|b| b.addresses()).map(Item::Address);
    blocks.chain(a.reserved.iter().map(|r| r.item)).collect()
}

impl Shared {
    /// Looks at a replica of root after its step.
    ///
    /// # Errors
    /// Two namespaces hold the same, or one has returned what a service of it uses.
    pub fn observe_root(&mut self, member: &Member) -> Checked {
        let (allotments, held, returned) = (&mut self.allotments, &self.held, &mut self.returned);
        self.root.observe(member, |_, change| {
            let Some(name) = change.after.as_ref().or(change.before.as_ref()) else { return Ok(()) };
            let name = name["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            // One that goes returns all of it.
            let new = change.after.as_ref().map(Allotment::of).unwrap_or_default();
            let all = items_in(&new);
            for (other, theirs) in allotments.iter().filter(|(n, _)| **n != name) {
                let both = items_in(theirs).intersection(&all).next().copied();
                ensure("shared", both.is_none(), || format!("{both:?} is handed out to {name} and to {other}"))?;
            }
            let old = allotments.insert(name.clone(), new).unwrap_or_default();
            for gone in items_in(&old).difference(&all) {
                *returned += 1;
                let user = held.get(gone).filter(|(cell, _)| cell.to_string() == name);
                ensure("shared", user.is_none(), || format!("{gone} was returned, and {user:?} uses it"))?;
            }
            Ok(())
        })
    }

    /// Looks at a replica of a namespace's cell after its step.
    ///
    /// # Errors
    /// A service has what another has, or what its namespace does not hold.
    pub fn observe(&mut self, cell: CellId, member: &Member) -> Checked {
        let committed = self.cells.entry(cell).or_insert_with(|| Committed::new(&["Service"]));
        let (allotments, held, made) = (&self.allotments, &mut self.held, &mut self.made);
        committed.observe(member, |_, change| {
            *made += u64::from(change.before.is_none());
            let (before, after) = (items_of(change.before.as_ref()), items_of(change.after.as_ref()));
            for item in before.difference(&after) {
                held.remove(item);
            }
            let service = change.after.as_ref().map(uid).unwrap_or_default();
            for item in after {
                let owner = (cell, service.to_owned());
                let other = held.insert(item, owner.clone()).filter(|o| *o != owner);
                ensure("shared", other.is_none(), || format!("{item} is {owner:?}'s, and {other:?}'s as well"))?;
                let has = |a: &Allotment| items_in(a).contains(&item);
                ensure("shared", allotments.get(&cell.to_string()).is_some_and(has), || {
                    format!("{item} is {owner:?}'s, and root has not handed it out to it")
                })?;
            }
            Ok(())
        })
    }

    /// The end of a run, when nothing has happened for long: what is not used is returned.
    ///
    /// # Errors
    /// Something is not.
    pub fn settled(&self) -> Checked {
        for (name, a) in &self.allotments {
            let left = a.reserved.iter().find(|r| r.ending || !self.held.contains_key(&r.item));
            ensure("shared", left.is_none(), || format!("{name} never returns {left:?}"))?;
            let idle = a.blocks.iter().filter(|b| !b.addresses().any(|ip| self.held.contains_key(&Item::Address(ip))));
            ensure("shared", idle.count() <= 1, || format!("{name} keeps blocks that nothing uses: {:?}", a.blocks))?;
        }
        Ok(())
    }
}
