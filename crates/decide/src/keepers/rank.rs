//! Which node would keep a cell best.

use super::Node;
use base::CellId;
use core::cmp::Reverse;

/// So many cells more weigh as much as one step of the rest.
const CELLS_A_STEP: usize = 8;

/// The greater, the better.
pub(super) type Rank = (Reverse<usize>, i64, Reverse<usize>, u64);

/// How well a node would keep the cell, of those that may. `in_zone` says how many keepers a node's zone has already.
pub(super) fn rank(cell: CellId, node: &Node, in_zone: usize) -> Rank {
    // Another zone first: what ends a zone is to leave a quorum. Then what makes it quick, what makes it last, and what
    // makes it fair, weighed against each other, so that the oldest node does not keep all.
    let near = 3 * i64::from(node.near.min(2));
    let stable = match node.up_for.as_secs() {
        0..600 => 0,
        600..3_600 => 2,
        3_600..86_400 => 4,
        _ => 6,
    };
    let load = i64::try_from(node.cells / CELLS_A_STEP).unwrap_or(i64::MAX);
    // Of equals each cell finds another one best.
    let tie = mix(cell, node);
    (Reverse(in_zone), (near + stable).saturating_sub(load), Reverse(node.cells), tie)
}

/// A number that depends on both.
pub(super) fn mix(cell: CellId, node: &Node) -> u64 {
    let bytes = cell.0.0.to_le_bytes().into_iter().chain(node.id.0);
    let h = bytes.fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (h ^ (h >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}
