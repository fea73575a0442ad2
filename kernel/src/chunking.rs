//! Content-defined chunk boundaries (draft section 5).

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::{Input, pack_hashes, pack_numbers};
use crate::hashing::hash_all;
use crate::suite::Suite;
use crate::threads::{Threads, share};

#[pyfunction]
#[pyo3(signature = (suite, data, *, r#final, threads = Threads::ONE))]
pub fn find_chunks<'py>(
    py: Python<'py>,
    suite: &Suite,
    data: Input,
    r#final: bool,
    threads: Threads,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let bytes = data.bytes();
    let (hashes, lengths) = py.detach(|| {
        let lengths = cuts(suite, bytes, r#final, threads);
        (hash_all(suite, bytes, &lengths, threads), lengths)
    });
    Ok((pack_hashes(py, &hashes), pack_numbers(py, &lengths)))
}

#[pyfunction]
#[pyo3(signature = (suite, data, *, r#final, threads = Threads::ONE))]
pub fn find_cuts<'py>(
    py: Python<'py>,
    suite: &Suite,
    data: Input,
    r#final: bool,
    threads: Threads,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = data.bytes();
    let lengths = py.detach(|| cuts(suite, bytes, r#final, threads));
    Ok(pack_numbers(py, &lengths))
}

/// Bytes one thread scans at a time.
const UNIT_BYTES: usize = 256 << 10;

/// The lengths of the chunks; the last, open one only if it is the `last` of the stream.
fn cuts(suite: &Suite, data: &[u8], last: bool, threads: Threads) -> Vec<u64> {
    let units = data.len().div_ceil(UNIT_BYTES);
    let mut found = vec![Vec::new(); units];
    let jobs = found.iter_mut().enumerate().collect();
    share(
        threads,
        jobs,
        || (),
        |(), (unit, found)| {
            let start = unit * UNIT_BYTES;
            suite.gear.find(data, start..data.len().min(start + UNIT_BYTES), found);
        },
    );
    choose(suite, found.iter().flatten().copied(), data.len(), last)
}

/// Walk the candidates, which ascend, under the size rules (draft 5.4).
fn choose(suite: &Suite, candidates: impl Iterator<Item = usize>, end: usize, last: bool) -> Vec<u64> {
    let mut lengths = Vec::new();
    let mut start = 0;
    for candidate in candidates {
        while candidate - start > suite.max_chunk {
            lengths.push(suite.max_chunk as u64);
            start += suite.max_chunk;
        }
        if candidate - start >= suite.min_chunk {
            lengths.push((candidate - start) as u64);
            start = candidate;
        }
    }
    while end - start >= suite.max_chunk {
        lengths.push(suite.max_chunk as u64);
        start += suite.max_chunk;
    }
    if last && start < end {
        lengths.push((end - start) as u64);
    }
    lengths
}
