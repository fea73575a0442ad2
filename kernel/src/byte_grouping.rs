//! Byte grouping: byte i goes to lane i % 4, lanes concatenated, and back (draft 7.4.3).

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::Input;

/// Words that `group` takes at a time.
const STEP: usize = 64;

#[pyfunction]
pub fn byte_group<'py>(py: Python<'py>, data: Input) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = data.bytes();
    PyBytes::new_with(py, bytes.len(), |out| {
        py.detach(|| group(bytes, out));
        Ok(())
    })
}

#[pyfunction]
pub fn byte_ungroup<'py>(py: Python<'py>, data: Input) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = data.bytes();
    PyBytes::new_with(py, bytes.len(), |out| {
        py.detach(|| ungroup(bytes, out));
        Ok(())
    })
}

/// Where the lanes of `length` bytes begin: the first `length % 4` lanes are one byte longer.
fn lane_lengths(length: usize) -> [usize; 4] {
    std::array::from_fn(|lane| length / 4 + usize::from(lane < length % 4))
}

/// Byte i of `data` goes to lane i % 4, lanes concatenated; `out` is as long as `data`.
pub fn group(data: &[u8], out: &mut [u8]) {
    let [a, b, c, _] = lane_lengths(data.len());
    let (first, rest) = out.split_at_mut(a);
    let (second, rest) = rest.split_at_mut(b);
    let (third, fourth) = rest.split_at_mut(c);
    let (quads, tail) = data.as_chunks::<4>();
    let (blocks, rest) = quads.as_chunks::<STEP>();
    let whole = blocks.len() * STEP;
    {
        // Whole blocks through arrays of known length, as words: the compiler makes vector code of this.
        let lanes = [&mut *first, second, third, fourth].map(|lane| lane.as_chunks_mut::<STEP>().0);
        let [first, second, third, fourth] = lanes;
        for (block, lanes) in
            blocks.iter().zip(first.iter_mut().zip(second).zip(third.iter_mut().zip(fourth)))
        {
            let ((first, second), (third, fourth)) = lanes;
            for index in 0..STEP {
                let word = u32::from_le_bytes(block[index]);
                first[index] = word as u8;
                second[index] = (word >> 8) as u8;
                third[index] = (word >> 16) as u8;
                fourth[index] = (word >> 24) as u8;
            }
        }
    }
    let mut lanes = [first, second, third, fourth];
    for (index, quad) in rest.iter().map(<[u8; 4]>::as_slice).chain([tail]).enumerate() {
        for (lane, byte) in lanes.iter_mut().zip(quad) {
            lane[whole + index] = *byte;
        }
    }
}

/// The inverse of `group`.
pub fn ungroup(data: &[u8], out: &mut [u8]) {
    let [a, b, c, _] = lane_lengths(data.len());
    let (first, rest) = data.split_at(a);
    let (second, rest) = rest.split_at(b);
    let (third, fourth) = rest.split_at(c);
    let (quads, tail) = out.as_chunks_mut::<4>();
    let whole = quads.len();
    for (quad, lanes) in quads.iter_mut().zip(first.iter().zip(second).zip(third.iter().zip(fourth))) {
        let ((first, second), (third, fourth)) = lanes;
        *quad = u32::from_le_bytes([*first, *second, *third, *fourth]).to_le_bytes();
    }
    for (byte, lane) in tail.iter_mut().zip([first, second, third]) {
        *byte = lane[whole];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_grouped_as_the_draft_says_and_comes_back() {
        for length in (0..600_u32).chain([65_535, 65_536, 65_537, 65_538]) {
            let data: Vec<u8> =
                (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let expected: Vec<u8> =
                (0..4).flat_map(|lane| data.iter().skip(lane).step_by(4)).copied().collect();
            let mut grouped = vec![0; data.len()];
            group(&data, &mut grouped);
            assert_eq!(grouped, expected);
            let mut back = vec![0; data.len()];
            ungroup(&grouped, &mut back);
            assert_eq!(back, data);
        }
    }
}
