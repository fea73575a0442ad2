//! Python buffers as slices, without a copy, and the packing of numbers. Its unsafe code is these views of memory.
//!
//! Soundness. A `PyUntypedBuffer` holds an export of the buffer protocol: while it lives the exporter keeps the
//! memory where it is and does not resize it. The layout is checked to be C-contiguous, so `buf_ptr` points to
//! `len_bytes` initialised bytes. An output is writable, and `bytes_mut` refuses one that overlaps an input of the
//! same call, so that `&mut` never aliases `&` within a call. What no extension can check is another Python thread
//! that writes into the same memory while the interpreter lock is released: that is the caller's contract (it is
//! the same with `hashlib` or `zlib`), and such a caller gets unspecified bytes.

#![allow(unsafe_code)]

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::value_error;

/// A C-contiguous bytes-like argument that is read.
pub struct Input(PyUntypedBuffer);

impl Input {
    pub fn bytes(&self) -> &[u8] {
        if self.0.len_bytes() == 0 {
            return &[]; // the pointer may be null
        }
        // SAFETY: see the head of this file; the slice cannot outlive the export it borrows from.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast::<u8>(), self.0.len_bytes()) }
    }

    /// The bytes as a fixed-size array, named in the ValueError if the length is another.
    pub fn array<const N: usize>(&self, name: &str) -> PyResult<[u8; N]> {
        self.bytes()
            .try_into()
            .map_err(|_| value_error(format!("{name} must be {N} bytes, not {}", self.bytes().len())))
    }

    /// Packed native u64 numbers.
    pub fn numbers(&self, name: &str) -> PyResult<Vec<u64>> {
        let (numbers, rest) = self.bytes().as_chunks::<8>();
        if !rest.is_empty() {
            return Err(value_error(format!("{name} must be packed u64: {} bytes", self.bytes().len())));
        }
        let mut found = zeroed(numbers.len())?;
        for (number, bytes) in found.iter_mut().zip(numbers) {
            *number = u64::from_ne_bytes(*bytes);
        }
        Ok(found)
    }

    /// Packed 32-byte hashes.
    pub fn hashes(&self, name: &str) -> PyResult<&[[u8; 32]]> {
        let (hashes, rest) = self.bytes().as_chunks::<32>();
        if !rest.is_empty() {
            return Err(value_error(format!("{name} must be 32 bytes each: {} bytes", self.bytes().len())));
        }
        Ok(hashes)
    }
}

impl<'py> FromPyObject<'_, 'py> for Input {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        contiguous(object).map(Self)
    }
}

/// A C-contiguous, writable bytes-like argument that is written.
pub struct Output(PyUntypedBuffer);

impl Output {
    /// The memory to write, refused where it overlaps one of the call's inputs.
    pub fn bytes_mut(&mut self, inputs: &[&[u8]]) -> PyResult<&mut [u8]> {
        let length = self.0.len_bytes();
        if length == 0 {
            return Ok(&mut []);
        }
        let start = self.0.buf_ptr().cast::<u8>();
        let own = start as usize..start as usize + length;
        for input in inputs.iter().filter(|input| !input.is_empty()) {
            let other = input.as_ptr_range();
            if (other.start as usize) < own.end && own.start < other.end as usize {
                return Err(value_error("out must not overlap an input"));
            }
        }
        // SAFETY: see the head of this file; writable, not aliased by an input, borrowed from the export.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, length) })
    }
}

impl<'py> FromPyObject<'_, 'py> for Output {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let buffer = contiguous(object)?;
        if buffer.readonly() {
            return Err(value_error("out must be writable"));
        }
        Ok(Self(buffer))
    }
}

fn contiguous(object: Borrowed<'_, '_, PyAny>) -> PyResult<PyUntypedBuffer> {
    let buffer = PyUntypedBuffer::get(&object)?;
    if !buffer.is_c_contiguous() {
        return Err(PyValueError::new_err("the buffer must be C-contiguous"));
    }
    Ok(buffer)
}

/// Memory whose size a caller decides: MemoryError if there is not so much. Rust's own way ends the process.
pub fn zeroed<T: Clone + Default>(length: usize) -> PyResult<Vec<T>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(length).map_err(|error| PyMemoryError::new_err(error.to_string()))?;
    memory.resize(length, T::default());
    Ok(memory)
}

pub fn pack_numbers<'py>(py: Python<'py>, numbers: &[u64]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, size_of_val(numbers), |packed| {
        for (bytes, number) in packed.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *bytes = number.to_ne_bytes();
        }
        Ok(())
    })
}

pub fn pack_hashes<'py>(py: Python<'py>, hashes: &[[u8; 32]]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, size_of_val(hashes), |packed| {
        packed.copy_from_slice(hashes.as_flattened());
        Ok(())
    })
}

/// The first `length` bytes of memory that grows and never shrinks; what they hold is left from before.
pub fn scratch(memory: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if memory.len() < length {
        memory.resize(length, 0);
    }
    &mut memory[..length]
}
