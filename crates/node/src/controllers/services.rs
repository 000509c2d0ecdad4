//! What is behind services: which of them a change concerns, and what their endpoints are made of.

use super::{Controller, Controllers};
use crate::cell::{Objects, Role};
use decide::controllers::allotment::Known;
use decide::controllers::kubernetes_service::{self, Have};
use decide::controllers::{Action, Plan, Pod, Target, endpoint_slices, endpoints, mirroring, slices};
use objects::Tree;
use objects::allotment::{self, Item, Wanted};
use objects::kinds;
use objects::record::{Meta, Stored};
use objects::request::Key;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

pub(super) const SERVICE: &str = "Service";
pub(super) const ENDPOINTS: &str = "Endpoints";
pub(super) const SLICE: &str = "EndpointSlice.discovery.k8s.io";

/// Where the API is served.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Gateways {
    pub addresses: Vec<Ipv4Addr>,
    pub port: u16,
}

impl Controllers {
    /// The gateways are now these.
    pub(super) fn gateways_changed(&mut self, addresses: &[IpAddr], port: u16) {
        let v4 = |a: &IpAddr| match a {
            IpAddr::V4(a) => Some(*a),
            IpAddr::V6(_) => None,
        };
        let mut addresses: Vec<Ipv4Addr> = addresses.iter().filter_map(v4).collect();
        addresses.sort();
        addresses.dedup();
        let gateways = Gateways { addresses, port };
        if gateways != self.gateways {
            self.gateways = gateways;
            self.look_at_kubernetes();
        }
    }

    /// The service `kubernetes`, if it is this cell's.
    pub(super) fn look_at_kubernetes(&mut self) {
        if self.leading && matches!(&self.config.role, Role::Namespace(n) if &**n == "default") {
            self.add(Controller::Kubernetes, service_key(kubernetes_service::NAME));
        }
    }

    /// A service, its Endpoints or a slice of it changed.
    pub(super) fn look_at_service(&mut self, key: &Key, before: Option<&Meta>, after: Option<&Meta>) {
        if &*key.name == kubernetes_service::NAME {
            self.look_at_kubernetes();
        }
        match &*key.storage {
            SERVICE => {
                // Its Endpoints go with it, whoever made them; a slice goes as what it owns.
                if after.is_none() {
                    self.serviceless.insert(key.name.clone());
                } else {
                    self.serviceless.remove(&key.name);
                }
                self.add_service(&key.name);
            }
            ENDPOINTS => self.add_service(&key.name),
            _ => {
                let names: Vec<Box<str>> = [before, after]
                    .into_iter()
                    .flatten()
                    .filter_map(|m| m.label(slices::SERVICE_NAME).map(Box::from))
                    .collect();
                for name in names {
                    self.add(Controller::EndpointSlices, service_key(&name));
                    self.add(Controller::Mirroring, service_key(&name));
                }
            }
        }
    }

    /// A service changed: it may have given up what root has handed out.
    pub(super) fn look_at_allotment_of(&mut self, before: Option<&Stored>, after: Option<&Stored>) {
        let Some(before) = before else { return };
        let Some((held, _)) = self.bundle.allotment(self.config.cell) else { return };
        let left = after.map(|s| allotment::used_by(&s.tree())).unwrap_or_default();
        let mut given_up = false;
        for item in allotment::used_by(&before.tree()).difference(&left) {
            let reserved = held.reserved.iter().find(|r| r.item == *item);
            self.freed.extend(reserved.filter(|r| !self.freed.contains(r)).cloned());
            given_up |= held.allows(*item);
        }
        if given_up {
            self.look_at_allotment();
        }
    }

    /// What root has handed out may not be used any more, or not be what is used.
    pub(super) fn look_at_allotment(&mut self) {
        self.add(Controller::Allotment, Key { storage: allotment::STORAGE.into(), name: "".into() });
    }

    /// Root's objects changed: perhaps what it has handed out.
    pub(super) fn look_at_handing_out(&mut self) {
        let cell = self.config.cell;
        let revision = self.bundle.allotted(cell);
        if self.allotted != revision {
            self.allotted = revision;
            self.returning = self.bundle.ending(cell);
            self.look_at_allotment();
        }
    }

    /// What is being returned can be, once the log is bound.
    pub(super) fn look_at_returning(&mut self, bound: u64) {
        if self.returning.is_some_and(|at| bound >= at.get()) {
            self.returning = None;
            self.look_at_allotment();
        }
    }

    pub(super) fn plan_allotment(&mut self, objects: &Objects) -> Plan {
        let Role::Namespace(namespace) = &self.config.role else { return Plan::default() };
        let found = self.bundle.allotment(self.config.cell);
        let (held, record) = found.map_or_else(Default::default, |(held, record)| (held, Some(record)));
        let mut used: BTreeSet<Item> = objects.list(SERVICE).flat_map(|(_, s)| allotment::used_by(&s.tree())).collect();
        used.remove(&Item::Address(self.config.settings.services.api()));
        self.freed.retain(|f| held.reserved.contains(f) && !used.contains(&f.item));
        let is_bound = objects.bundle() >= held.revision.get();
        let intent = self.config.settings.intent;
        let known = Known { used: &used, freed: &self.freed, is_bound, intent };
        let uid = self.config.cell.to_string();
        let lacking = Wanted { namespace: namespace.to_string(), uid, ..Wanted::default() };
        decide::controllers::allotment::plan(record.as_deref(), &lacking, known, self.now.wall)
    }

    fn add_service(&mut self, name: &str) {
        for controller in [Controller::Endpoints, Controller::EndpointSlices, Controller::Mirroring] {
            self.add(controller, service_key(name));
        }
    }

    /// The services that select a pod.
    pub(super) fn look_at_services_of(&mut self, meta: &Meta) {
        let keys: Vec<Key> = self.index.selecting(SERVICE, meta).cloned().collect();
        for key in keys {
            self.add(Controller::Endpoints, key.clone());
            self.add(Controller::EndpointSlices, key);
        }
    }

    pub(super) fn plan_endpoints(&mut self, objects: &Objects, name: &str, service: Option<Stored>) -> Plan {
        let have = objects.get(ENDPOINTS, name);
        let Some(service) = service else {
            let lost = self.serviceless.remove(name);
            let ours = |s: &Stored| s.meta.label(endpoints::MANAGED_BY) == Some(endpoints::CONTROLLER);
            let kind = kinds::by_storage(ENDPOINTS);
            return match (have.filter(|h| lost || ours(h)), kind) {
                (Some(have), Some(kind)) => {
                    let target = Target::new(kind, name, &have.meta);
                    let delete = Action::Delete { target, revision: None, propagation: "", grace: None };
                    Plan { actions: vec![delete], ..Plan::default() }
                }
                _ => Plan::default(),
            };
        };
        let service = service.tree();
        let have = have.map(|h| h.tree());
        let pods = self.selected(&service);
        endpoints::plan(&service, &pods.iter().map(|p| &**p).collect::<Vec<_>>(), have.as_ref())
    }

    pub(super) fn plan_slices(&self, objects: &Objects, service: &Stored) -> Plan {
        let service = service.tree();
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        let pods = self.selected(&service);
        endpoint_slices::plan(&service, &pods.iter().map(|p| &**p).collect::<Vec<_>>(), &slices_of(objects, name))
    }

    pub(super) fn plan_mirror(&self, objects: &Objects, name: &str, service: Option<&Stored>) -> Plan {
        let hand_made = objects.get(ENDPOINTS, name).map(|s| s.tree());
        let service = service.map(Stored::tree);
        mirroring::plan(hand_made.as_ref(), service.as_ref(), &slices_of(objects, name))
    }

    pub(super) fn plan_kubernetes(&self, objects: &Objects) -> Plan {
        let get = |storage: &str| objects.get(storage, kubernetes_service::NAME).map(|s| s.tree());
        let (service, endpoints, slice) = (get(SERVICE), get(ENDPOINTS), get(SLICE));
        let have = Have { service: service.as_ref(), endpoints: endpoints.as_ref(), slice: slice.as_ref() };
        // The first address of the services is the API's.
        let address = self.config.settings.services.api();
        kubernetes_service::plan(&have, address, &self.gateways.addresses, self.gateways.port)
    }

    /// The pods a service selects.
    fn selected(&self, service: &Tree) -> Vec<Cow<'_, Pod>> {
        let Some(selector) = decide::controllers::backends::selector(service) else { return Vec::new() };
        let pairs = service["spec"]["selector"].as_object().into_iter().flatten();
        let pairs: Vec<(&str, &str)> = pairs.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect();
        let chosen = self.index.labelled(&pairs).filter(|p| p.is_selected(&selector));
        chosen.map(|p| self.serving(p)).collect()
    }
}

fn service_key(name: &str) -> Key {
    Key { storage: SERVICE.into(), name: name.into() }
}

/// All slices of a service, whoever makes them.
fn slices_of(objects: &Objects, name: &str) -> Vec<Tree> {
    let all = objects.list(SLICE).filter(|(_, s)| s.meta.label(slices::SERVICE_NAME) == Some(name));
    all.map(|(_, s)| s.tree()).collect()
}
