//! The two ways a call can fail: the bytes break the format (`FormatError`), or the call breaks the contract (`ValueError`).

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pyo3::import_exception!(xetstore.errors, FormatError);

/// A rule of the format that bytes break, found without the interpreter; `offset` is that of the offending field.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    pub rule: &'static str,
    pub offset: usize,
    pub detail: String,
}

impl Malformed {
    pub fn new(rule: &'static str, offset: usize, detail: impl Into<String>) -> Self {
        Self { rule, offset, detail: detail.into() }
    }
}

impl From<Malformed> for PyErr {
    fn from(error: Malformed) -> Self {
        FormatError::new_err((error.rule, error.offset, error.detail))
    }
}

pub fn value_error(message: impl Into<String>) -> PyErr {
    PyValueError::new_err(message.into())
}
