//! The constants of an algorithm suite as the kernel's loops need them, validated once (draft section 4).

use pyo3::prelude::*;

use crate::buffers::Input;
use crate::errors::value_error;
use crate::gear::{self, Gear};

/// A chunk is written as one LZ4 block, and 4 MiB is the largest a frame can declare.
const LARGEST_CHUNK: usize = 4 << 20;

#[pyclass(frozen, module = "xetstore._kernel")]
pub struct Suite {
    pub gear: Gear,
    pub min_chunk: usize,
    pub max_chunk: usize,
    pub data_key: [u8; 32],
    pub node_key: [u8; 32],
    pub mean_branching: u64,
    pub max_xorb_body_bytes: u64,
    pub max_xorb_chunks: usize,
}

#[pymethods]
impl Suite {
    #[new]
    #[pyo3(signature = (*, gear_table, min_chunk_bytes, max_chunk_bytes, cut_mask, data_key, node_key,
        mean_branching, max_xorb_body_bytes, max_xorb_chunks))]
    #[expect(clippy::too_many_arguments, reason = "keyword-only in Python")]
    fn new(
        gear_table: Input,
        min_chunk_bytes: usize,
        max_chunk_bytes: usize,
        cut_mask: u64,
        data_key: Input,
        node_key: Input,
        mean_branching: u64,
        max_xorb_body_bytes: u64,
        max_xorb_chunks: usize,
    ) -> PyResult<Self> {
        let table = gear_table.array::<2048>("gear_table")?;
        let table = std::array::from_fn(|index| u64::from_le_bytes(table.as_chunks().0[index]));
        if !(gear::WINDOW <= min_chunk_bytes
            && min_chunk_bytes <= max_chunk_bytes
            && max_chunk_bytes <= LARGEST_CHUNK)
        {
            return Err(value_error("chunk sizes must satisfy 64 <= min <= max <= 4 MiB"));
        }
        if cut_mask == 0 || mean_branching == 0 || max_xorb_body_bytes == 0 || max_xorb_chunks == 0 {
            return Err(value_error("cut_mask, mean_branching and the xorb limits must not be 0"));
        }
        Ok(Self {
            gear: Gear::new(table, cut_mask),
            min_chunk: min_chunk_bytes,
            max_chunk: max_chunk_bytes,
            data_key: data_key.array("data_key")?,
            node_key: node_key.array("node_key")?,
            mean_branching,
            max_xorb_body_bytes,
            max_xorb_chunks,
        })
    }
}
