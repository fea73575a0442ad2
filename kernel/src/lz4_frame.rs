//! LZ4 frames: any legal one is read, one plain kind is written (LZ4 frame format 1.6).

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, decompress_into_with_dict,
    get_maximum_output_size,
};
use twox_hash::XxHash32;

use crate::buffers::scratch;

const MAGIC: u32 = 0x184D_2204;
const LEGACY_MAGIC: u32 = 0x184C_2102;
const SKIPPABLE_MAGICS: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;
const LEGACY_BLOCK_BYTES: usize = 8 << 20;

/// How far back a match may reach.
const WINDOW: usize = 64 << 10;

const TOO_LONG: &str = "the LZ4 data is longer than the chunk";

const STORED_BLOCK: u32 = 1 << 31;
const FLAG_VERSION: u8 = 0b0100_0000;
const FLAG_INDEPENDENT: u8 = 1 << 5;
const FLAG_BLOCK_CHECKSUM: u8 = 1 << 4;
const FLAG_CONTENT_SIZE: u8 = 1 << 3;
const FLAG_CONTENT_CHECKSUM: u8 = 1 << 2;
const FLAG_RESERVED: u8 = 1 << 1;
const FLAG_DICTIONARY: u8 = 1;

/// Magic, flags, block size, header checksum; block length; end mark.
const HEADER_BYTES: usize = 7;
const LENGTH_BYTES: usize = 4;
const OVERHEAD: usize = HEADER_BYTES + LENGTH_BYTES + 4;

/// Decode frames that fill `out` exactly; `frames` is consumed to its end. Never writes outside `out`.
///
/// Concatenated, skippable and legacy frames are read too. The error says what is wrong.
pub fn decode(frames: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    let mut input = Cursor(frames);
    let mut filled = 0;
    while !input.0.is_empty() {
        let magic = input.word()?;
        if magic == MAGIC {
            filled = decode_frame(&mut input, out, filled)?;
        } else if magic == LEGACY_MAGIC {
            filled = decode_legacy_frame(&mut input, out, filled)?;
        } else if SKIPPABLE_MAGICS.contains(&magic) {
            let length = input.word()? as usize;
            input.take(length)?;
        } else {
            return Err("no LZ4 frame");
        }
    }
    if filled == out.len() { Ok(()) } else { Err("the LZ4 data is shorter than the chunk") }
}

/// What follows the magic number; returns how much of `out` is filled then.
fn decode_frame(input: &mut Cursor<'_>, out: &mut [u8], start: usize) -> Result<usize, &'static str> {
    let descriptor = input.0;
    let [flags, block_byte] = *input.array::<2>()?;
    if flags & 0b1100_0000 != FLAG_VERSION {
        return Err("unknown version of the LZ4 frame");
    }
    if flags & FLAG_RESERVED != 0 || block_byte & 0b1000_1111 != 0 {
        return Err("reserved bits of the LZ4 frame are set");
    }
    let block_bytes = match block_byte >> 4 {
        size @ 4..=7 => 1 << (8 + 2 * size),
        _ => return Err("unknown block size of the LZ4 frame"),
    };
    let content_size = match flags & FLAG_CONTENT_SIZE {
        0 => None,
        _ => Some(u64::from_le_bytes(*input.array()?)),
    };
    if flags & FLAG_DICTIONARY != 0 {
        return Err("the LZ4 frame needs a dictionary");
    }
    let described = &descriptor[..descriptor.len() - input.0.len()];
    let [checksum] = *input.array()?;
    if (XxHash32::oneshot(0, described) >> 8) as u8 != checksum {
        return Err("the header checksum of the LZ4 frame is wrong");
    }
    let mut filled = start;
    loop {
        let length = input.word()?;
        if length == 0 {
            break;
        }
        let block = input.take((length & !STORED_BLOCK) as usize)?;
        if block.len() > block_bytes {
            return Err("an LZ4 block is larger than its frame allows");
        }
        if flags & FLAG_BLOCK_CHECKSUM != 0 && XxHash32::oneshot(0, block) != input.word()? {
            return Err("a block checksum of the LZ4 frame is wrong");
        }
        let window =
            if flags & FLAG_INDEPENDENT != 0 { filled } else { start.max(filled.saturating_sub(WINDOW)) };
        filled = decode_block(block, length & STORED_BLOCK != 0, out, window, filled, block_bytes)?;
    }
    if content_size.is_some_and(|size| size != (filled - start) as u64) {
        return Err("the content size of the LZ4 frame is wrong");
    }
    if flags & FLAG_CONTENT_CHECKSUM != 0 && XxHash32::oneshot(0, &out[start..filled]) != input.word()? {
        return Err("the content checksum of the LZ4 frame is wrong");
    }
    Ok(filled)
}

/// Independent blocks up to the end of the data or the next frame; no descriptor, no end mark, no checksum.
fn decode_legacy_frame(input: &mut Cursor<'_>, out: &mut [u8], start: usize) -> Result<usize, &'static str> {
    let mut filled = start;
    while !input.0.is_empty() {
        let ahead = input.0;
        let length = input.word()?;
        if length == MAGIC || length == LEGACY_MAGIC || SKIPPABLE_MAGICS.contains(&length) {
            input.0 = ahead;
            break;
        }
        let block = input.take(length as usize)?;
        filled = decode_block(block, false, out, filled, filled, LEGACY_BLOCK_BYTES)?;
    }
    Ok(filled)
}

/// Decode a block behind `filled`; matches may reach back to `window`.
fn decode_block(
    block: &[u8],
    stored: bool,
    out: &mut [u8],
    window: usize,
    filled: usize,
    block_bytes: usize,
) -> Result<usize, &'static str> {
    let (before, room) = out.split_at_mut(filled);
    if stored {
        room.get_mut(..block.len()).ok_or(TOO_LONG)?.copy_from_slice(block);
        return Ok(filled + block.len());
    }
    let most = room.len().min(block_bytes);
    let room = &mut room[..most];
    let decoded = if window == filled {
        decompress_into(block, room)
    } else {
        decompress_into_with_dict(block, room, &before[window..])
    };
    Ok(filled + decoded.map_err(|_| "an LZ4 block is broken or longer than the chunk")?)
}

/// Input not read yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    const ENDED: &'static str = "the LZ4 frame is cut off";

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        self.0.split_off(..length).ok_or(Self::ENDED)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], &'static str> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Self::ENDED)?;
        self.0 = rest;
        Ok(array)
    }

    fn word(&mut self) -> Result<u32, &'static str> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

/// Write `data` (1 byte to 4 MiB) as the reference client does: one independent block, no checksums, no content size.
///
/// Returns the length of the frame, which lies at the start of `out`: scratch memory that grows and never shrinks.
/// None where the frame would not be shorter than `data`. `table` is scratch memory too: a large one for inputs of
/// any size, as the reference client has it.
pub fn encode(data: &[u8], out: &mut Vec<u8>, table: &mut CompressTable) -> Option<usize> {
    const START: usize = HEADER_BYTES + LENGTH_BYTES;
    let out = scratch(out, OVERHEAD + get_maximum_output_size(data.len()));
    let length = compress_into_with_table(data, &mut out[START..], table).ok()?;
    if OVERHEAD + length >= data.len() {
        return None;
    }
    out[..HEADER_BYTES].copy_from_slice(&header(data.len()));
    out[HEADER_BYTES..START].copy_from_slice(&(length as u32).to_le_bytes());
    out[START + length..OVERHEAD + length].fill(0);
    Some(OVERHEAD + length)
}

fn header(length: usize) -> [u8; HEADER_BYTES] {
    let size = (4..7_u8).find(|size| length <= 1 << (8 + 2 * size)).unwrap_or(7);
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4] = FLAG_VERSION | FLAG_INDEPENDENT;
    header[5] = size << 4;
    header[6] = (XxHash32::oneshot(0, &header[4..6]) >> 8) as u8;
    header
}
