//! Root says who begins the cell of a namespace, in the commit that makes the Namespace.

use super::records::{key_bytes, stored};
use super::{Cell, Role};
use base::{CellId, Now, Uid};
use objects::Tree;
use objects::decision::Record;
use objects::membership::{self, FOUNDING, Founding};
use objects::request::{Key, Stored};

const NAMESPACE: &str = "Namespace";

impl Cell {
    /// To records of Namespaces that are made or removed: what root keeps of the beginning of their cells. It is this node
    /// that begins them; who keeps them from then on is decided beside their leaders.
    pub(super) fn add_foundings(&mut self, now: Now, records: &mut Vec<Record>) {
        if self.config.role != Role::Root {
            return;
        }
        let made = records.iter().filter(|r| &*r.key.storage == NAMESPACE && r.expected.is_none());
        let made: Vec<Tree> = made.filter_map(|r| serde_json::from_slice(&r.object.as_ref()?.1).ok()).collect();
        let gone = records.iter().filter(|r| &*r.key.storage == NAMESPACE && r.object.is_none());
        let gone: Vec<Tree> = gone.filter_map(|r| Some(self.newest(&r.key)?.tree())).collect();
        for namespace in made {
            records.extend(self.founding(now, &namespace));
        }
        for namespace in gone {
            let Some(key) = uid(&namespace).map(key) else { continue };
            let Some(known) = self.newest(&key) else { continue };
            let revision = self.member.cell_mut().mint(now.wall);
            records.push(Record { key, expected: Some(known.revision), revision, object: None });
        }
    }

    fn founding(&mut self, now: Now, namespace: &Tree) -> Option<Record> {
        let uid = uid(namespace)?;
        let kind = membership::kind("Founding")?;
        let founding = Founding { cell: CellId(uid), node: self.config.node, done: false };
        let mut tree = membership::object(kind.kind, &uid.to_string(), founding.spec());
        // One that is nobody else's: it differs from the namespace's in its last bit.
        tree["metadata"]["uid"] = Tree::String(Uid(uid.0 ^ 1).to_string());
        tree["metadata"]["creationTimestamp"] = Tree::String(now.wall.rfc3339());
        let revision = self.member.cell_mut().mint(now.wall);
        let s = Stored::from_tree(kind, tree, revision);
        Some(Record { key: key(uid), expected: None, revision, object: Some((s.meta, s.json)) })
    }

    /// A record as the entries in flight leave it.
    fn newest(&self, key: &Key) -> Option<Stored> {
        match self.flight.get(key) {
            Some(newest) => newest.cloned(),
            None => self.state().get(&key_bytes(&key.storage, &key.name)).map(|r| stored(r)),
        }
    }
}

fn uid(object: &Tree) -> Option<Uid> {
    object["metadata"]["uid"].as_str()?.parse().ok()
}

fn key(uid: Uid) -> Key {
    Key { storage: FOUNDING.into(), name: uid.to_string().into() }
}
