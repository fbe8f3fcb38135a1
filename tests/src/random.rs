//! The same numbers every time: what a seed found once it finds again.

/// SplitMix64.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of the numbers below `n`, and zero if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or_default()
    }

    /// One to five changes: a bit, a byte, a piece taken out, doubled or put elsewhere, or something that parsers dislike. It never leaves nothing.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const DISLIKED: [&[u8]; 15] = [
            b"[[[[[[[[",
            b"{{{{",
            b"\"",
            b"\\u0000",
            b"\\ud800",
            b"\xff\xff",
            b"-1e400",
            b"99999999999999999999",
            b"null",
            b"*x",
            b"&x ",
            b"\n",
            b"<<",
            b"\0",
            b"%",
        ];
        for _ in 0..=self.below(5) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(16)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                4 => bytes.truncate(at.max(1)),
                _ => drop(bytes.splice(at..at, DISLIKED[self.below(DISLIKED.len())].iter().copied())),
            }
        }
        if bytes.is_empty() {
            bytes.push(b'x');
        }
    }
}
