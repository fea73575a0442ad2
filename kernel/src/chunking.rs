//! Content-defined chunks of a block (draft section 5), cut and hashed by several threads in one go.
//!
//! Whoever is free scans the next unit of the data for candidates. Candidates are walked under the size rules in
//! order, as soon as those before them are there, and the chunks known then are hashed while they are in a cache.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::{Input, pack_hashes, pack_numbers};
use crate::chunk_hash::ChunkHasher;
use crate::suite::Suite;
use crate::threads::{Threads, run};

/// Bytes one thread scans at a time.
const UNIT_BYTES: usize = 256 << 10;

/// Bytes of chunks, about, that one thread hashes at a time.
const BATCH_BYTES: usize = 256 << 10;

#[pyfunction]
#[pyo3(signature = (suite, data, *, r#final, threads = Threads::ONE))]
pub fn find_chunks<'py>(
    py: Python<'py>,
    suite: &Suite,
    data: Input,
    r#final: bool,
    threads: Threads,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let data = data.bytes();
    let block = Block { suite, data, last: r#final, hashed: true };
    let (hashes, lengths) = py.detach(|| block.cut(threads));
    Ok((pack_hashes(py, &hashes)?, pack_numbers(py, &lengths)?))
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
    let data = data.bytes();
    let block = Block { suite, data, last: r#final, hashed: false };
    let (_, lengths) = py.detach(|| block.cut(threads));
    pack_numbers(py, &lengths)
}

type Hash = [u8; 32];

/// What is to be cut, and whether the chunks are to be hashed, too.
struct Block<'a> {
    suite: &'a Suite,
    data: &'a [u8],
    last: bool,
    hashed: bool,
}

impl Block<'_> {
    fn cut(&self, threads: Threads) -> (Vec<Hash>, Vec<u64>) {
        let shared = Shared { progress: Mutex::new(Progress::new(self)), news: Condvar::new() };
        run(threads, self.units(), || self.work(&shared));
        let Progress { walk, hashes, .. } =
            shared.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        (hashes, walk.lengths)
    }

    /// What each thread does, until nothing is left to do.
    fn work(&self, shared: &Shared) {
        let _alarm = Alarm(shared);
        let mut hasher = ChunkHasher::new(&self.suite.data_key);
        let mut progress = shared.lock();
        loop {
            match progress.next(self) {
                Task::Scan(unit) => {
                    drop(progress);
                    let start = unit * UNIT_BYTES;
                    let range = start..self.data.len().min(start + UNIT_BYTES);
                    let mut found = Vec::new();
                    self.suite.gear.find(self.data, range, &mut found);
                    progress = shared.lock();
                    progress.scanned(self, unit, found);
                    shared.news.notify_all();
                }
                Task::Hash { chunks, lengths, mut start } => {
                    drop(progress);
                    let hash = |length| {
                        let chunk = &self.data[start..start + length as usize];
                        start += chunk.len();
                        hasher.hash(chunk)
                    };
                    let hashes: Vec<Hash> = lengths.into_iter().map(hash).collect();
                    progress = shared.lock();
                    progress.hashes[chunks].copy_from_slice(&hashes);
                }
                Task::Wait => {
                    progress = shared.news.wait(progress).unwrap_or_else(PoisonError::into_inner);
                }
                Task::Done => return,
            }
        }
    }

    fn units(&self) -> usize {
        self.data.len().div_ceil(UNIT_BYTES)
    }
}

/// What a thread is to do next.
enum Task {
    Scan(usize),
    Hash { chunks: Range<usize>, lengths: Vec<u64>, start: usize },
    Wait,
    Done,
}

struct Shared {
    progress: Mutex<Progress>,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the other threads if this one panics: they would wait for what it had taken.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().failed = true;
            self.0.news.notify_all();
        }
    }
}

/// How far the work on a block has come.
struct Progress {
    /// The next unit to be scanned.
    next_unit: usize,
    /// The candidates in each unit that was scanned, until they are walked.
    found: Vec<Option<Vec<usize>>>,
    /// The next unit to be walked.
    next_walked: usize,
    walk: Walk,
    complete: bool,
    /// Chunks and bytes that were given out to be hashed.
    given: (usize, usize),
    hashes: Vec<Hash>,
    failed: bool,
}

impl Progress {
    fn new(block: &Block<'_>) -> Self {
        let mut new = Self {
            next_unit: 0,
            found: vec![None; block.units()],
            next_walked: 0,
            walk: Walk::default(),
            complete: false,
            given: (0, 0),
            hashes: Vec::new(),
            failed: false,
        };
        new.walk_on(block);
        new
    }

    /// Hashing goes first, so that data is hashed soon after it was scanned.
    fn next(&mut self, block: &Block<'_>) -> Task {
        let (chunk, start) = self.given;
        let ready = self.walk.start - start;
        if self.failed {
            Task::Done
        } else if block.hashed && (ready >= BATCH_BYTES || self.complete && chunk < self.walk.lengths.len()) {
            let (mut count, mut bytes) = (0, 0);
            for length in &self.walk.lengths[chunk..] {
                count += 1;
                bytes += *length as usize;
                if bytes >= BATCH_BYTES {
                    break;
                }
            }
            self.given = (chunk + count, start + bytes);
            let chunks = chunk..chunk + count;
            Task::Hash { lengths: self.walk.lengths[chunks.clone()].to_vec(), chunks, start }
        } else if self.next_unit < self.found.len() {
            self.next_unit += 1;
            Task::Scan(self.next_unit - 1)
        } else if self.complete {
            Task::Done
        } else {
            Task::Wait
        }
    }

    fn scanned(&mut self, block: &Block<'_>, unit: usize, candidates: Vec<usize>) {
        self.found[unit] = Some(candidates);
        self.walk_on(block);
    }

    /// Walk what can be walked.
    fn walk_on(&mut self, block: &Block<'_>) {
        while let Some(candidates) = self.found.get_mut(self.next_walked).and_then(Option::take) {
            for candidate in candidates {
                self.walk.candidate(block.suite, candidate);
            }
            self.next_walked += 1;
        }
        if self.next_walked == self.found.len() {
            self.walk.end(block.suite, block.data.len(), block.last);
            self.complete = true;
        }
        if block.hashed {
            self.hashes.resize(self.walk.lengths.len(), [0; 32]);
        }
    }
}

/// A walk over the candidates, which ascend, under the size rules (draft 5.4).
#[derive(Default)]
struct Walk {
    /// Where the open chunk starts.
    start: usize,
    lengths: Vec<u64>,
}

impl Walk {
    fn candidate(&mut self, suite: &Suite, position: usize) {
        while position - self.start > suite.max_chunk {
            self.close(suite.max_chunk);
        }
        if position - self.start >= suite.min_chunk {
            self.close(position - self.start);
        }
    }

    fn end(&mut self, suite: &Suite, position: usize, last: bool) {
        while position - self.start >= suite.max_chunk {
            self.close(suite.max_chunk);
        }
        if last && position > self.start {
            self.close(position - self.start);
        }
    }

    fn close(&mut self, length: usize) {
        self.lengths.push(length as u64);
        self.start += length;
    }
}
