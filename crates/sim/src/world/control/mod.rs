//! Controllers in the world: beside every cell that leads, the machine that ships, told what the program's driver
//! tells it; and people who make, change and remove what it works on.
//!
//! What a cell says to its controllers goes through an inbox, which another thread may come to late: it is told in
//! order, and answers may overtake it.

mod people;
mod services;

use super::scheduling::Then;
use super::{MS, SECOND, World};
use crate::checks::committed::Committed;
use crate::checks::deployment::{DEPLOYMENT, Deployments, POD, REPLICA_SET};
use crate::checks::owners::SECRET;
use crate::checks::shared::Shared;
use crate::checks::{Checked, deployment, owners};
use crate::ports::Bug;
use agree::cell::Member;
use base::{CellId, Chance, Time};
use node::bundle::Bundle;
use node::controllers::{Config, Controllers, Effect, Input};
use node::errand::{Answered, ErrandId};
use objects::request::Verb;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What happens to controllers.
pub(in crate::world) enum Happening {
    /// Somebody wants something.
    People,
    /// Somebody wants something of a service.
    Services,
    Wake {
        keeper: usize,
        boot: u64,
        cell: CellId,
    },
    /// The inbox is come to.
    Told {
        keeper: usize,
        boot: u64,
        cell: CellId,
        input: Input,
    },
}

/// The controllers of a cell at a keeper.
struct Beside {
    machine: Controllers,
    /// The term in which the cell leads here; 0 if it does not.
    term: u64,
    /// When it is woken next, and when what was told it last arrives, in virtual nanoseconds.
    woken_at: u64,
    told_at: u64,
}

/// The controllers' part of the world.
pub(in crate::world) struct Scene {
    dice: Chance,
    dice_of_services: Chance,
    beside: BTreeMap<(usize, CellId), Beside>,
    committed: Committed,
    deployments: Deployments,
    pub(super) shared: Shared,
    /// How many entries were told, for the bug at that port.
    entries: u64,
    made: u64,
    pub(super) collected: u64,
}

impl Scene {
    pub(super) fn new(chance: &Chance) -> Scene {
        Scene {
            dice: chance.stream("controllers"),
            dice_of_services: chance.stream("services"),
            beside: BTreeMap::new(),
            committed: Committed::new(&[DEPLOYMENT, REPLICA_SET, POD, SECRET]),
            deployments: Deployments::default(),
            shared: Shared::default(),
            entries: 0,
            made: 0,
            collected: 0,
        }
    }

    /// Looks at a replica of the cell of pods after its step.
    pub(super) fn observe(&mut self, member: &Member) -> Checked {
        let (deployments, made, collected) = (&mut self.deployments, &mut self.made, &mut self.collected);
        self.committed.observe(member, |all, change| {
            *made += u64::from(change.storage == DEPLOYMENT && change.before.is_none());
            *collected += u64::from(change.storage == SECRET && change.after.is_none());
            owners::changed(all, change)?;
            deployments.changed(all, change)
        })
    }

    /// How many Deployments were made, and pods by controllers.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.made, self.deployments.made())
    }
}

impl World {
    fn control(&mut self, delay: u64, happening: Happening) {
        self.at(delay, super::Event::Control(happening));
    }

    /// Once there is a namespace people come.
    pub(super) fn begin_control(&mut self) {
        if self.control.is_some() {
            self.control(300 * MS, Happening::People);
            self.control(300 * MS, Happening::Services);
        }
    }

    pub(super) fn happen_to_control(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::People => self.manage(),
            Happening::Services => self.serve(),
            Happening::Wake { keeper, boot, cell } if self.keepers[keeper].boot == boot => {
                if let Some(b) = self.beside(keeper, cell) {
                    b.woken_at = u64::MAX;
                }
                self.plan(keeper, cell, Input::Tick);
            }
            Happening::Told { keeper, boot, cell, input } if self.keepers[keeper].boot == boot => {
                self.plan(keeper, cell, input);
            }
            Happening::Wake { .. } | Happening::Told { .. } => {}
        }
        Ok(())
    }

    fn beside(&mut self, keeper: usize, cell: CellId) -> Option<&mut Beside> {
        self.control.as_mut()?.beside.get_mut(&(keeper, cell))
    }

    /// A cell that leads has applied an entry, or has begun to lead.
    pub(super) fn control_committed(&mut self, keeper: usize, cell: CellId, term: u64, input: Input) {
        let Some(up) = &self.keepers[keeper].up else { return };
        let bundle = up.bundle.clone();
        let Some(role) = up.seats.get(&cell).map(|s| s.role.clone()) else { return };
        let settings = &self.settings;
        let Some(s) = &mut self.control else { return };
        let b = s.beside.entry((keeper, cell)).or_insert_with(|| {
            let (ca_pem, settings) = ("PEM".into(), settings.clone());
            let machine = Controllers::new(Config { cell, role, ca_pem, settings }, bundle.clone());
            Beside { machine, term: 0, woken_at: u64::MAX, told_at: 0 }
        });
        if b.term != term {
            b.term = term;
            self.post(keeper, cell, Input::Leading(true));
            self.tell_nodes_to_controllers(keeper, cell);
            self.post(keeper, cell, Input::Bundle(bundle));
        } else if let Some(s) = &mut self.control {
            s.entries += 1;
            if self.bug == Bug::CommitUntold && s.entries.is_multiple_of(20) {
                return;
            }
        }
        self.post(keeper, cell, input);
    }

    /// A cell leads here no more. Its controllers stay: they know which of their errands are under way.
    pub(super) fn control_over(&mut self, keeper: usize, cell: CellId) {
        if let Some(b) = self.beside(keeper, cell) {
            b.term = 0;
            self.post(keeper, cell, Input::Leading(false));
        }
    }

    /// Its process has ended, or the cell is kept here no more.
    pub(super) fn control_gone(&mut self, keeper: usize, cell: Option<CellId>) {
        if let Some(s) = &mut self.control {
            s.beside.retain(|(k, c), _| *k != keeper || cell.is_some_and(|cell| cell != *c));
        }
    }

    /// Root's configuration is now this.
    pub(super) fn control_bundle(&mut self, keeper: usize, bundle: &Arc<Bundle>) {
        for cell in self.controlled(keeper) {
            self.post(keeper, cell, Input::Bundle(bundle.clone()));
        }
    }

    /// The cells that have controllers at a keeper.
    pub(super) fn controlled(&self, keeper: usize) -> Vec<CellId> {
        let all = self.control.iter().flat_map(|s| s.beside.keys());
        all.filter(|(k, _)| *k == keeper).map(|(_, cell)| *cell).collect()
    }

    /// Puts something into the inbox of a cell's controllers.
    pub(super) fn post(&mut self, keeper: usize, cell: CellId, input: Input) {
        let (now, faults, boot) = (self.now, self.faults, self.keepers[keeper].boot);
        let Some(s) = &mut self.control else { return };
        let late = faults && s.dice.happens(20_000);
        let delay = if late { s.dice.range(10, 300) } else { s.dice.below(3) } * MS;
        let Some(b) = s.beside.get_mut(&(keeper, cell)) else { return };
        b.told_at = b.told_at.max(now + delay);
        let delay = b.told_at - now;
        self.control(delay, Happening::Told { keeper, boot, cell, input });
    }

    /// An errand of a cell's controllers was answered.
    pub(super) fn control_answered(&mut self, keeper: usize, cell: CellId, id: ErrandId, mut answer: Answered) {
        let maker = (keeper, self.keepers[keeper].boot);
        let Some(s) = &mut self.control else { return };
        match &mut answer {
            Err(status) if status.code == 504 => s.deployments.unsure(maker),
            Ok(tree) if self.bug == Bug::CreationForgotten => {
                if let Some(meta) = tree["metadata"].as_object_mut() {
                    meta.remove("resourceVersion");
                }
            }
            _ => {}
        }
        self.plan(keeper, cell, Input::Answered { id, answer });
    }

    fn plan(&mut self, keeper: usize, cell: CellId, input: Input) {
        let now = self.keepers[keeper].now(self.now);
        let boot = self.keepers[keeper].boot;
        let Some(b) = self.beside(keeper, cell) else { return };
        let mut fx = Vec::new();
        b.machine.step(now, input, &mut fx);
        b.machine.check();
        for effect in fx {
            match effect {
                Effect::Errand { id, errand } => {
                    let pod = errand.verb == Verb::Create && errand.kind.storage == POD;
                    let uid = self.run_errand(Some(keeper), &errand, Then::Controllers { keeper, boot, cell, id });
                    if let (Some(s), true) = (&mut self.control, pod) {
                        s.deployments.asks((keeper, boot), uid.to_string());
                    }
                }
                Effect::Reasons { .. } => {}
            }
        }
        self.wake_control(keeper, cell);
    }

    fn wake_control(&mut self, keeper: usize, cell: CellId) {
        let (now, boot, clock) = (self.now, self.keepers[keeper].boot, self.keepers[keeper].clock);
        let Some(b) = self.beside(keeper, cell) else { return };
        let Some(at) = b.machine.next_deadline().filter(|t| *t != Time::NEVER) else { return };
        let at = clock.when(at).max(now + MS / 10);
        if at >= b.woken_at && b.woken_at > now {
            return;
        }
        b.woken_at = at;
        self.control(at - now, Happening::Wake { keeper, boot, cell });
    }

    pub(super) fn end_control(&self) -> Checked {
        let Some(s) = &self.control else { return Ok(()) };
        s.shared.settled()?;
        owners::settled(&s.committed)?;
        deployment::settled(&s.committed)
    }
}
