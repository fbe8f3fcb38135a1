//! How passwords are kept: PBKDF2 with HMAC-SHA-512 (RFC 8018), salted, as `pbkdf2-sha512$rounds$salt$sum` in hexadecimal.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA512};

const NAME: &str = "pbkdf2-sha512";
/// About a tenth of a second, as etcd's passwords take.
const ROUNDS: NonZeroU32 = NonZeroU32::new(210_000).expect("not zero");
const SALT_BYTES: usize = 16;
const SUM_BYTES: usize = 32;

/// What is kept of a password. Takes long: not for the runtime's workers.
pub fn hash(password: &str) -> String {
    let salt: [u8; SALT_BYTES] = rand::random();
    let mut sum = [0; SUM_BYTES];
    pbkdf2::derive(PBKDF2_HMAC_SHA512, ROUNDS, &salt, password.as_bytes(), &mut sum);
    format!("{NAME}${ROUNDS}${}${}", hex(&salt), hex(&sum))
}

/// Whether this is the password; no, if what was kept is of another form. Takes long: not for the runtime's workers.
pub fn verify(kept: &str, password: &str) -> bool {
    let parts: Vec<&str> = kept.split('$').collect();
    let [NAME, rounds, salt, sum] = parts[..] else { return false };
    let (Ok(rounds), Some(salt), Some(sum)) = (rounds.parse(), unhex(salt), unhex(sum)) else { return false };
    pbkdf2::verify(PBKDF2_HMAC_SHA512, rounds, &salt, password.as_bytes(), &sum).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_fits_what_was_kept_of_it() {
        let kept = hash("secret");
        assert!(verify(&kept, "secret") && !verify(&kept, "Secret") && !verify(&kept, ""));
        assert_ne!(kept, hash("secret"), "salted");
        for other in ["", "secret", "pbkdf2-sha512$0$00$00", "pbkdf2-sha512$1$zz$00", "md5$1$00$00"] {
            assert!(!verify(other, "secret") && !verify(other, ""), "{other}");
        }
    }
}
