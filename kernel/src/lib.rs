//! The Python module `xetstore._kernel`: registrations only. Its contract is `src/xetstore/_kernel.pyi`.

mod buffers;
mod byte_grouping;
mod chunk_hash;
mod chunking;
mod compression;
mod encode;
mod errors;
mod gear;
#[cfg(target_arch = "x86_64")]
mod gear_avx512;
mod hashing;
mod header;
mod lz4_frame;
mod merkle;
mod suite;
mod threads;
mod xorb;

use pyo3::prelude::*;

#[pymodule]
fn _kernel(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("NONE", compression::NONE)?;
    module.add("LZ4", compression::LZ4)?;
    module.add("BG4_LZ4", compression::BG4_LZ4)?;
    module.add("AUTO", compression::AUTO)?;
    module.add_class::<suite::Suite>()?;
    module.add_class::<merkle::MerkleTree>()?;
    module.add_function(wrap_pyfunction!(chunking::find_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(chunking::find_cuts, module)?)?;
    module.add_function(wrap_pyfunction!(hashing::hash_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(hashing::keyed_hash, module)?)?;
    module.add_function(wrap_pyfunction!(hashing::keyed_hashes, module)?)?;
    module.add_function(wrap_pyfunction!(hashing::crc64_nvme, module)?)?;
    module.add_function(wrap_pyfunction!(hashing::chunk_checksums, module)?)?;
    module.add_function(wrap_pyfunction!(merkle::merkle_root, module)?)?;
    module.add_function(wrap_pyfunction!(encode::encode_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(xorb::walk_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(xorb::verify_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(xorb::decode_chunks, module)?)?;
    module.add_function(wrap_pyfunction!(byte_grouping::byte_group, module)?)?;
    module.add_function(wrap_pyfunction!(byte_grouping::byte_ungroup, module)?)?;
    Ok(())
}
