//! BLAKE3 keyed hashes of chunks and of hashes (draft 6.1, 10.3.3), and CRC-64/NVME.

use std::ops::Range;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::{Input, pack_hashes, pack_numbers, zeroed};
use crate::chunk_hash::ChunkHasher;
use crate::errors::value_error;
use crate::suite::Suite;
use crate::threads::{Threads, share};

/// Bytes one thread takes at a time.
const BATCH_BYTES: u64 = 256 << 10;

#[pyfunction]
#[pyo3(signature = (suite, data, lengths, *, threads = Threads::ONE))]
pub fn hash_chunks<'py>(
    py: Python<'py>,
    suite: &Suite,
    data: Input,
    lengths: Input,
    threads: Threads,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = data.bytes();
    let lengths = lengths.numbers("lengths")?;
    check_lengths(&lengths, bytes.len())?;
    let mut hashes = zeroed(lengths.len())?;
    py.detach(|| hash_all(suite, bytes, &lengths, &mut hashes, threads));
    pack_hashes(py, &hashes)
}

#[pyfunction]
pub fn keyed_hash<'py>(py: Python<'py>, key: Input, data: Input) -> PyResult<Bound<'py, PyBytes>> {
    let key = key.array("key")?;
    let bytes = data.bytes();
    let hash = py.detach(|| blake3::keyed_hash(&key, bytes));
    Ok(PyBytes::new(py, hash.as_bytes()))
}

#[pyfunction]
pub fn keyed_hashes<'py>(py: Python<'py>, key: Input, hashes: Input) -> PyResult<Bound<'py, PyBytes>> {
    let key = key.array("key")?;
    let hashes = hashes.hashes("hashes")?;
    PyBytes::new_with(py, size_of_val(hashes), |keyed| {
        py.detach(|| {
            for (keyed, hash) in keyed.as_chunks_mut::<32>().0.iter_mut().zip(hashes) {
                *keyed = *blake3::keyed_hash(&key, hash).as_bytes();
            }
        });
        Ok(())
    })
}

#[pyfunction]
pub fn crc64_nvme(py: Python<'_>, data: Input) -> u64 {
    let bytes = data.bytes();
    py.detach(|| checksum(bytes))
}

#[pyfunction]
pub fn chunk_checksums<'py>(py: Python<'py>, data: Input, lengths: Input) -> PyResult<Bound<'py, PyBytes>> {
    let mut rest = data.bytes();
    let mut numbers = lengths.numbers("lengths")?;
    check_lengths(&numbers, rest.len())?;
    py.detach(|| {
        for number in &mut numbers {
            let (chunk, others) = rest.split_at(*number as usize);
            *number = checksum(chunk);
            rest = others;
        }
    });
    pack_numbers(py, &numbers)
}

/// CRC-64/NVME.
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

/// Lengths of chunks that lie one behind the other in `total` bytes.
pub fn check_lengths(lengths: &[u64], total: usize) -> PyResult<()> {
    let sum = lengths.iter().try_fold(0_u64, |sum, length| sum.checked_add(*length));
    if sum != Some(total as u64) {
        return Err(value_error(format!("lengths must add up to the {total} bytes of data")));
    }
    if lengths.contains(&0) {
        return Err(value_error("a chunk is at least one byte"));
    }
    Ok(())
}

/// The hashes of consecutive chunks, one for each length; `lengths` are known to fit into `data`.
pub fn hash_all(suite: &Suite, data: &[u8], lengths: &[u64], mut slots: &mut [[u8; 32]], threads: Threads) {
    let mut rest = data;
    let mut jobs = Vec::new();
    for batch in batches(lengths) {
        let lengths = &lengths[batch];
        let bytes: u64 = lengths.iter().sum();
        let (own, others) = rest.split_at(bytes as usize);
        jobs.push((own, lengths, slots.split_off_mut(..lengths.len()).unwrap_or_default()));
        rest = others;
    }
    share(
        threads,
        jobs,
        || ChunkHasher::new(&suite.data_key),
        |hasher, (mut data, lengths, hashes)| {
            for (length, hash) in lengths.iter().zip(hashes) {
                let (chunk, others) = data.split_at(*length as usize);
                *hash = hasher.hash(chunk);
                data = others;
            }
        },
    );
}

/// Ranges of consecutive chunks of about `BATCH_BYTES`.
pub fn batches(lengths: &[u64]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, length) in lengths.iter().enumerate() {
        bytes += length;
        if bytes >= BATCH_BYTES || index + 1 == lengths.len() {
            ranges.push(start..index + 1);
            (start, bytes) = (index + 1, 0);
        }
    }
    ranges
}
