//! The gear hash of eight streams at once, one in each 64-bit lane of a vector: the one file with SIMD by hand.
//!
//! Measured on Zen 5: 6.5 GB/s instead of 4.9. It needs AVX-512 with VBMI, whose byte permutation looks up a table of
//! 128 bytes in a register: two of them and a blend give one byte of the gear constants of 64 positions, which are
//! then woven into eight 64-bit constants a lane. Everything else, the plain scan included, is in `gear.rs`.
//!
//! Soundness. `Wide` can only be made where the processor has the features that its methods are compiled for.
//! Beside that call, `load` is the only unsafe code: an unaligned load of the 64 bytes of an array.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

/// Streams, one in each 64-bit lane.
const LANES: usize = 8;
/// Bytes of each stream that are taken at a time.
const ROW: usize = 64;

type Row = [u8; ROW];

/// The gear table as eight tables of bytes, and the proof that the processor has what it takes.
pub struct Wide([[Row; 4]; 8]);

impl Wide {
    pub const LANES: usize = LANES;
    pub const ROW: usize = ROW;

    pub fn new(table: &[u64; 256]) -> Option<Self> {
        if !(is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vbmi"))
        {
            return None;
        }
        Some(Self(std::array::from_fn(|plane| {
            std::array::from_fn(|quarter| {
                std::array::from_fn(|index| table[64 * quarter + index].to_le_bytes()[plane])
            })
        })))
    }

    /// Append the rows in which a hash of any stream has no bit of the cut mask, each with a bit for every such lane.
    /// `hashes` are those before the start.
    pub fn find_rows(
        &self,
        cut_mask: u64,
        streams: [&[Row]; LANES],
        hashes: [u64; LANES],
        hits: &mut Vec<(usize, u8)>,
    ) {
        // SAFETY: `new` has found every feature that `find_rows` is compiled for.
        unsafe { find_rows(&self.0, cut_mask, streams, hashes, hits) }
    }
}

#[expect(clippy::needless_range_loop, reason = "a row is one in each of the streams")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi")]
fn find_rows(
    planes: &[[Row; 4]; 8],
    cut_mask: u64,
    streams: [&[Row]; LANES],
    hashes: [u64; LANES],
    hits: &mut Vec<(usize, u8)>,
) {
    let rows = streams[0].len();
    let streams = streams.map(|stream| &stream[..rows]);
    let mask = _mm512_set1_epi64(cut_mask.cast_signed());
    let [h0, h1, h2, h3, h4, h5, h6, h7] = hashes.map(u64::cast_signed);
    let mut hash = _mm512_setr_epi64(h0, h1, h2, h3, h4, h5, h6, h7);
    for row in 0..rows {
        let mut hit = 0;
        for bytes in turn(std::array::from_fn(|lane| load(&streams[lane][row]))) {
            let constants = weave(look_up(planes, bytes));
            for pair in constants.as_chunks::<2>().0 {
                // Two steps at once: only one shift and one add have to wait for the hash before.
                let [first, second] = *pair;
                let both = _mm512_add_epi64(_mm512_add_epi64(first, first), second);
                let between = _mm512_add_epi64(_mm512_add_epi64(hash, hash), first);
                hash = _mm512_add_epi64(_mm512_slli_epi64::<2>(hash), both);
                hit |= _mm512_testn_epi64_mask(between, mask) | _mm512_testn_epi64_mask(hash, mask);
            }
        }
        if hit != 0 {
            hits.push((row, hit));
        }
    }
}

/// From one vector a stream to one vector for every eight positions. Each 128 bits of it hold those of two
/// streams, in turns: first position of both, second position of both, …
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn turn(streams: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = streams;
    let [p0, p2, p4, p6] = transpose([
        _mm512_unpacklo_epi8(a, b),
        _mm512_unpacklo_epi8(c, d),
        _mm512_unpacklo_epi8(e, f),
        _mm512_unpacklo_epi8(g, h),
    ]);
    let [p1, p3, p5, p7] = transpose([
        _mm512_unpackhi_epi8(a, b),
        _mm512_unpackhi_epi8(c, d),
        _mm512_unpackhi_epi8(e, f),
        _mm512_unpackhi_epi8(g, h),
    ]);
    [p0, p1, p2, p3, p4, p5, p6, p7]
}

/// Part i of 128 bits of vector k becomes part k of vector i.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let low_ab = _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b);
    let high_ab = _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b);
    let low_cd = _mm512_shuffle_i64x2::<0b01_00_01_00>(c, d);
    let high_cd = _mm512_shuffle_i64x2::<0b11_10_11_10>(c, d);
    [
        _mm512_shuffle_i64x2::<0b10_00_10_00>(low_ab, low_cd),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(low_ab, low_cd),
        _mm512_shuffle_i64x2::<0b10_00_10_00>(high_ab, high_cd),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(high_ab, high_cd),
    ]
}

/// Byte k of the gear constants of 64 positions, for each k.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up(planes: &[[Row; 4]; 8], bytes: __m512i) -> [__m512i; 8] {
    let upper_half = _mm512_movepi8_mask(bytes);
    let mut found = [bytes; 8];
    for (found, [q0, q1, q2, q3]) in found.iter_mut().zip(planes) {
        let lower = _mm512_permutex2var_epi8(load(q0), bytes, load(q1));
        let upper = _mm512_permutex2var_epi8(load(q2), bytes, load(q3));
        *found = _mm512_mask_blend_epi8(upper_half, lower, upper);
    }
    found
}

/// From the bytes of constants to whole constants: vector i holds those of position i, a stream a lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn weave([b0, b1, b2, b3, b4, b5, b6, b7]: [__m512i; 8]) -> [__m512i; 8] {
    let (low_01, high_01) = (_mm512_unpacklo_epi8(b0, b1), _mm512_unpackhi_epi8(b0, b1));
    let (low_23, high_23) = (_mm512_unpacklo_epi8(b2, b3), _mm512_unpackhi_epi8(b2, b3));
    let (low_45, high_45) = (_mm512_unpacklo_epi8(b4, b5), _mm512_unpackhi_epi8(b4, b5));
    let (low_67, high_67) = (_mm512_unpacklo_epi8(b6, b7), _mm512_unpackhi_epi8(b6, b7));
    let lower = [
        _mm512_unpacklo_epi16(low_01, low_23),
        _mm512_unpackhi_epi16(low_01, low_23),
        _mm512_unpacklo_epi16(high_01, high_23),
        _mm512_unpackhi_epi16(high_01, high_23),
    ];
    let upper = [
        _mm512_unpacklo_epi16(low_45, low_67),
        _mm512_unpackhi_epi16(low_45, low_67),
        _mm512_unpacklo_epi16(high_45, high_67),
        _mm512_unpackhi_epi16(high_45, high_67),
    ];
    [
        _mm512_unpacklo_epi32(lower[0], upper[0]),
        _mm512_unpackhi_epi32(lower[0], upper[0]),
        _mm512_unpacklo_epi32(lower[1], upper[1]),
        _mm512_unpackhi_epi32(lower[1], upper[1]),
        _mm512_unpacklo_epi32(lower[2], upper[2]),
        _mm512_unpackhi_epi32(lower[2], upper[2]),
        _mm512_unpacklo_epi32(lower[3], upper[3]),
        _mm512_unpackhi_epi32(lower[3], upper[3]),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(row: &Row) -> __m512i {
    // SAFETY: the array is 64 bytes, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }
}
