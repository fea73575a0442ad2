//! The merkle root of a growing list of (hash, size) (draft 6.2): each level keeps only its open group.

use std::io::Write;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::Input;
use crate::errors::value_error;
use crate::suite::Suite;

/// "{64 hex digits} : {20 digits}\n" at most.
const LONGEST_LINE: usize = 64 + 3 + 20 + 1;

#[derive(Clone, Copy)]
struct Entry {
    hash: [u8; 32],
    size: u64,
}

/// One level of the tree: the children of the node that is still open.
#[derive(Clone, Default)]
struct Level {
    open: Vec<Entry>,
    /// Whether a node was closed here, so that this level has more than its open entries.
    closed: bool,
}

#[derive(Clone)]
struct Levels {
    key: [u8; 32],
    mean_branching: u64,
    levels: Vec<Level>,
}

impl Levels {
    fn new(suite: &Suite) -> Self {
        Self { key: suite.node_key, mean_branching: suite.mean_branching, levels: Vec::new() }
    }

    /// Append at a level; a node that closes goes up a level (draft 6.2.2.2).
    fn push(&mut self, mut level: usize, mut entry: Entry) {
        loop {
            if level == self.levels.len() {
                self.levels.push(Level::default());
            }
            let open = &mut self.levels[level].open;
            open.push(entry);
            let closes = open.len() >= 3 && last_word(&entry.hash).is_multiple_of(self.mean_branching);
            if !closes && (open.len() as u64) < 2 * self.mean_branching + 1 {
                return;
            }
            entry = node(&self.key, open);
            open.clear();
            self.levels[level].closed = true;
            level += 1;
        }
    }

    /// Close every level from the bottom: what is left over becomes a node, even one entry alone (draft 6.2.2.4).
    fn root(mut self) -> [u8; 32] {
        let mut level = 0;
        while level < self.levels.len() {
            let Level { open, closed } = std::mem::take(&mut self.levels[level]);
            match open.as_slice() {
                [] => {}
                [root] if !closed => return root.hash,
                children => self.push(level + 1, node(&self.key, children)),
            }
            level += 1;
        }
        [0; 32]
    }
}

fn last_word(hash: &[u8; 32]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&hash[24..]);
    u64::from_le_bytes(word)
}

/// The parent of some entries: the hash of their lines (draft 6.2.1).
fn node(key: &[u8; 32], children: &[Entry]) -> Entry {
    let mut text = Vec::with_capacity(children.len() * LONGEST_LINE);
    let mut size = 0;
    for child in children {
        for word in child.hash.as_chunks::<8>().0 {
            // Writing to a Vec cannot fail.
            let _ = write!(text, "{:016x}", u64::from_le_bytes(*word));
        }
        let _ = writeln!(text, " : {}", child.size);
        size += child.size;
    }
    Entry { hash: *blake3::keyed_hash(key, &text).as_bytes(), size }
}

#[pyclass(module = "xetstore._kernel")]
pub struct MerkleTree {
    levels: Levels,
    #[pyo3(get)]
    total_bytes: u64,
}

#[pymethods]
impl MerkleTree {
    #[new]
    fn new(suite: &Suite) -> Self {
        Self { levels: Levels::new(suite), total_bytes: 0 }
    }

    fn update(&mut self, py: Python<'_>, hashes: Input, sizes: Input) -> PyResult<()> {
        let hashes = hashes.hashes("hashes")?;
        let sizes = sizes.numbers("sizes")?;
        if hashes.len() != sizes.len() {
            return Err(value_error(format!("{} hashes but {} sizes", hashes.len(), sizes.len())));
        }
        // No node can overflow if the whole does not.
        self.total_bytes = sizes
            .iter()
            .try_fold(self.total_bytes, |sum, size| sum.checked_add(*size))
            .ok_or_else(|| value_error("sizes add up to more than 64 bits"))?;
        let levels = &mut self.levels;
        py.detach(|| {
            for (hash, size) in hashes.iter().zip(sizes) {
                levels.push(0, Entry { hash: *hash, size });
            }
        });
        Ok(())
    }

    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.levels.clone().root())
    }
}

#[pyfunction]
pub fn merkle_root<'py>(
    py: Python<'py>,
    suite: &Suite,
    hashes: Input,
    sizes: Input,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut tree = MerkleTree::new(suite);
    tree.update(py, hashes, sizes)?;
    Ok(tree.root(py))
}
