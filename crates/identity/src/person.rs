//! A person's client certificate, asked for from afar: the administrator's of a machine that joins. The key is made
//! where it will be used; what travels is its public half.

use crate::certificate::Credential;
use crate::codec::{self, MessageError, Reader, Writer};
use crate::request::{ForeignKey, fresh_key, joined, proven_key, with_proof};
use crate::{IdentityError, Peer, Verifier};
use base::Wall;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use std::fmt;

const CONTEXT: &str = "beemesh person request";
/// A user's name, or a group's.
const MAX_NAME: usize = 64;

/// A fresh key that waits for a person's certificate.
pub struct PersonRequest {
    name: String,
    group: String,
    key: KeyPair,
}

impl PersonRequest {
    /// Makes a key for somebody whom Kubernetes shall know as this user, in this group.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn make(name: &str, group: &str) -> Result<PersonRequest, IdentityError> {
        Ok(PersonRequest { name: name.to_owned(), group: group.to_owned(), key: fresh_key()? })
    }

    /// What travels to a node that keeps root, for [`crate::RootAuthority::certify_person`].
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn encode(&self) -> Result<Vec<u8>, IdentityError> {
        let written = Writer::new(codec::PERSON_REQUEST).bytes(self.name.as_bytes()).bytes(self.group.as_bytes());
        with_proof(&self.key, written, CONTEXT)
    }

    /// Joins the key with the chain that was answered.
    ///
    /// # Errors
    /// [`IdentityError::NotAsAsked`] unless the chain is good at `now` and names this person and this key.
    pub fn complete(
        &self,
        chain: Vec<CertificateDer<'static>>,
        verifier: &Verifier,
        now: Wall,
    ) -> Result<Credential, IdentityError> {
        let refuse = |why: String| IdentityError::NotAsAsked { what: format!("the person {}", self.name), why };
        let proven = verifier.client(&chain, now).map_err(|e| refuse(e.to_string()))?;
        match &proven.peer {
            Peer::Person { name, groups } if *name == self.name && *groups == [self.group.clone()] => {}
            other => return Err(refuse(format!("it names {other:?}"))),
        }
        joined(&self.key, chain).map_err(refuse)
    }
}

impl fmt::Debug for PersonRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request for a certificate of {} ({})", self.name, self.group)
    }
}

/// A [`PersonRequest`] as the one who is asked sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedPerson {
    /// The user it is for. Whoever certifies it decides whether the asker may be that.
    pub name: String,
    /// The user's group.
    pub group: String,
    pub(crate) key: ForeignKey,
}

impl AskedPerson {
    /// Reads what [`PersonRequest::encode`] wrote.
    ///
    /// # Errors
    /// If it is something else, or the asker does not have the key.
    pub fn decode(bytes: &[u8]) -> Result<AskedPerson, MessageError> {
        let mut r = Reader::open(codec::PERSON_REQUEST, bytes)?;
        let (name, group) = (r.text(MAX_NAME)?.to_owned(), r.text(MAX_NAME)?.to_owned());
        if name.is_empty() || group.is_empty() {
            return Err(r.damaged("it names nobody"));
        }
        Ok(AskedPerson { name, group, key: proven_key(r, CONTEXT)? })
    }
}
