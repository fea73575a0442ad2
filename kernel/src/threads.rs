//! Sharing work among the calling thread and helpers that live only as long as the call (nothing survives a fork).

use std::sync::Mutex;
use std::thread;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;

/// The `threads` argument: how many threads share the work, the calling one included.
#[derive(Clone, Copy)]
pub struct Threads(usize);

impl Threads {
    pub const ONE: Self = Self(1);
    /// More than any machine has; a larger number is a mistake of the caller.
    const MOST: usize = 1024;
}

impl<'py> FromPyObject<'_, 'py> for Threads {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let refused = || PyValueError::new_err(format!("threads must be 1 to {}", Self::MOST));
        match object.extract::<usize>() {
            Ok(count @ 1..=Self::MOST) => Ok(Self(count)),
            Ok(_) => Err(refused()),
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => Err(refused()),
            Err(error) => Err(error),
        }
    }
}

/// Run `work` on every thread at once; it says itself when nothing is left to do.
///
/// At most `most` threads are used. Where the system refuses another thread, the others do its share.
pub fn run(threads: Threads, most: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..threads.0.min(most) {
            if thread::Builder::new().spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}

/// Do every job once. Each thread takes the next job when it is free and keeps its own scratch.
///
/// Jobs carry the disjoint slices they write, so the result does not depend on who does which. A job should be
/// worth some tens of microseconds.
pub fn share<Job, Scratch>(
    threads: Threads,
    jobs: Vec<Job>,
    scratch: impl Fn() -> Scratch + Sync,
    work: impl Fn(&mut Scratch, Job) + Sync,
) where
    Job: Send,
{
    let most = jobs.len();
    let queue = Mutex::new(jobs.into_iter());
    run(threads, most, || {
        let mut own = scratch();
        loop {
            // A lock is poisoned only if another thread panicked, which then ends the whole call.
            let Some(job) = queue.lock().ok().and_then(|mut jobs| jobs.next()) else { return };
            work(&mut own, job);
        }
    });
}
