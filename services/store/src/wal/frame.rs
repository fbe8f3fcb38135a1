//! Frames: how records lie in a file, and what damage looks like. Pure.
//!
//! A file is zeros that frames overwrite from its start on, so that a sync in the steady state changes data blocks and no
//! metadata. A frame is
//!
//! ```text
//! magic 4 | crc32 4 | payload length 4 | kind 1 | 0 | header check 2 | durable 8 | payload | zeros | 0xA5
//! ```
//!
//! in little endian, a multiple of 8 bytes long. The checksum covers everything but itself and the magic number, and the
//! file's number and the frame's place as well; the header has a check of its own, so that its length can be believed when
//! the payload is bad. `durable` is how much of the file was synced, and so possibly acknowledged, when the frame was written: a
//! bad frame below a later frame's `durable` is damage, a bad frame above all of them may be a write that a power cut
//! interrupted. Disks write sectors as a whole, so such a write leaves zeros where a sector is missing, and that tells it
//! from flipped bits.

const MAGIC: u32 = 0x4C41_5743;
/// Bytes before the payload.
pub const HEADER: usize = 24;
const TRAILER: u8 = 0xA5;
const ALIGN: usize = 8;
const SECTOR: usize = 512;

/// A record and what surrounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// What the payload is.
    pub kind: u8,
    /// Bytes of the file that were synced when this was written.
    pub durable: u64,
    /// The record.
    pub payload: &'b [u8],
    /// Where the next frame begins.
    pub end: usize,
}

/// How a file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With zeros, or not at all.
    Clean(usize),
    /// With a write that was interrupted; the bytes from here on were never acknowledged.
    Torn(usize),
    /// With something that was written and is not what was written.
    Damaged(usize),
}

/// How many bytes a frame with such a payload takes.
pub fn size(payload: usize) -> usize {
    (HEADER + payload + 1).next_multiple_of(ALIGN)
}

/// A short check over the length, the kind and `durable`.
fn header_check(length: u32, kind: u8, durable: u64) -> u16 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(&durable.to_le_bytes());
    let crc = hasher.finalize();
    (crc ^ (crc >> 16)) as u16
}

fn checksum(file: u64, offset: usize, after_checksum: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file.to_le_bytes());
    hasher.update(&(offset as u64).to_le_bytes());
    hasher.update(after_checksum);
    hasher.finalize()
}

/// Adds a frame that will lie at `offset` of file number `file`.
pub fn encode(out: &mut Vec<u8>, file: u64, offset: usize, durable: u64, kind: u8, payload: &[&[u8]]) {
    let start = out.len();
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(&header_check(length, kind, durable).to_le_bytes());
    out.extend_from_slice(&durable.to_le_bytes());
    payload.iter().for_each(|part| out.extend_from_slice(part));
    out.resize(start + size(length as usize) - 1, 0);
    out.push(TRAILER);
    let crc = checksum(file, offset, &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The length of the payload that a header announces, if it is a header.
fn announced(header: &[u8]) -> Option<usize> {
    if number(header, 0)? != MAGIC {
        return None;
    }
    let length = number(header, 8)?;
    let durable = u64::from_le_bytes(header.get(16..HEADER)?.try_into().ok()?);
    let check = u16::from_le_bytes([header[14], header[15]]);
    (check == header_check(length, header[12], durable)).then_some(length as usize)
}

/// The frame that begins `bytes` and lies at `offset` of its file, if there is an undamaged one.
pub fn decode(bytes: &[u8], file: u64, offset: usize) -> Option<Frame<'_>> {
    let length = announced(bytes)?;
    let whole = bytes.get(..size(length))?;
    if number(whole, 4)? != checksum(file, offset, &whole[8..]) {
        return None;
    }
    let durable = u64::from_le_bytes(whole.get(16..HEADER)?.try_into().ok()?);
    Some(Frame { kind: whole[12], durable, payload: &whole[HEADER..HEADER + length], end: offset + whole.len() })
}

fn decode_in(bytes: &[u8], file: u64, offset: usize) -> Option<Frame<'_>> {
    decode(bytes.get(offset..)?, file, offset)
}

/// Calls `visit` with every frame and where it begins; then says how the file ends.
///
/// # Errors
/// `visit`'s.
pub fn scan<E>(bytes: &[u8], file: u64, mut visit: impl FnMut(usize, Frame<'_>) -> Result<(), E>) -> Result<End, E> {
    let mut offset = 0;
    while let Some(frame) = decode_in(bytes, file, offset) {
        visit(offset, frame)?;
        offset = frame.end;
    }
    let rest = bytes.get(offset..).unwrap_or_default();
    let Some(used) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(End::Clean(offset)) };
    let acknowledged = (offset + ALIGN..offset + used)
        .step_by(ALIGN)
        .filter_map(|later| decode_in(bytes, file, later))
        .any(|later| later.durable > offset as u64);
    Ok(if !acknowledged && interrupted(bytes, offset) { End::Torn(offset) } else { End::Damaged(offset) })
}

/// Whether a sector of the frame that should be at `offset` was never written.
fn interrupted(bytes: &[u8], offset: usize) -> bool {
    let zeros = |from: usize, to: usize| bytes.get(from..to.min(bytes.len())).is_none_or(|b| b.iter().all(|b| *b == 0));
    let next_sector = (offset + 1).next_multiple_of(SECTOR);
    if zeros(offset, next_sector) {
        return true;
    }
    let header = offset + HEADER;
    if header > bytes.len() || (next_sector < header && zeros(next_sector, header)) {
        return true;
    }
    // The header was written. If it cannot be believed, its bits were flipped.
    let Some(length) = bytes.get(offset..).and_then(announced) else { return false };
    let end = offset + size(length);
    end > bytes.len() || (next_sector..end).step_by(SECTOR).any(|sector| zeros(sector, (sector + SECTOR).min(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 7;

    /// A file of three frames of `size` bytes; the third knows that the first was synced.
    fn file(size: usize) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (kind, durable) in [(1, 0), (2, 0), (3, 1)] {
            let offset = bytes.len();
            starts.push(offset);
            // What is synced of a file is always whole frames.
            let durable = if durable == 0 { 0 } else { starts[1] as u64 };
            encode(&mut bytes, FILE, offset, durable, kind, &[&[9], &vec![0x11; size]]);
        }
        starts.push(bytes.len());
        bytes.resize(bytes.len() + 4096, 0);
        (bytes, starts)
    }

    fn read(bytes: &[u8]) -> (Vec<u8>, End) {
        let mut kinds = Vec::new();
        let end = scan::<()>(bytes, FILE, |_, frame| {
            assert_eq!(frame.payload[0], 9);
            kinds.push(frame.kind);
            Ok(())
        });
        (kinds, end.unwrap())
    }

    #[test]
    fn frames_come_back_in_order() {
        for size in [0, 1, 7, 8, 500, 512, 5000] {
            let (bytes, starts) = file(size);
            assert_eq!(read(&bytes), (vec![1, 2, 3], End::Clean(starts[3])), "{size}");
            assert_eq!(read(&bytes[..starts[3]]).1, End::Clean(starts[3]), "a file without zeros behind");
            assert!(decode(&bytes, FILE + 1, 0).is_none(), "a frame of another file");
        }
    }

    #[test]
    fn every_flipped_bit_is_found_and_none_passes_for_an_interrupted_write() {
        let (bytes, starts) = file(600);
        for place in 0..starts[3] {
            for bit in [0, 7] {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                let bad = *starts.iter().rfind(|start| **start <= place).unwrap();
                assert_eq!(read(&flipped).1, End::Damaged(bad), "byte {place}");
            }
        }
    }

    #[test]
    fn missing_sectors_are_an_interrupted_write_unless_they_were_synced() {
        let (bytes, starts) = file(2000);
        let lose = |from: usize, to: usize| {
            let mut lost = bytes.clone();
            lost[from..to].fill(0);
            read(&lost).1
        };
        let sector = |at: usize| at.next_multiple_of(SECTOR);
        assert_eq!(lose(starts[2], starts[3]), End::Clean(starts[2]), "nothing of the last frame");
        assert_eq!(lose(sector(starts[2]), starts[3]), End::Torn(starts[2]), "its beginning only");
        assert_eq!(lose(starts[2], sector(starts[2])), End::Torn(starts[2]), "its end only");
        assert_eq!(lose(sector(starts[2]), sector(starts[2]) + SECTOR), End::Torn(starts[2]), "a hole in it");
        assert_eq!(lose(sector(starts[1]), starts[2]), End::Torn(starts[1]), "the one before was never synced either");
        assert_eq!(lose(512, 1024), End::Damaged(0), "the first was");
    }

    #[test]
    fn a_file_cut_short_is_an_interrupted_write() {
        let (bytes, starts) = file(2000);
        assert_eq!(read(&bytes[..starts[2] + 100]).1, End::Torn(starts[2]));
        assert_eq!(read(&bytes[..starts[2] + 3]).1, End::Torn(starts[2]), "not even a header");
    }
}
