//! The gear hash over every byte: which positions may end a chunk, whatever chunk they lie in (draft 5.3).
//!
//! A byte leaves the 64-bit hash after 64 shifts, and no chunk is tested before its 64th byte. So whether a
//! position is a candidate depends on the 64 bytes up to it alone, and data can be scanned in any order: in
//! several streams at once, since one alone is bound by the latency of its own shift and add.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::gear_avx512::Wide;

/// Bytes that determine a hash.
pub const WINDOW: usize = 64;

/// Streams of the plain scan. Measured on Zen 5: 2.0, 3.9, 4.9, 4.8 GB/s for 1 to 4.
const STREAMS: usize = 3;

/// Bytes of each stream between two looks at the loop's end.
const BLOCK: usize = 8;

type Block = [u8; BLOCK];

/// Where the data is such that more than one block in this many holds a candidate, streams do not pay.
const SPARSE: usize = 64;

/// A gear table and a cut mask, ready to scan with.
pub struct Gear {
    table: [u64; 256],
    cut_mask: u64,
    wide: Option<Wide>,
}

impl Gear {
    pub fn new(table: [u64; 256], cut_mask: u64) -> Self {
        Self { table, cut_mask, wide: Wide::new(&table) }
    }

    /// Append to `found`, in order, the ends of the positions in `range` whose hash has no bit of the cut mask.
    pub fn find(&self, data: &[u8], range: Range<usize>, found: &mut Vec<usize>) {
        let first = found.len();
        let rest = match &self.wide {
            Some(wide) => self.find_wide(wide, data, range, found),
            None => self.find_plain(data, range, found),
        };
        self.scan(data, rest, found);
        found[first..].sort_unstable();
    }

    /// Scan with one stream a SIMD lane, then each row that was hit again; returns what is left over at the end.
    fn find_wide(
        &self,
        wide: &Wide,
        data: &[u8],
        range: Range<usize>,
        found: &mut Vec<usize>,
    ) -> Range<usize> {
        let (starts, stride) = split::<{ Wide::LANES }>(&range, Wide::ROW);
        let streams = starts.map(|start| data[start..start + stride].as_chunks::<{ Wide::ROW }>().0);
        let hashes = starts.map(|start| self.hash_before(data, start));
        let mut hits = Vec::new();
        wide.find_rows(self.cut_mask, streams, hashes, &mut hits);
        for (row, lanes) in hits {
            for (lane, start) in starts.iter().enumerate() {
                if lanes >> lane & 1 == 1 {
                    let start = start + row * Wide::ROW;
                    self.scan(data, start..start + Wide::ROW, found);
                }
            }
        }
        range.start + Wide::LANES * stride..range.end
    }

    /// Scan with several streams that take turns; returns what is left over at the end.
    fn find_plain(&self, data: &[u8], range: Range<usize>, found: &mut Vec<usize>) -> Range<usize> {
        let (starts, stride) = split::<STREAMS>(&range, BLOCK);
        let streams = starts.map(|start| data[start..start + stride].as_chunks::<BLOCK>().0);
        let blocks = stride / BLOCK;
        let mut next = 0;
        let mut patience = blocks / SPARSE + 1;
        while next < blocks && patience > 0 {
            let hashes = starts.map(|start| self.hash_before(data, start + next * BLOCK));
            next = self.find_block(&streams, next, hashes);
            if next < blocks {
                for start in starts {
                    self.scan(data, start + next * BLOCK..start + (next + 1) * BLOCK, found);
                }
                next += 1;
                patience -= 1;
            }
        }
        for start in starts {
            self.scan(data, start + next * BLOCK..start + stride, found);
        }
        range.start + STREAMS * stride..range.end
    }

    /// The first block at or after `next` with a candidate in any of the streams, or their length.
    ///
    /// Indexed, not iterated: so the compiler keeps the hashes in registers.
    #[inline(never)]
    fn find_block(&self, streams: &[&[Block]; STREAMS], next: usize, mut hashes: [u64; STREAMS]) -> usize {
        let (table, cut_mask) = (&self.table, self.cut_mask);
        let blocks = streams[0].len();
        let streams: [&[Block]; STREAMS] = std::array::from_fn(|stream| &streams[stream][..blocks]);
        for index in next..blocks {
            for byte in 0..BLOCK {
                for stream in 0..STREAMS {
                    let constant = table[usize::from(streams[stream][index][byte])];
                    hashes[stream] = (hashes[stream] << 1).wrapping_add(constant);
                    if hashes[stream] & cut_mask == 0 {
                        return index;
                    }
                }
            }
        }
        blocks
    }

    /// One stream, byte by byte.
    fn scan(&self, data: &[u8], range: Range<usize>, found: &mut Vec<usize>) {
        let mut hash = self.hash_before(data, range.start);
        for (byte, position) in data[range.clone()].iter().zip(range) {
            hash = self.step(hash, *byte);
            if hash & self.cut_mask == 0 {
                found.push(position + 1);
            }
        }
    }

    /// The hash of the bytes up to `position`. Exact from the 64th byte on; no earlier position ends a chunk.
    fn hash_before(&self, data: &[u8], position: usize) -> u64 {
        let window = &data[position.saturating_sub(WINDOW)..position];
        window.iter().fold(0, |hash, byte| self.step(hash, *byte))
    }

    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.table[usize::from(byte)])
    }
}

/// Where the streams of a range start, and their length, which is a multiple of `unit`.
fn split<const COUNT: usize>(range: &Range<usize>, unit: usize) -> ([usize; COUNT], usize) {
    let stride = range.len() / COUNT / unit * unit;
    (std::array::from_fn(|stream| range.start + stream * stride), stride)
}

/// There is no wide scan on this architecture.
#[cfg(not(target_arch = "x86_64"))]
enum Wide {}

#[cfg(not(target_arch = "x86_64"))]
impl Wide {
    const LANES: usize = 8;
    const ROW: usize = 64;

    fn new(_: &[u64; 256]) -> Option<Self> {
        None
    }

    fn find_rows(
        &self,
        _: u64,
        _: [&[[u8; Self::ROW]]; Self::LANES],
        _: [u64; Self::LANES],
        _: &mut Vec<(usize, u8)>,
    ) {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn table() -> [u64; 256] {
        let bytes = noise(2048, 1);
        std::array::from_fn(|index| u64::from_le_bytes(bytes.as_chunks().0[index]))
    }

    #[test]
    fn every_way_to_scan_finds_the_same_positions() {
        let corpora = [noise(70_000, 2), vec![59; 70_000], b"the quick brown fox ".repeat(3_500)];
        for cut_mask in [0xFFFF << 48, 0xFFC0 << 40, 0xF << 60, 1 << 63, 1, 0x8001 << 17] {
            let plain = Gear { table: table(), cut_mask, wide: None };
            let best = Gear::new(table(), cut_mask);
            for data in &corpora {
                for range in [0..data.len(), 0..0, 0..3, 0..511, 0..513, 1_000..1_024, 77..66_000, 64..4_161]
                {
                    let mut expected = Vec::new();
                    plain.scan(data, range.clone(), &mut expected);
                    for gear in [&plain, &best] {
                        let mut found = vec![usize::MAX];
                        gear.find(data, range.clone(), &mut found);
                        assert_eq!(found[1..], expected, "{cut_mask:x} {range:?}");
                    }
                }
            }
        }
    }
}
