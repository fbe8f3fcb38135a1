//! Frames.

use super::Error;
use super::headers::{Headers, Reader, Writer};
use bytes::{Buf, Bytes, BytesMut};

const VERSION: u16 = 3;
const HEAD: usize = 8;
const FIN: u8 = 1;
/// No control frame of a peer comes near this.
const CONTROL_LIMIT: usize = 64 * 1024;
/// The length field has 24 bits.
const DATA_LIMIT: usize = (1 << 24) - 1;

/// The types of control frames.
mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
}

/// What one side tells the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    Open {
        /// Its number; odd ones are the client's.
        stream: u32,
        /// What it is for.
        headers: Headers,
    },
    /// Accepts a stream.
    Accept {
        /// Its number.
        stream: u32,
        /// Usually none.
        headers: Headers,
    },
    /// Ends a stream in both directions.
    Reset {
        /// Its number.
        stream: u32,
        /// Why.
        status: u32,
    },
    /// To be sent back by the other side.
    Ping(u32),
    /// No more streams.
    GoAway,
    /// Data of a stream, or a part of it.
    Data {
        /// Its number.
        stream: u32,
        /// The sender's half of the stream ends here.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
    /// Something that exec and attach can do without: settings, late headers, window updates.
    Other(u16),
}

/// Turns frames into bytes.
#[derive(Debug, Default)]
pub struct Encoder {
    headers: Writer,
}

impl Encoder {
    /// SYN_STREAM.
    pub fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Bytes {
        let mut body = Vec::new();
        body.extend_from_slice(&stream.to_be_bytes());
        // No stream it belongs to, highest priority, no slot.
        body.extend_from_slice(&[0; 6]);
        self.headers.write(headers, &mut body);
        control(kind::SYN_STREAM, &body)
    }

    /// SYN_REPLY.
    pub fn accept(&mut self, stream: u32) -> Bytes {
        let mut body = stream.to_be_bytes().to_vec();
        self.headers.write(&[], &mut body);
        control(kind::SYN_REPLY, &body)
    }

    /// PING.
    pub fn ping(id: u32) -> Bytes {
        control(kind::PING, &id.to_be_bytes())
    }

    /// Data, in as many frames as it needs; `fin` ends the sender's half.
    pub fn data(stream: u32, mut data: &[u8], fin: bool) -> Bytes {
        let mut out = Vec::with_capacity(data.len() + HEAD);
        loop {
            let (piece, rest) = data.split_at(data.len().min(DATA_LIMIT));
            data = rest;
            let flags = if fin && data.is_empty() { FIN } else { 0 };
            out.extend_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
            put_length(&mut out, flags, piece.len());
            out.extend_from_slice(piece);
            if data.is_empty() {
                return out.into();
            }
        }
    }
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(body.len() + HEAD);
    out.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    put_length(&mut out, 0, body.len());
    out.extend_from_slice(body);
    out.into()
}

fn put_length(out: &mut Vec<u8>, flags: u8, length: usize) {
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[flags, high, middle, low]);
}

/// Turns bytes into frames. Data is passed on as it comes, so that no frame has to be kept whole.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Where received bytes are appended.
    pub input: BytesMut,
    headers: Reader,
    rest: Option<Rest>,
}

/// What is still to come of a data frame.
#[derive(Clone, Copy, Debug)]
struct Rest {
    stream: u32,
    fin: bool,
    length: usize,
}

impl Decoder {
    /// The next frame; `None` until more bytes have come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        if let Some(rest) = self.rest {
            return Ok(self.data(rest));
        }
        let Some(head) = self.input.first_chunk::<HEAD>().copied() else { return Ok(None) };
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if head[0] & 0x80 == 0 {
            self.input.advance(HEAD);
            let stream = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            return Ok(self.data(Rest { stream, fin: head[4] & FIN != 0, length }));
        }
        let version = u16::from_be_bytes([head[0] & 0x7f, head[1]]);
        if version != VERSION {
            return Err(Error::Version(version));
        }
        if length > CONTROL_LIMIT {
            return Err(Error::TooLong(length));
        }
        if self.input.len() < HEAD + length {
            return Ok(None);
        }
        let frame = self.input.split_to(HEAD + length);
        self.control(u16::from_be_bytes([head[2], head[3]]), &frame[HEAD..]).map(Some)
    }

    fn data(&mut self, rest: Rest) -> Option<Frame> {
        let available = self.input.len().min(rest.length);
        let length = rest.length - available;
        // An empty frame can be complete without a byte.
        if available == 0 && length > 0 {
            self.rest = Some(rest);
            return None;
        }
        self.rest = (length > 0).then_some(Rest { length, ..rest });
        let data = self.input.split_to(available).freeze();
        Some(Frame::Data { stream: rest.stream, fin: rest.fin && length == 0, data })
    }

    fn control(&mut self, kind: u16, body: &[u8]) -> Result<Frame, Error> {
        let number = |at: usize| -> Result<u32, Error> {
            let bytes = body.get(at..).and_then(|b| b.first_chunk::<4>()).ok_or(Error::Short)?;
            Ok(u32::from_be_bytes(*bytes))
        };
        let stream = || number(0).map(|n| n & 0x7fff_ffff);
        Ok(match kind {
            kind::SYN_STREAM => {
                let block = body.get(10..).ok_or(Error::Short)?;
                Frame::Open { stream: stream()?, headers: self.headers.read(block)? }
            }
            kind::SYN_REPLY => {
                let block = body.get(4..).ok_or(Error::Short)?;
                Frame::Accept { stream: stream()?, headers: self.headers.read(block)? }
            }
            kind::HEADERS => {
                // Read all the same: later blocks may refer to it.
                self.headers.read(body.get(4..).ok_or(Error::Short)?)?;
                Frame::Other(kind)
            }
            kind::RST_STREAM => Frame::Reset { stream: stream()?, status: number(4)? },
            kind::PING => Frame::Ping(number(0)?),
            kind::GOAWAY => Frame::GoAway,
            other => Frame::Other(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that `bytes` hold, handed over `step` bytes at a time.
    fn decode(bytes: &[u8], step: usize) -> Result<Vec<Frame>, Error> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.input.extend_from_slice(piece);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn data(stream: u32, text: &'static str, fin: bool) -> Frame {
        Frame::Data { stream, fin, data: Bytes::from_static(text.as_bytes()) }
    }

    #[test]
    fn frames_survive_the_wire() {
        let mut encoder = Encoder::default();
        let bytes = [
            encoder.open(1, &[("streamType", "error")]),
            encoder.open(3, &[("streamType", "stdin")]),
            encoder.accept(1),
            Encoder::data(3, b"abc", false),
            Encoder::data(3, b"", true),
            Encoder::ping(7),
        ]
        .concat();
        let headers = |v: &str| vec![("streamtype".to_owned(), v.to_owned())];
        let want = vec![
            Frame::Open { stream: 1, headers: headers("error") },
            Frame::Open { stream: 3, headers: headers("stdin") },
            Frame::Accept { stream: 1, headers: Vec::new() },
            data(3, "abc", false),
            data(3, "", true),
            Frame::Ping(7),
        ];
        assert_eq!(decode(&bytes, bytes.len()), Ok(want.clone()));
        // Byte by byte, data comes in pieces and only the last one ends the stream.
        let mut pieces = want;
        pieces.splice(3..4, [data(3, "a", false), data(3, "b", false), data(3, "c", false)]);
        assert_eq!(decode(&bytes, 1), Ok(pieces));
    }

    #[test]
    fn the_last_piece_of_a_frame_carries_its_end() {
        let bytes = Encoder::data(5, b"xyz", true);
        assert_eq!(decode(&bytes, 10), Ok(vec![data(5, "xy", false), data(5, "z", true)]));
    }

    #[test]
    fn resets_and_frames_nobody_needs_are_told_apart() {
        let reset = control(kind::RST_STREAM, &[0, 0, 0, 5, 0, 0, 0, 2]);
        let bytes = [reset, control(kind::GOAWAY, &[0; 8]), control(4, &[0; 4]), control(9, &[0; 8])].concat();
        let want = vec![Frame::Reset { stream: 5, status: 2 }, Frame::GoAway, Frame::Other(4), Frame::Other(9)];
        assert_eq!(decode(&bytes, 3), Ok(want));
    }

    #[test]
    fn rubbish_is_an_error() {
        assert_eq!(decode(b"\x80\x02\x00\x01\x00\x00\x00\x00", 8), Err(Error::Version(2)));
        assert_eq!(decode(b"\x80\x03\x00\x01\x00\xff\xff\xff", 8), Err(Error::TooLong(0x00ff_ffff)));
        assert_eq!(decode(b"\x80\x03\x00\x06\x00\x00\x00\x01\x00", 9), Err(Error::Short));
        assert_eq!(decode(b"\x80\x03\x00\x01\x00\x00\x00\x00", 8), Err(Error::Short));
        // Random bytes must never panic.
        let mut seed = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .take(4096)
        .collect();
        for start in 0..1024 {
            let _ = decode(&noise[start..], 61);
        }
    }
}
