//! Writing the chunk region of a xorb: chunk after chunk, header and payload (draft 7.2 to 7.4).

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::{Input, Output, pack_numbers};
use crate::compression::{Chooser, Codec, Policy, RUN_CHUNKS};
use crate::errors::value_error;
use crate::header::{self, HEADER_BYTES};
use crate::suite::Suite;
use crate::threads::{Threads, share};

#[pyfunction]
#[pyo3(signature = (suite, pieces, lengths, out, *, policy, threads = Threads::ONE))]
pub fn encode_chunks<'py>(
    py: Python<'py>,
    suite: &Suite,
    pieces: Vec<Input>,
    lengths: Input,
    mut out: Output,
    policy: i64,
    threads: Threads,
) -> PyResult<Bound<'py, PyBytes>> {
    let policy = Policy::new(policy)?;
    let pieces: Vec<&[u8]> = pieces.iter().map(Input::bytes).collect();
    let chunks = split(suite, &pieces, &lengths.numbers("lengths")?)?;
    let out = out.bytes_mut(&pieces)?;
    let worst = chunks.iter().map(|chunk| HEADER_BYTES + chunk.len()).sum();
    let have = out.len();
    let out = out
        .get_mut(..worst)
        .ok_or_else(|| value_error(format!("out must have room for {worst} bytes, it has {have}")))?;
    let ends = py.detach(|| encode(&chunks, out, policy, threads));
    pack_numbers(py, &ends)
}

/// The chunks that lie in the pieces, one behind the other, none across two.
fn split<'a>(suite: &Suite, pieces: &[&'a [u8]], lengths: &[u64]) -> PyResult<Vec<&'a [u8]>> {
    let mut chunks = Vec::with_capacity(lengths.len());
    let mut pieces = pieces.iter().filter(|piece| !piece.is_empty());
    let mut rest: &[u8] = &[];
    for &length in lengths {
        if length == 0 || length > suite.max_chunk as u64 {
            return Err(value_error(format!("a chunk is 1 to {} bytes, not {length}", suite.max_chunk)));
        }
        if rest.is_empty() {
            rest = pieces.next().copied().unwrap_or_default();
        }
        chunks.push(
            rest.split_off(..length as usize)
                .ok_or_else(|| value_error("lengths must add up to each of the pieces, in order"))?,
        );
    }
    if !rest.is_empty() || pieces.next().is_some() {
        return Err(value_error("lengths must add up to all of the pieces"));
    }
    Ok(chunks)
}

/// Runs of chunks are encoded where they would lie if nothing shrank, then moved together.
fn encode(chunks: &[&[u8]], out: &mut [u8], policy: Policy, threads: Threads) -> Vec<u64> {
    let mut lengths = vec![0; chunks.len()];
    let mut jobs = Vec::new();
    let mut starts = Vec::new();
    let (mut rest, mut start) = (&mut *out, 0);
    for (chunks, lengths) in chunks.chunks(RUN_CHUNKS).zip(lengths.chunks_mut(RUN_CHUNKS)) {
        let worst = chunks.iter().map(|chunk| HEADER_BYTES + chunk.len()).sum();
        jobs.push((chunks, rest.split_off_mut(..worst).unwrap_or_default(), lengths));
        starts.push(start);
        start += worst;
    }
    share(threads, jobs, Codec::default, |codec, (chunks, out, lengths)| {
        encode_run(codec, chunks, out, lengths, policy);
    });
    let mut end = 0;
    for (lengths, start) in lengths.chunks(RUN_CHUNKS).zip(starts) {
        let length: u64 = lengths.iter().sum();
        if start != end {
            out.copy_within(start..start + length as usize, end);
        }
        end += length as usize;
    }
    lengths
        .iter()
        .scan(0, |end, length| {
            *end += length;
            Some(*end)
        })
        .collect()
}

/// Encode some chunks one behind the other from the start of `out`; `lengths` take header and payload.
fn encode_run(codec: &mut Codec, chunks: &[&[u8]], out: &mut [u8], lengths: &mut [u64], policy: Policy) {
    let mut chooser = Chooser::new(policy);
    let mut rest = out;
    for (chunk, length) in chunks.iter().zip(lengths) {
        let (scheme, payload) = chooser.encode(codec, chunk);
        let out = rest.split_off_mut(..HEADER_BYTES + payload.len()).unwrap_or_default();
        header::write(out, scheme, payload.len(), chunk.len());
        out[HEADER_BYTES..].copy_from_slice(payload);
        *length = out.len() as u64;
    }
}
