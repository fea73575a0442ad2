//! Reading the chunk region of a xorb: walked, verified, decoded (draft 7.2 to 7.4).

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::{Input, Output, pack_hashes, pack_numbers, scratch};
use crate::chunk_hash::ChunkHasher;
use crate::compression::{Codec, NONE};
use crate::errors::Malformed;
use crate::hashing::{batches, checksum};
use crate::header::{self, Chunk, FOOTER_IDENT, HEADER_BYTES, Next};
use crate::suite::Suite;
use crate::threads::{Threads, share};

type Packed<'py> = Bound<'py, PyBytes>;

#[pyfunction]
pub fn walk_chunks<'py>(
    py: Python<'py>,
    suite: &Suite,
    body: Input,
) -> PyResult<(Packed<'py>, Packed<'py>, Packed<'py>)> {
    let body = body.bytes();
    let mut chunks = Vec::new();
    py.detach(|| walk(suite, body, true, 0, 0, &mut chunks))?;
    let schemes: Vec<u8> = chunks.iter().map(|chunk| chunk.scheme).collect();
    Ok((pack_numbers(py, &lengths(&chunks))?, pack_numbers(py, &ends(&chunks))?, PyBytes::new(py, &schemes)))
}

#[pyfunction]
#[pyo3(signature = (suite, body, *, r#final, chunks_before = 0, body_bytes_before = 0, threads = Threads::ONE))]
pub fn verify_chunks<'py>(
    py: Python<'py>,
    suite: &Suite,
    body: Input,
    r#final: bool,
    chunks_before: usize,
    body_bytes_before: u64,
    threads: Threads,
) -> PyResult<(Packed<'py>, Packed<'py>, Packed<'py>, Packed<'py>)> {
    let body = body.bytes();
    let (chunks, hashes, checksums) = py.detach(|| {
        let mut chunks = Vec::new();
        let walked = walk(suite, body, r#final, chunks_before, body_bytes_before, &mut chunks);
        let mut checksums = vec![0; chunks.len()];
        // A broken chunk comes before a broken header behind it: the first fault is told, however the body is cut.
        let hashes = decode(suite, body, &chunks, None, Some(&mut checksums), threads)?;
        walked?;
        Ok::<_, Malformed>((chunks, hashes, checksums))
    })?;
    Ok((
        pack_hashes(py, &hashes)?,
        pack_numbers(py, &lengths(&chunks))?,
        pack_numbers(py, &ends(&chunks))?,
        pack_numbers(py, &checksums)?,
    ))
}

#[pyfunction]
#[pyo3(signature = (suite, body, out, *, r#final, threads = Threads::ONE))]
pub fn decode_chunks<'py>(
    py: Python<'py>,
    suite: &Suite,
    body: Input,
    mut out: Output,
    r#final: bool,
    threads: Threads,
) -> PyResult<(Packed<'py>, Packed<'py>, usize)> {
    let body = body.bytes();
    let out = out.bytes_mut(&[body])?;
    let (chunks, hashes) = py.detach(|| {
        let chunks = take(suite, body, out.len(), r#final)?;
        let hashes = decode(suite, body, &chunks, Some(out), None, threads)?;
        Ok::<_, Malformed>((chunks, hashes))
    })?;
    let consumed = chunks.last().map_or(0, |chunk| chunk.payload_end);
    Ok((pack_hashes(py, &hashes)?, pack_numbers(py, &lengths(&chunks))?, consumed))
}

fn lengths(chunks: &[Chunk]) -> Vec<u64> {
    chunks.iter().map(|chunk| chunk.raw_bytes as u64).collect()
}

fn ends(chunks: &[Chunk]) -> Vec<u64> {
    chunks.iter().map(|chunk| chunk.payload_end as u64).collect()
}

/// Find the chunks of a xorb, up to its end, its footer or an error, within the limits of a xorb (draft 7.1). What came before of
/// the same xorb counts; unless these are the last bytes of it, a partial chunk at the end is left.
fn walk(
    suite: &Suite,
    body: &[u8],
    last: bool,
    chunks_before: usize,
    body_bytes_before: u64,
    chunks: &mut Vec<Chunk>,
) -> Result<(), Malformed> {
    let mut start = 0;
    while start < body.len() && !body[start..].starts_with(FOOTER_IDENT) {
        let chunk = match header::read(suite, body, start)? {
            Next::Chunk(chunk) => chunk,
            Next::Partial(missing) if last => return Err(missing),
            Next::Partial(_) => break,
        };
        if chunks_before.saturating_add(chunks.len()) >= suite.max_xorb_chunks {
            let detail = format!("more than {} chunks in a xorb", suite.max_xorb_chunks);
            return Err(Malformed::new("xorb.chunks", start, detail));
        }
        if body_bytes_before.saturating_add(chunk.payload_end as u64) > suite.max_xorb_body_bytes {
            let detail = format!("more than {} bytes of chunks in a xorb", suite.max_xorb_body_bytes);
            return Err(Malformed::new("xorb.body_bytes", start, detail));
        }
        start = chunk.payload_end;
        chunks.push(chunk);
    }
    Ok(())
}

/// The whole chunks that `room` bytes can take.
fn take(suite: &Suite, body: &[u8], mut room: usize, last: bool) -> Result<Vec<Chunk>, Malformed> {
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < body.len() {
        match header::read(suite, body, start)? {
            Next::Chunk(chunk) if chunk.raw_bytes <= room => {
                room -= chunk.raw_bytes;
                start = chunk.payload_end;
                chunks.push(chunk);
            }
            Next::Partial(missing) if last => return Err(missing),
            Next::Chunk(_) | Next::Partial(_) => break,
        }
    }
    Ok(chunks)
}

/// Decode and hash chunks, into `out` one behind the other if it is given. The first broken chunk is reported.
/// `checksums`, if given, take that of each chunk as it is stored, while its bytes are in the cache.
fn decode(
    suite: &Suite,
    body: &[u8],
    chunks: &[Chunk],
    mut out: Option<&mut [u8]>,
    mut checksums: Option<&mut [u64]>,
    threads: Threads,
) -> Result<Vec<[u8; 32]>, Malformed> {
    let mut hashes = vec![[0; 32]; chunks.len()];
    let mut slots = hashes.as_mut_slice();
    let mut jobs = Vec::new();
    for batch in batches(&lengths(chunks)) {
        let chunks = &chunks[batch];
        let bytes = chunks.iter().map(|chunk| chunk.raw_bytes).sum();
        let out = out.as_mut().map(|out| out.split_off_mut(..bytes).unwrap_or_default());
        let checksums = checksums.as_mut().and_then(|all| all.split_off_mut(..chunks.len()));
        jobs.push((chunks, slots.split_off_mut(..chunks.len()).unwrap_or_default(), out, checksums));
    }
    let first_error: Mutex<Option<Malformed>> = Mutex::new(None);
    let broken_at = AtomicUsize::new(usize::MAX);
    share(
        threads,
        jobs,
        || Decoder::new(suite),
        |decoder, (chunks, hashes, mut out, mut checksums)| {
            for (index, (chunk, hash)) in chunks.iter().zip(hashes).enumerate() {
                // What lies behind a broken chunk need not be done; what lies before it must, it may be broken too.
                if chunk.payload_start > broken_at.load(Ordering::Relaxed) {
                    return;
                }
                let out = out.as_mut().map(|out| out.split_off_mut(..chunk.raw_bytes).unwrap_or_default());
                if let Some(checksums) = &mut checksums {
                    checksums[index] = checksum(&body[chunk.payload_start - HEADER_BYTES..chunk.payload_end]);
                }
                match decoder.decode(body, chunk, out) {
                    Ok(decoded) => *hash = decoded,
                    Err(error) => {
                        broken_at.fetch_min(error.offset, Ordering::Relaxed);
                        if let Ok(mut first) = first_error.lock()
                            && first.as_ref().is_none_or(|first| error.offset < first.offset)
                        {
                            *first = Some(error);
                        }
                        return;
                    }
                }
            }
        },
    );
    match first_error.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(hashes),
    }
}

/// What one thread needs to decode chunks.
struct Decoder {
    codec: Codec,
    hasher: ChunkHasher,
    scratch: Vec<u8>,
}

impl Decoder {
    fn new(suite: &Suite) -> Self {
        Self { codec: Codec::default(), hasher: ChunkHasher::new(&suite.data_key), scratch: Vec::new() }
    }

    /// The hash of a chunk, which is decoded into `out` or else into scratch.
    fn decode(&mut self, body: &[u8], chunk: &Chunk, out: Option<&mut [u8]>) -> Result<[u8; 32], Malformed> {
        let payload = &body[chunk.payload_start..chunk.payload_end];
        if chunk.scheme == NONE {
            // Hashed first, copied from the cache then: measured faster than the other way round.
            let hash = self.hasher.hash(payload);
            if let Some(out) = out {
                out.copy_from_slice(payload); // of equal length: header::read refuses others
            }
            return Ok(hash);
        }
        let out = out.unwrap_or_else(|| scratch(&mut self.scratch, chunk.raw_bytes));
        let decoded = self.codec.decompress(chunk.scheme, payload, out);
        decoded.map_err(|detail| Malformed::new("chunk.payload", chunk.payload_start, detail))?;
        Ok(self.hasher.hash(out))
    }
}
