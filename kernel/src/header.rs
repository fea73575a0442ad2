//! The 8-byte header in front of each chunk of a xorb (draft 7.3), and the checks each of its fields must pass.

use crate::compression::{BG4_LZ4, NONE};
use crate::errors::Malformed;
use crate::suite::Suite;

pub const HEADER_BYTES: usize = 8;

/// The first bytes of a xorb's footer, where a chunk header would begin. No header begins so: its version is 0.
pub const FOOTER_IDENT: &[u8] = b"XETBLOB";

/// A chunk of a serialized xorb whose header holds; all offsets are in the bytes walked.
#[derive(Clone, Copy)]
pub struct Chunk {
    pub scheme: u8,
    pub payload_start: usize,
    pub payload_end: usize,
    pub raw_bytes: usize,
}

/// What begins at an offset.
pub enum Next {
    Chunk(Chunk),
    /// The bytes end within a chunk; this says what is missing.
    Partial(Malformed),
}

/// Read the header at `start`, which lies before the end of `body`.
pub fn read(suite: &Suite, body: &[u8], start: usize) -> Result<Next, Malformed> {
    let Some(header) = body[start..].first_chunk::<HEADER_BYTES>() else {
        let detail =
            format!("{} bytes are left where a chunk header of {HEADER_BYTES} should be", body.len() - start);
        return Ok(Next::Partial(Malformed::new("chunk.header", start, detail)));
    };
    let [version, p0, p1, p2, scheme, r0, r1, r2] = *header;
    let payload = u32::from_le_bytes([p0, p1, p2, 0]) as usize;
    let raw_bytes = u32::from_le_bytes([r0, r1, r2, 0]) as usize;
    if version != 0 {
        return Err(Malformed::new("chunk.version", start, format!("chunk version {version}, not 0")));
    }
    if payload == 0 || payload > suite.max_chunk {
        let detail = format!("payload of {payload} bytes, not 1 to {}", suite.max_chunk);
        return Err(Malformed::new("chunk.payload_size", start + 1, detail));
    }
    if scheme > BG4_LZ4 {
        return Err(Malformed::new(
            "chunk.scheme",
            start + 4,
            format!("unknown compression scheme {scheme}"),
        ));
    }
    if raw_bytes == 0 || raw_bytes > suite.max_chunk {
        let detail = format!("chunk of {raw_bytes} bytes, not 1 to {}", suite.max_chunk);
        return Err(Malformed::new("chunk.raw_size", start + 5, detail));
    }
    let payload_start = start + HEADER_BYTES;
    if scheme == NONE && payload != raw_bytes {
        let detail = format!("{payload} bytes stored as they are for a chunk of {raw_bytes}");
        return Err(Malformed::new("chunk.payload", payload_start, detail));
    }
    let rest = body.len() - payload_start;
    if payload > rest {
        let detail = format!("payload of {payload} bytes where {rest} are left");
        return Ok(Next::Partial(Malformed::new("chunk.payload_size", start + 1, detail)));
    }
    Ok(Next::Chunk(Chunk { scheme, payload_start, payload_end: payload_start + payload, raw_bytes }))
}

/// Write a header; both sizes are at most a chunk's, which fits 24 bits.
pub fn write(out: &mut [u8], scheme: u8, payload: usize, raw_bytes: usize) {
    let [p0, p1, p2, _] = (payload as u32).to_le_bytes();
    let [r0, r1, r2, _] = (raw_bytes as u32).to_le_bytes();
    out[..HEADER_BYTES].copy_from_slice(&[0, p0, p1, p2, scheme, r0, r1, r2]);
}
