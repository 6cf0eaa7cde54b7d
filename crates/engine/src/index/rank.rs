//! Numbers in order, as bits, and how many of them come before each.

use super::NO_MATCH;
use crate::huge;
use crate::prefetch::prefetch;

/// Places that have a row, where rows come in the order of their places: the row is the place's rank.
///
/// ```text
/// places 0, 3, 64  ->  block 0: bits 0 and 3, 0 before; block 1: bit 0, 2 before
/// ```
///
/// # Source
/// Jacobson 1989, "Space-efficient static trees and graphs": bits with counts beside them, here one for every 64, so
/// that a rank takes one look at memory.
#[derive(Debug)]
pub(super) struct Ranks {
    blocks: Vec<Block>,
    /// The block of the last place that was inserted, and that up to which blocks are counted.
    last: usize,
    counted: usize,
}

/// 64 places, in the 16 bytes that a processor reads at once.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
struct Block {
    bits: u64,
    num_before: u32,
}

const BLOCK_PLACES: usize = 64;

impl Ranks {
    pub(super) fn new(num_places: usize) -> Self {
        let num_blocks = num_places.div_ceil(BLOCK_PLACES);
        Self {
            blocks: huge::vec(Block::default(), num_blocks),
            last: 0,
            counted: 0,
        }
    }

    /// `place` is below the number of places, and above all that were inserted before.
    #[inline]
    pub(super) fn insert(&mut self, place: usize) {
        let (block, bit) = (place / BLOCK_PLACES, place % BLOCK_PLACES);
        debug_assert!(block >= self.last && self.blocks[block].bits >> bit == 0);
        self.blocks[block].bits |= 1 << bit;
        self.last = block;
    }

    /// Counts what was inserted since the last count. Comes before a look at it.
    pub(super) fn count(&mut self) {
        let begin = std::mem::replace(&mut self.counted, self.last);
        let blocks = self.blocks.get_mut(begin..=self.last).unwrap_or_default();
        let mut num_before = blocks.first().map_or(0, |block| block.num_before);
        for block in blocks {
            block.num_before = num_before;
            num_before += block.bits.count_ones();
        }
    }

    /// How many places before this one were inserted; [`NO_MATCH`] if this one was not.
    #[inline]
    pub(super) fn rank(&self, place: u64) -> u32 {
        let at = usize::try_from(place / BLOCK_PLACES as u64).unwrap_or(usize::MAX);
        // Past the end is nothing.
        let block = self.blocks.get(at).copied().unwrap_or_default();
        let bit = 1 << (place % BLOCK_PLACES as u64);
        let rank = block.num_before + (block.bits & (bit - 1)).count_ones();
        if block.bits & bit == 0 {
            NO_MATCH
        } else {
            rank
        }
    }

    /// Asks for the memory of a place that is about to be looked at.
    #[inline]
    pub(super) fn ask(&self, place: u64) {
        let at = usize::try_from(place / BLOCK_PLACES as u64).unwrap_or(usize::MAX);
        prefetch(self.blocks.get(at));
    }

    pub(super) fn num_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn ranks_are_those_of_a_map() {
        for (num_places, step) in [(1, 1), (64, 63), (65, 64), (1000, 7), (5000, 1)] {
            let inserted = (0..num_places).step_by(step);
            let map: BTreeMap<usize, u32> = inserted.zip(0..).collect();
            let mut ranks = Ranks::new(num_places);
            ranks.count();
            for &place in map.keys() {
                ranks.insert(place);
                if place % 11 == 5 {
                    ranks.count();
                    assert_eq!(ranks.rank(place as u64), map[&place]);
                }
            }
            ranks.count();
            for place in 0..num_places + 200 {
                let expected = map.get(&place).copied().unwrap_or(NO_MATCH);
                assert_eq!(
                    ranks.rank(place as u64),
                    expected,
                    "{place} of {num_places}"
                );
            }
            for place in [u64::MAX, u64::MAX - 63, 1 << 63, 1 << 32] {
                assert_eq!(ranks.rank(place), NO_MATCH);
            }
        }
    }
}
