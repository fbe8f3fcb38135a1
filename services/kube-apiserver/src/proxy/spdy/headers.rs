//! Header blocks: name-value pairs in a zlib stream that goes on over all frames of one direction and begins with a preset
//! dictionary.

use super::Error;
use flate2::{Decompress, FlushDecompress, Status};

/// Names and values in order.
pub type Headers = Vec<(String, String)>;

/// A header block may grow to this much.
const LIMIT: usize = 64 * 1024;

/// The dictionary's first half; each word follows its length in four bytes.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// Its second half.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// Adler-32 of the dictionary, by which a stream names it.
const DICTIONARY_ID: [u8; 4] = [0xe3, 0xc6, 0xa7, 0xc2];
/// RFC 1950: deflate with a window of 32 KiB, fastest level, a dictionary follows.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x20];
/// An empty block, as zlib's Z_SYNC_FLUSH writes it. Go's decompressor hands out what it has when it meets one, and takes the end of
/// the frame for a broken stream without it.
const FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];
const HAS_DICTIONARY: u8 = 0x20;

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS {
        put(&mut out, word);
    }
    out.extend_from_slice(TEXT.as_bytes());
    out
}

/// A string after its length.
fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// RFC 1951, 3.2.4: bytes as they are, as deflate blocks.
fn stored(out: &mut Vec<u8>, data: &[u8]) {
    for piece in data.chunks(usize::from(u16::MAX)) {
        let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
        out.push(0);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(piece);
    }
}

/// Writes header blocks. Nothing is made smaller: streams have three short headers.
#[derive(Debug, Default)]
pub struct Writer {
    begun: bool,
}

impl Writer {
    /// Appends a block.
    pub fn write(&mut self, headers: &[(&str, &str)], out: &mut Vec<u8>) {
        if !self.begun {
            out.extend_from_slice(&ZLIB_HEADER);
            out.extend_from_slice(&DICTIONARY_ID);
            self.begun = true;
        }
        let mut plain = Vec::new();
        plain.extend_from_slice(&u32::try_from(headers.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (name, value) in headers {
            put(&mut plain, &name.to_ascii_lowercase());
            put(&mut plain, value);
        }
        stored(out, &plain);
        out.extend_from_slice(&FLUSH);
    }
}

/// Reads header blocks.
#[derive(Debug, Default)]
pub struct Reader {
    inflate: Option<Decompress>,
}

impl Reader {
    /// Reads the block of one frame.
    pub fn read(&mut self, mut block: &[u8]) -> Result<Headers, Error> {
        let inflate = match &mut self.inflate {
            Some(inflate) => inflate,
            none => {
                let (begun, rest) = begin(block)?;
                block = rest;
                none.insert(begun)
            }
        };
        parse(&inflate_block(inflate, block)?)
    }
}

/// Reads the stream's own header; the decompressor it returns has seen the dictionary.
fn begin(block: &[u8]) -> Result<(Decompress, &[u8]), Error> {
    let [method, flags, rest @ ..] = block else { return Err(Error::Headers("the zlib header is missing")) };
    if method & 0x0f != 8 || u16::from_be_bytes([*method, *flags]) % 31 != 0 {
        return Err(Error::Headers("not a zlib stream"));
    }
    let mut inflate = Decompress::new(false);
    if flags & HAS_DICTIONARY == 0 {
        return Ok((inflate, rest));
    }
    let Some(rest) = rest.strip_prefix(&DICTIONARY_ID) else {
        return Err(Error::Headers("another dictionary than SPDY/3's"));
    };
    // What was decompressed before is what later blocks may refer to: a dictionary is a block whose content nobody reads.
    let mut primer = Vec::new();
    stored(&mut primer, &dictionary());
    inflate_block(&mut inflate, &primer)?;
    Ok((inflate, rest))
}

fn inflate_block(inflate: &mut Decompress, block: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut piece = [0; 4096];
    let mut read = 0;
    loop {
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let status = inflate
            .decompress(&block[read..], &mut piece, FlushDecompress::Sync)
            .map_err(|_| Error::Headers("cannot be decompressed"))?;
        let consumed = usize::try_from(inflate.total_in() - before_in).unwrap_or(usize::MAX);
        let produced = usize::try_from(inflate.total_out() - before_out).unwrap_or(usize::MAX);
        read += consumed;
        out.extend_from_slice(&piece[..produced]);
        if out.len() > LIMIT {
            return Err(Error::Headers("too long"));
        }
        if status == Status::StreamEnd {
            return Err(Error::Headers("the compressed stream has ended"));
        }
        if produced < piece.len() && (read == block.len() || consumed == 0) {
            return Ok(out);
        }
    }
}

fn parse(plain: &[u8]) -> Result<Headers, Error> {
    let mut rest = plain;
    let count = number(&mut rest)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut rest)?;
        headers.push((name, text(&mut rest)?));
    }
    Ok(headers)
}

fn number(rest: &mut &[u8]) -> Result<usize, Error> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(Error::Headers("end early"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn text(rest: &mut &[u8]) -> Result<String, Error> {
    let length = number(rest)?;
    let (head, tail) = rest.split_at_checked(length).ok_or(Error::Headers("end early"))?;
    *rest = tail;
    String::from_utf8(head.to_vec()).map_err(|_| Error::Headers("are not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Headers {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn zlibs_own_output_is_read_over_several_frames() {
        // Python: zlib.compressobj(9, DEFLATED, 15, 8, 0, dictionary), a Z_SYNC_FLUSH after each block.
        let mut reader = Reader::default();
        let first =
            "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc64610024398b209198094adc8c0600000000ffff";
        let want = pairs(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
        assert_eq!(reader.read(&bytes(first)), Ok(want));
        let want = pairs(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]);
        assert_eq!(reader.read(&bytes("c2aa15540a2512d209000000ffff")), Ok(want), "refers to the block before");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        for headers in [&[("streamType", "stdin")][..], &[], &[("a", ""), ("b", "c")]] {
            let mut out = Vec::new();
            writer.write(headers, &mut out);
            let want: Headers = headers.iter().map(|(n, v)| (n.to_lowercase(), (*v).to_owned())).collect();
            assert_eq!(reader.read(&out), Ok(want));
            assert!(out.ends_with(&FLUSH), "Go waits for it");
        }
    }

    #[test]
    fn the_dictionary_is_the_one_its_name_says() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((b << 16 | a).to_be_bytes(), DICTIONARY_ID);
        assert_eq!(u16::from_be_bytes(ZLIB_HEADER) % 31, 0, "RFC 1950's check");
    }

    #[test]
    fn rubbish_is_an_error() {
        let stored_block = |plain: &[u8]| {
            let mut out = vec![0x78, 0x01];
            stored(&mut out, plain);
            out
        };
        for bad in [
            &b""[..],
            b"\x78",
            b"\x00\x00",
            b"\x78\x3f\x00\x00\x00\x00",
            b"\x78\x01\xff\xff\xff",
            &stored_block(&[0, 0, 0, 1]),
            &stored_block(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert!(Reader::default().read(bad).is_err(), "{bad:?}");
        }
        let bomb = stored_block(&vec![0; 2 * LIMIT]);
        assert_eq!(Reader::default().read(&bomb), Err(Error::Headers("too long")));
    }
}
