//! `/beemesh/issue/1`: certificates that a node cannot issue itself. One stream, one question, one answer.
//!
//! | | layout (numbers big-endian) |
//! |---|---|
//! | question | version `u8` 1, kind `u8` (1 SVID, 2 gateway, 3 issuing key), name length `u8`, name, request |
//! | answer | version `u8` 1, `u8` 1 and the chain, or `u8` 2 and a letter |
//!
//! Request and chain are identity's own bytes, which name their versions themselves. The end of the stream ends either.
//!
//! What root keeps of the asker decides: its name, its roles, whether it was expelled. While root is out of reach an SVID
//! is renewed with the roles that the present one proves, so that a node of a mesh whose root is down stays a node.

use crate::backend::Node;
use crate::driver::clock;
use crate::join;
use crate::membership as kept;
use crate::net::ISSUE;
use ::mesh::{Mesh, Streams};
use base::{NodeId, Wall};
use identity::request::{decode_chain, encode_chain};
use identity::upkeep::Want;
use identity::{AskedIssuer, Chain, Contact, Identity, IssuerScope, Roles, SpiffeId, Upkeep};
use objects::membership::Member;
use objects::status::{Reason, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const VERSION: u8 = 1;
const QUESTION_MAX: u64 = 64 << 10;
const ANSWER_MAX: u64 = 128 << 10;
/// Questions answered at once; whoever asks beyond it is turned away, and asks another or again.
const AT_ONCE: usize = 16;
/// For one question and its answer.
const WITHIN: Duration = Duration::from_secs(20);
/// How long root is waited for before the present SVID's word is taken.
const ROOT_WITHIN: Duration = Duration::from_secs(5);
/// How many nodes are asked before the asker waits for the next time.
const ASKED_MAX: usize = 8;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Svid = 1,
    Gateway = 2,
    Issuer = 3,
}

/// One question.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Question {
    kind: Kind,
    /// The asker's name, under which root keeps it.
    name: String,
    request: Vec<u8>,
}

impl Question {
    fn encode(&self) -> Vec<u8> {
        // A node's name has 63 bytes at most.
        let name = self.name.as_bytes().get(..self.name.len().min(255)).unwrap_or_default();
        [&[VERSION, self.kind as u8, name.len() as u8], name, &self.request].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Question, String> {
        let newer = || "the question is of a newer release: update beemesh on the node that was asked".to_owned();
        let cut = || "the question ends too early".to_owned();
        let [version, kind, length, rest @ ..] = bytes else { return Err(cut()) };
        if *version != VERSION {
            return Err(newer());
        }
        let kind = match kind {
            1 => Kind::Svid,
            2 => Kind::Gateway,
            3 => Kind::Issuer,
            _ => return Err(newer()),
        };
        let (name, request) = rest.split_at_checked(usize::from(*length)).ok_or_else(cut)?;
        let name = std::str::from_utf8(name).map_err(|_| "the asker's name is no text".to_owned())?;
        Ok(Question { kind, name: name.to_owned(), request: request.to_vec() })
    }
}

fn answer_bytes(answer: &Result<Chain, String>) -> Vec<u8> {
    match answer {
        Ok(chain) => [&[VERSION, 1][..], &encode_chain(chain)].concat(),
        Err(why) => [&[VERSION, 2][..], why.as_bytes()].concat(),
    }
}

fn answer_of(bytes: &[u8]) -> Result<Chain, String> {
    match bytes {
        [VERSION, 1, chain @ ..] => decode_chain(chain).map_err(|e| e.to_string()),
        [VERSION, 2, why @ ..] => {
            Err(String::from_utf8_lossy(why).chars().filter(|c| !c.is_control()).take(500).collect())
        }
        [VERSION, ..] | [] => Err("the answer cannot be read".to_owned()),
        [_, ..] => Err("the answer is of a newer release: update beemesh here".to_owned()),
    }
}

/// Answers nodes that ask for certificates.
pub(crate) struct Issuing {
    backend: Arc<Node>,
    upkeep: Arc<Upkeep>,
    places: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
}

impl Issuing {
    pub(crate) fn new(backend: Arc<Node>, upkeep: Arc<Upkeep>, runtime: tokio::runtime::Handle) -> Issuing {
        Issuing { backend, upkeep, places: Arc::new(Semaphore::new(AT_ONCE)), runtime }
    }

    /// Answers the question on this stream, on a task of its own.
    pub(crate) fn serve(self: Arc<Self>, mut stream: Streams) {
        // To drop a stream is to refuse it.
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        self.runtime.clone().spawn(async move {
            let _place = place;
            let (peer, roles) = (stream.peer.node, stream.peer.roles);
            let mut question = Vec::new();
            let answered = async {
                (&mut stream.receive).take(QUESTION_MAX).read_to_end(&mut question).await.ok()?;
                let answer = self.decide(peer, roles, &question).await;
                if let Err(why) = &answer {
                    tracing::warn!(node = %peer, %why, "a node asked for a certificate and was refused");
                }
                stream.send.write_all(&answer_bytes(&answer)).await.ok()?;
                stream.send.shutdown().await.ok()
            };
            let _ = timeout(WITHIN, answered).await;
        });
    }

    async fn decide(&self, peer: NodeId, proven: Roles, question: &[u8]) -> Result<Chain, String> {
        let own = self.backend.identity();
        if !own.roles().contains(Roles::AUTHORITY | Roles::KEEPER) {
            return Err("this node certifies nothing: ask one with the roles authority and keeper".to_owned());
        }
        let question = Question::decode(question)?;
        if own.known().revocations.is_expelled(peer) {
            return Err("it was expelled from this mesh".to_owned());
        }
        let expelled = timeout(ROOT_WITHIN, kept::get(&self.backend, "Revocation", &peer.to_string())).await;
        if matches!(expelled, Ok(Ok(Some(_)))) {
            return Err("it was expelled from this mesh".to_owned());
        }
        let roles = self.roles(peer, proven, &question).await?;
        let registry = self.backend.driver().founding().registry;
        let now = clock::wall();
        let issuer = || {
            let held = self.upkeep.issuer(registry, &IssuerScope::Registry, now);
            held.map_err(|e| format!("this node cannot certify keys yet ({e}): ask another"))
        };
        match question.kind {
            Kind::Svid => {
                let id = SpiffeId::Node { trust_domain: own.trust_domain().clone(), node: peer };
                issuer()?.certify(&question.request, &id, roles, now).map_err(|e| e.to_string())
            }
            Kind::Gateway if roles.contains(Roles::GATEWAY) => {
                join::gateway(&*issuer()?, &question.request, &question.name, now)
            }
            Kind::Gateway => Err(format!("its roles are {roles}: it serves no API")),
            Kind::Issuer => {
                let asked = AskedIssuer::decode(&question.request).map_err(|e| e.to_string())?;
                may_issue(&asked, peer, roles, registry)?;
                let root = own.root().map_err(|e| e.to_string())?;
                root.certify_issuer(&asked, now).map(|der| vec![der]).map_err(|e| e.to_string())
            }
        }
    }

    /// The asker's roles as root has them. An SVID alone is renewed without root, by those it has.
    async fn roles(&self, peer: NodeId, proven: Roles, question: &Question) -> Result<Roles, String> {
        let asked = timeout(ROOT_WITHIN, kept::get(&self.backend, "Member", &question.name)).await;
        match asked {
            Ok(Ok(Some(object))) => {
                let member = Member::of(&object).filter(|m| m.node == peer);
                let member = member.ok_or_else(|| format!("the name {:?} is not its own", question.name))?;
                kept::roles_of(&member.roles).ok_or_else(|| "root names a role that is not known here".to_owned())
            }
            Ok(Ok(None)) => Err(format!("root knows no member {:?}: it left, or was removed", question.name)),
            // Only if root is not there: a root that is busy is asked again.
            Ok(Err(status)) if question.kind == Kind::Svid && is_away(&status) => Ok(proven),
            Err(_) if question.kind == Kind::Svid => Ok(proven),
            Ok(Err(status)) => Err(format!("root could not be asked who it is ({}): ask again", status.message)),
            Err(_) => Err("root is not in reach, and without it nothing but an SVID is renewed: ask again".to_owned()),
        }
    }
}

fn is_away(status: &Status) -> bool {
    matches!(status.reason, Reason::Timeout | Reason::ServiceUnavailable)
}

/// Who may have an issuing key: for the registry a node that keeps it, which every authority and keeper may.
fn may_issue(asked: &AskedIssuer, peer: NodeId, roles: Roles, registry: base::CellId) -> Result<(), String> {
    if asked.keeper != peer {
        return Err("it asks for another node's issuing key".to_owned());
    }
    if asked.scope != IssuerScope::Registry || asked.cell != registry {
        return Err("issuing keys are certified for the registry only".to_owned());
    }
    if !roles.contains(Roles::AUTHORITY | Roles::KEEPER) {
        return Err(format!("its roles are {roles}, and an issuing key of the registry needs authority and keeper"));
    }
    Ok(())
}

/// Asks others for what this node cannot issue.
pub(crate) struct Asking {
    pub(crate) identity: Arc<Identity>,
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) mesh: Arc<Mesh>,
    /// The node's name.
    pub(crate) name: String,
}

impl Asking {
    /// Asks for everything that is due. What nobody gave stays as it is; it is asked for again when the next time comes.
    pub(crate) async fn ask_for(&self, wants: Vec<Want>) {
        for want in wants {
            if let Err(why) = self.one(&want).await {
                tracing::warn!(?want, %why, "a certificate could not be renewed; the present one stays in use while it is good");
            }
        }
    }

    async fn one(&self, want: &Want) -> Result<(), String> {
        let text = |e: identity::IdentityError| e.to_string();
        match want {
            Want::Svid => {
                let request = self.identity.svid_request().map_err(text)?;
                let chain = self.ask(Kind::Svid, request.encode().map_err(text)?).await?;
                self.identity.take_svid(&request, chain, clock::wall()).map(drop).map_err(text)
            }
            Want::Gateway => {
                let Some(request) = self.upkeep.gateway_request().map_err(text)? else { return Ok(()) };
                let chain = self.ask(Kind::Gateway, request.encode().map_err(text)?).await?;
                self.upkeep.take_gateway(&request, chain, clock::wall()).map_err(text)
            }
            Want::Issuer(cell, scope) => {
                let request = self.identity.issuer_request(*cell, scope).map_err(text)?;
                let chain = self.ask(Kind::Issuer, request.encode().map_err(text)?).await?;
                let certificate = chain.into_iter().next().ok_or("the answer holds no certificate")?;
                self.upkeep.take_issuer(request, certificate, clock::wall()).map(drop).map_err(text)
            }
        }
    }

    /// Asks one after the other until one answers with what was asked for.
    async fn ask(&self, kind: Kind, request: Vec<u8>) -> Result<Chain, String> {
        let question = Question { kind, name: self.name.clone(), request }.encode();
        let mut whys = Vec::new();
        for node in self.whom() {
            match timeout(WITHIN, self.ask_one(node, &question)).await {
                Ok(Ok(chain)) => return Ok(chain),
                Ok(Err(why)) => whys.push(format!("{}: {why}", node.short())),
                Err(_) => whys.push(format!("{}: no answer within {} s", node.short(), WITHIN.as_secs())),
            }
        }
        if whys.is_empty() {
            return Err("no other node is known here".to_owned());
        }
        Err(whys.join("; "))
    }

    async fn ask_one(&self, node: NodeId, question: &[u8]) -> Result<Chain, String> {
        let mut stream = self.mesh.open(node, ISSUE).await.map_err(|e| e.to_string())?;
        let failed = |e: std::io::Error| e.to_string();
        stream.send.write_all(question).await.map_err(failed)?;
        stream.send.shutdown().await.map_err(failed)?;
        let mut answer = Vec::new();
        (&mut stream.receive).take(ANSWER_MAX).read_to_end(&mut answer).await.map_err(failed)?;
        answer_of(&answer)
    }

    /// Authorities there is a link to, then the others that are known.
    fn whom(&self) -> Vec<NodeId> {
        let linked = self.mesh.peers();
        let mut whom: Vec<NodeId> =
            linked.iter().filter(|p| p.roles.contains(Roles::AUTHORITY)).map(|p| p.node).collect();
        let known = self.identity.known();
        for Contact { node, addresses } in &known.contacts {
            self.mesh.hint(*node, addresses);
            let no_authority = linked.iter().any(|p| p.node == *node && !p.roles.contains(Roles::AUTHORITY));
            if !whom.contains(node) && !no_authority && *node != self.identity.node_id() {
                whom.push(*node);
            }
        }
        whom.truncate(ASKED_MAX);
        whom
    }
}

/// The issuing key of the registry, which every authority that keeps cells has: asked for if it is not there.
pub(crate) fn want_issuer(identity: &Identity, upkeep: &Upkeep, registry: base::CellId, now: Wall) {
    if identity.roles().contains(Roles::AUTHORITY | Roles::KEEPER) {
        // A node without root's key has it among its wants from now on.
        let _ = upkeep.issuer(registry, &IssuerScope::Registry, now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base::{CellId, Uid};
    use identity::IssuerRequest;

    #[test]
    fn questions_and_answers_read_back_and_damage_is_told() {
        let question = Question { kind: Kind::Gateway, name: "one".into(), request: vec![7, 8] };
        // Kept for ever: nodes of this release ask like this.
        assert_eq!(question.encode(), [1, 2, 3, b'o', b'n', b'e', 7, 8]);
        assert_eq!(Question::decode(&question.encode()), Ok(question));
        for bad in [&[][..], &[1], &[1, 1], &[2, 1, 0], &[1, 9, 0], &[1, 1, 5, b'x'], &[1, 1, 1, 0xff]] {
            assert!(Question::decode(bad).is_err(), "{bad:?}");
        }
        let chain: Chain = vec![vec![1, 2].into(), vec![3].into()];
        assert_eq!(answer_of(&answer_bytes(&Ok(chain.clone()))), Ok(chain));
        assert_eq!(answer_bytes(&Err("no".into())), [1, 2, b'n', b'o']);
        assert_eq!(answer_of(&[1, 2, b'n', 7, b'o']), Err("no".to_owned()));
        for bad in [&[][..], &[1], &[1, 3], &[2, 1], &[1, 1, 0xff]] {
            assert!(answer_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_issuing_key_of_the_registry_goes_to_its_keepers_only() {
        let (node, registry) = (NodeId([1; 32]), CellId(Uid(7)));
        let asked = |keeper, cell, scope| {
            let request = IssuerRequest::make(keeper, cell, scope, 0).unwrap();
            AskedIssuer::decode(&request.encode().unwrap()).unwrap()
        };
        let good = asked(node, registry, IssuerScope::Registry);
        assert_eq!(may_issue(&good, node, Roles::ALL, registry), Ok(()));
        let namespace = IssuerScope::Namespace("shop".into());
        for (asked, roles) in [
            (asked(NodeId([2; 32]), registry, IssuerScope::Registry), Roles::ALL),
            (asked(node, CellId(Uid(8)), IssuerScope::Registry), Roles::ALL),
            (asked(node, registry, namespace), Roles::ALL),
            (good.clone(), Roles::KEEPER | Roles::GATEWAY),
            (good, Roles::AUTHORITY),
        ] {
            assert!(may_issue(&asked, node, roles, registry).is_err(), "{asked:?} {roles}");
        }
    }
}
