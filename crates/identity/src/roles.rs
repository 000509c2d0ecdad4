//! What a node may do in the mesh, and the extension of an SVID that says so.
//!
//! Like the extension of issuing certificates ([`crate::scope`]) it is not critical, so that foreign
//! verifiers accept our chains; ours read it, and a chain without it proves no role.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// The extension's object identifier: the next in the arc of [`crate::scope::OID`].
pub const OID: &[u64] = &[2, 25, 1_739_406_127, 2];

/// Names the extension's format, first in its text.
const FORMAT: &str = "beemesh-roles/1 ";

/// A set of roles. Printed and read as `authority,keeper,gateway,worker`, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Roles(u8);

/// A text that should have been roles.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a list of roles: write some of authority,keeper,gateway,worker with commas between them")]
pub struct RolesError {
    text: String,
}

const NAMES: [(Roles, &str); 4] = [
    (Roles::AUTHORITY, "authority"),
    (Roles::KEEPER, "keeper"),
    (Roles::GATEWAY, "gateway"),
    (Roles::WORKER, "worker"),
];

impl Roles {
    /// No role at all.
    pub const NONE: Roles = Roles(0);
    /// Keeps root and its authority's key.
    pub const AUTHORITY: Roles = Roles(1);
    /// Keeps cells.
    pub const KEEPER: Roles = Roles(2);
    /// Serves the Kubernetes API.
    pub const GATEWAY: Roles = Roles(4);
    /// Runs pods.
    pub const WORKER: Roles = Roles(8);
    /// All four: what a ticket grants unless it is narrowed.
    pub const ALL: Roles = Roles(15);

    /// Are all of `others` among these?
    pub const fn contains(self, others: Roles) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those of these that are not among `others`.
    #[must_use]
    pub const fn without(self, others: Roles) -> Roles {
        Roles(self.0 & !others.0)
    }

    /// Is there none?
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as a byte: authority 1, keeper 2, gateway 4, worker 8. Kept for ever.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set of a byte; `None` if it holds a role this release does not know.
    pub const fn from_bits(bits: u8) -> Option<Roles> {
        if bits & !Roles::ALL.0 == 0 { Some(Roles(bits)) } else { None }
    }

    /// The extension's content: a DER UTF8String.
    pub fn to_der(self) -> Vec<u8> {
        let text = format!("{FORMAT}{self}");
        // At most 16 + 31 bytes: one length octet is enough.
        let mut der = vec![0x0c, text.len().min(127) as u8];
        der.extend_from_slice(text.as_bytes());
        der
    }

    /// Reads the extension's content; `None` if it is of another format. A role that this release does not
    /// know is passed over: it proves nothing here, and takes nothing from those that are known.
    pub fn from_der(der: &[u8]) -> Option<Roles> {
        let (&[tag, length], text) = der.split_first_chunk()?;
        if tag != 0x0c || usize::from(length) != text.len() || length > 127 {
            return None;
        }
        let list = std::str::from_utf8(text).ok()?.strip_prefix(FORMAT)?;
        Some(list.split(',').filter_map(named).fold(Roles::NONE, Roles::bitor))
    }
}

fn named(name: &str) -> Option<Roles> {
    NAMES.iter().find(|(_, n)| *n == name).map(|(role, _)| *role)
}

impl BitOr for Roles {
    type Output = Roles;
    fn bitor(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let held = NAMES.iter().filter(|(role, _)| self.contains(*role));
        for (i, (_, name)) in held.enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Roles {
    type Err = RolesError;

    /// Any order, spaces around the commas; at least one.
    fn from_str(text: &str) -> Result<Roles, RolesError> {
        let roles = text.split(',').map(|name| named(name.trim()));
        let roles = roles.reduce(|a, b| Some(a? | b?)).flatten();
        roles.ok_or_else(|| RolesError { text: text.chars().take(100).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_back_what_they_print() {
        for bits in 1..16 {
            let roles = Roles::from_bits(bits).unwrap();
            assert_eq!(roles.to_string().parse(), Ok(roles));
            assert_eq!(Roles::from_der(&roles.to_der()), Some(roles));
        }
        assert_eq!(Roles::from_bits(16), None);
        assert_eq!(" worker, keeper".parse::<Roles>().unwrap().to_string(), "keeper,worker");
        for bad in ["", ",", "keeper,", "keeper,king", "Keeper", "none", "keeper worker"] {
            let said = bad.parse::<Roles>().unwrap_err().to_string();
            assert!(said.contains("authority,keeper,gateway,worker"), "{said}");
        }
    }

    #[test]
    fn a_role_of_a_newer_release_takes_nothing_from_those_known() {
        // Kept for ever: certificates in the field say this.
        assert_eq!(Roles::ALL.to_der(), b"\x0c\x2fbeemesh-roles/1 authority,keeper,gateway,worker");
        assert_eq!(Roles::from_der(b"\x0c\x1ebeemesh-roles/1 keeper,scribex"), Some(Roles::KEEPER));
        for other in [
            &b""[..],
            b"\x0c",
            b"\x0c\x16beemesh-roles/2 keeper",
            b"\x0c\x17beemesh-roles/1 keeper",
            b"\x04\x16beemesh-roles/1 keeper",
        ] {
            assert_eq!(Roles::from_der(other), None, "{other:?}");
        }
        assert_eq!(Roles::from_der(b"\x0c\x16beemesh-roles/1 keeper"), Some(Roles::KEEPER));
    }
}
