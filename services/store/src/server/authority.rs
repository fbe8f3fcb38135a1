//! Lets in requests whose `:authority` is a whole URL.
//!
//! etcd's own clients up to 3.4 dial a single endpoint (`etcdctl endpoint status`, `endpoint hashkv`, `defrag`,
//! `move-leader`) by a target that holds the URL with its scheme, and gRPC-Go sends that target as the authority:
//! `http://127.0.0.1:2379`. RFC 9113, 8.3.1, wants host and port alone, and h2 ends such a stream with PROTOCOL_ERROR before
//! anyone else sees it. etcd's server never looks at this field, and neither does this one.
//!
//! So the bytes are made acceptable before h2 reads them: `://` becomes `x--`, whose characters have codes of the same lengths
//! in HPACK (RFC 7541, appendix B). No frame, no string and no entry of the table of headers changes its size, so nothing
//! else has to be known about the connection; all other bytes pass as they are.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// h2 refuses larger frames unless it is told otherwise.
const FRAME_LIMIT: usize = 16 << 10;
/// The place of `:authority` in HPACK's static table.
const AUTHORITY: u64 = 1;

/// A beginning of an authority, as the first bits of 64, and what replaces it.
struct Rewrite {
    huffman: bool,
    bits: u32,
    from: u64,
    to: u64,
}

/// Code and length of the characters that are needed (RFC 7541, appendix B).
const fn code(character: u8) -> (u64, u32) {
    match character {
        b'h' => (0b10_0111, 6),
        b't' => (0b0_1001, 5),
        b'p' => (0b10_1011, 6),
        b's' => (0b0_1000, 5),
        b':' => (0b101_1100, 7),
        b'x' => (0b111_1001, 7),
        b'/' => (0b01_1000, 6),
        b'-' => (0b01_0110, 6),
        _ => panic!("a character without a code"),
    }
}

/// Packs text into the first bits of 64; also returns how many.
const fn pack(text: &[u8], huffman: bool) -> (u64, u32) {
    let (mut all, mut bits, mut place) = (0, 0, 0);
    while place < text.len() {
        let (code, length) = if huffman { code(text[place]) } else { (text[place] as u64, 8) };
        bits += length;
        all |= code << (64 - bits);
        place += 1;
    }
    (all, bits)
}

const fn rewrite(from: &[u8], to: &[u8], huffman: bool) -> Rewrite {
    let ((from, bits), (to, same)) = (pack(from, huffman), pack(to, huffman));
    assert!(bits == same, "the sizes differ");
    Rewrite { huffman, bits, from, to }
}

const REWRITES: [Rewrite; 4] = [
    rewrite(b"http://", b"httpx--", true),
    rewrite(b"https://", b"httpsx--", true),
    rewrite(b"http://", b"httpx--", false),
    rewrite(b"https://", b"httpsx--", false),
];

/// Where the next byte belongs.
enum State {
    /// So many bytes of the preface were there.
    Preface(usize),
    /// So many bytes of a frame's header are known.
    Header([u8; FRAME_HEADER], usize),
    /// So many bytes of a frame's payload are still to come.
    Payload(usize),
    /// This is not HTTP/2.
    Other,
}

/// A connection whose incoming bytes are corrected.
pub struct Corrected<S> {
    inner: S,
    state: State,
    /// Payload of a frame of headers that came in pieces.
    held: Vec<u8>,
    /// Of `held`, what the reader has got.
    given: usize,
    /// What is missing in `held`.
    missing: usize,
    flags: u8,
}

impl<S> Corrected<S> {
    /// Wraps a server's end of a connection.
    pub fn new(inner: S) -> Self {
        Corrected { inner, state: State::Preface(0), held: Vec::new(), given: 0, missing: 0, flags: 0 }
    }

    /// Looks through arrived bytes and corrects complete frames of headers; returns how many bytes may go on. The rest is the
    /// beginning of a frame, and was taken into `held`.
    fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Preface(seen) if bytes[at] == PREFACE[*seen] => {
                    (*seen, at) = (*seen + 1, at + 1);
                    if *seen == PREFACE.len() {
                        self.state = State::Header([0; FRAME_HEADER], 0);
                    }
                }
                State::Preface(_) => self.state = State::Other,
                State::Header(header, known) => {
                    header[*known] = bytes[at];
                    (*known, at) = (*known + 1, at + 1);
                    if *known < FRAME_HEADER {
                        continue;
                    }
                    let size = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                    let (kind, flags) = (header[3], header[4]);
                    self.state = State::Header([0; FRAME_HEADER], 0);
                    if kind != HEADERS || size > FRAME_LIMIT {
                        self.state = State::Payload(size);
                    } else if let Some(payload) = bytes.get_mut(at..at + size) {
                        correct(payload, flags);
                        at += size;
                    } else {
                        self.held.extend_from_slice(&bytes[at..]);
                        (self.missing, self.flags) = (size - self.held.len(), flags);
                        return at;
                    }
                }
                State::Payload(0) => self.state = State::Header([0; FRAME_HEADER], 0),
                State::Payload(left) => {
                    let step = (*left).min(bytes.len() - at);
                    (*left, at) = (*left - step, at + step);
                }
                State::Other => return bytes.len(),
            }
        }
        at
    }

    /// Gives the reader what was held back; returns whether there was something.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = &self.held[self.given..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.given += count;
        if self.given == self.held.len() {
            self.held = Vec::new();
            self.given = 0;
        }
        count > 0
    }
}

impl<S: AsyncRead + Unpin> Corrected<S> {
    /// Reads until the frame in `held` is complete, or the connection ends.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.missing > 0 {
            let mut some = [0; 512];
            let wanted = self.missing.min(some.len());
            let mut piece = ReadBuf::new(&mut some[..wanted]);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece))?;
            match piece.filled() {
                [] => self.missing = 0,
                filled => {
                    self.missing -= filled.len();
                    self.held.extend_from_slice(filled);
                    if self.missing == 0 {
                        correct(&mut self.held, self.flags);
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Corrects the payload of a frame of headers.
fn correct(payload: &mut [u8], flags: u8) {
    let padding = usize::from(flags & PADDED != 0);
    let priority = if flags & PRIORITY != 0 { 5 } else { 0 };
    let Some(block) = payload.get_mut(padding + priority..) else { return };
    let Some((value, huffman)) = authority(block) else { return };
    let Some(value) = block.get_mut(value) else { return };
    let mut first = [0; 8];
    let count = value.len().min(first.len());
    first[..count].copy_from_slice(&value[..count]);
    let bits = u64::from_be_bytes(first);
    let mask = |bits: u32| u64::MAX << (64 - bits);
    let fits = |r: &&Rewrite| r.huffman == huffman && r.bits as usize <= 8 * count;
    let known = REWRITES.iter().filter(fits).find(|r| bits & mask(r.bits) == r.from);
    if let Some(Rewrite { bits: length, to, .. }) = known {
        let corrected = (bits & !mask(*length)) | to;
        value[..count].copy_from_slice(&corrected.to_be_bytes()[..count]);
    }
}

/// The place of a literal `:authority`'s value in a block of headers, and whether it is in Huffman's code. Clients send it in
/// full once and refer to it in later requests.
fn authority(block: &[u8]) -> Option<(Range<usize>, bool)> {
    let mut at = 0;
    loop {
        let first = *block.get(at)?;
        let (name, after) = match first {
            0x80.. => (None, integer(block, at, 7)?.1),
            0x40.. => integer(block, at, 6).map(|(name, after)| (Some(name), after))?,
            0x20.. => (None, integer(block, at, 5)?.1),
            _ => integer(block, at, 4).map(|(name, after)| (Some(name), after))?,
        };
        at = after;
        let Some(name) = name else { continue };
        if name == 0 {
            at = string(block, at)?.end;
        }
        if name == AUTHORITY {
            let huffman = *block.get(at)? & 0x80 != 0;
            return Some((string(block, at)?, huffman));
        }
        at = string(block, at)?.end;
    }
}

/// Reads an integer whose first byte has `prefix` bits of it (RFC 7541, 5.1); returns it and what comes after.
fn integer(block: &[u8], mut at: usize, prefix: u32) -> Option<(u64, usize)> {
    let full = (1 << prefix) - 1;
    let mut value = u64::from(*block.get(at)?) & full;
    at += 1;
    if value < full {
        return Some((value, at));
    }
    for shift in (0..28).step_by(7) {
        let byte = u64::from(*block.get(at)?);
        at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// Where the text of the string is whose length stands at `at`.
fn string(block: &[u8], at: usize) -> Option<Range<usize>> {
    let (length, start) = integer(block, at, 7)?;
    Some(start..start.checked_add(usize::try_from(length).ok()?)?)
}

impl<S: AsyncRead + Unpin> AsyncRead for Corrected<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_held(cx))?;
            if buf.remaining() == 0 || self.give(buf) {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
            let arrived = buf.filled().len() - before;
            let passed = self.pass(&mut buf.filled_mut()[before..]);
            buf.set_filled(before + passed);
            if passed > 0 || arrived == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corrected<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A frame of headers: `:method POST`, `:scheme http`, the authority as given, and one header with a name of its own.
    fn request(authority: &[u8], flags: u8, before: &[u8]) -> Vec<u8> {
        let block = [before, &[0x83, 0x86], authority, &[0x40, 1, b'n', 2, b'v', b'v']].concat();
        let size = u8::try_from(block.len()).unwrap();
        [&[0, 0, size, HEADERS, flags, 0, 0, 0, 1], block.as_slice()].concat()
    }

    fn literal(name: u8, huffman: bool, value: &[u8]) -> Vec<u8> {
        let size = u8::try_from(value.len()).unwrap();
        [&[name, size | if huffman { 0x80 } else { 0 }], value].concat()
    }

    /// `http://127.0.0.1:18999` as gRPC-Go sends it.
    const CODED: [u8; 16] =
        [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x05, 0xe7, 0xdf, 0x7f];

    async fn through(bytes: Vec<u8>, piece: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(piece);
        let sending = tokio::spawn(async move {
            client.write_all(&bytes).await.unwrap();
            client
        });
        let mut out = Vec::new();
        let reading = async {
            let mut corrected = Corrected::new(server);
            let mut some = [0; 64];
            loop {
                match corrected.read(&mut some).await.unwrap() {
                    0 => return,
                    count => out.extend_from_slice(&some[..count]),
                }
            }
        };
        tokio::join!(async { drop(sending.await.unwrap()) }, reading);
        out
    }

    #[tokio::test]
    async fn an_authority_with_a_scheme_is_corrected_in_place() {
        let plain = |text: &str| literal(0x41, false, text.as_bytes());
        let mut coded = CODED;
        coded[..6].copy_from_slice(&[0x9d, 0x29, 0xaf, 0xca, 0xcb, 0x04]);
        let cases = [
            (plain("http://[::1]:2379"), plain("httpx--[::1]:2379")),
            (plain("https://a:1"), plain("httpsx--a:1")),
            (plain("http:80"), plain("http:80")),
            (plain("127.0.0.1:2379"), plain("127.0.0.1:2379")),
            (plain(""), plain("")),
            (literal(0x01, false, b"http://a"), literal(0x01, false, b"httpx--a")),
            // Any other header may hold a URL.
            (literal(0x44, false, b"http://a"), literal(0x44, false, b"http://a")),
            (literal(0x41, true, &CODED), literal(0x41, true, &coded)),
        ];
        for (sent, expected) in cases {
            for (flags, before) in [(0, [].as_slice()), (PADDED, &[0]), (PADDED | PRIORITY, &[0, 0, 0, 0, 0, 9])] {
                let stream = |authority: &[u8]| {
                    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                    let data = [0, 0, 7, 0, 0, 0, 0, 0, 1].into_iter().chain(*b"http://").collect::<Vec<u8>>();
                    let headers = request(authority, flags, before);
                    [PREFACE, &settings, &headers, &data, &headers].concat()
                };
                for piece in [1, 10, 4096] {
                    assert_eq!(through(stream(&sent), piece).await, stream(&expected), "{sent:?} in pieces of {piece}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_http2_passes() {
        let request = b"GET http://a/ HTTP/1.1\r\nHost: http://a\r\n\r\n".to_vec();
        assert_eq!(through(request.clone(), 7).await, request);
        // A connection that ends within a frame.
        let cut = [PREFACE, &request_head(100), b"half"].concat();
        assert_eq!(through(cut.clone(), 4096).await, cut);
    }

    fn request_head(size: u8) -> [u8; FRAME_HEADER] {
        [0, 0, size, HEADERS, 0, 0, 0, 0, 1]
    }

    proptest! {
        #[test]
        fn nothing_changes_its_size(bytes in prop::collection::vec(any::<u8>(), 0..200), flags in any::<u8>()) {
            let mut payload = bytes.clone();
            correct(&mut payload, flags);
            prop_assert_eq!(payload.len(), bytes.len());
        }
    }
}
