//! The key that opens Nevermined access tokens.

use std::fmt;

use base64::{Engine, engine::general_purpose};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A content key of `A128CBC-HS256`: 32 bytes, of which the first half authenticates and the second encrypts
/// (RFC 7518 §5.2). Wiped from memory when dropped; its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey([u8; 32]);

/// Why there is no key in a text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The phrase is not 32 UTF-16 code units long.
    #[error("a key phrase is 32 characters long, and this one has {0}: no token would open")]
    PhraseLength(usize),
    /// Not the base64 form of 32 bytes.
    #[error("a key is 32 random bytes in base64, as `openssl rand -base64 32` makes them")]
    NotAKey,
}

/// Why a key can be guessed. Its text says how to make a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// The replaced system's default, printed in its documentation and built into its image.
    Published,
    /// No digit from 1 to 9 in the phrase: every byte of the key is zero.
    AllZero,
    /// Only this many digits; all other characters of a phrase count as 0.
    FewDigits(usize),
    /// One digit or a short run of them over and over, or the digits in order.
    Pattern,
}

/// The replaced system's default phrase.
const PUBLISHED: &str = "12345678901234567890123456789012";

/// Fewer digits than this (some 66 bits) can be tried out.
const ENOUGH_DIGITS: usize = 20;

impl ContentKey {
    /// Derives the key as the token's issuer does (nevermined.md section 2.2): one byte for each UTF-16 code unit, its
    /// value for an ASCII digit, and 0 for everything else.
    ///
    /// # Errors
    /// When the phrase is not 32 code units long.
    pub fn from_phrase(phrase: &str) -> Result<Self, KeyError> {
        let length = phrase.encode_utf16().count();
        if length != 32 {
            return Err(KeyError::PhraseLength(length));
        }
        let mut key = [0; 32];
        for (byte, unit) in key.iter_mut().zip(phrase.encode_utf16()) {
            *byte = digit(unit).unwrap_or(0);
        }
        Ok(Self(key))
    }

    /// Reads 32 bytes of base64, in the standard or the URL alphabet, with or without padding.
    ///
    /// # Errors
    /// When that is not what the text is.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let engines = [
            general_purpose::STANDARD,
            general_purpose::STANDARD_NO_PAD,
            general_purpose::URL_SAFE,
            general_purpose::URL_SAFE_NO_PAD,
        ];
        let bytes = engines.iter().find_map(|engine| engine.decode(text).ok()).map(Zeroizing::new);
        let bytes: &[u8] = bytes.as_ref().map_or(&[], |bytes| bytes);
        bytes.try_into().map(Self).map_err(|_| KeyError::NotAKey)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Why this key can be guessed, whatever it was made from. None: it cannot, as far as one can see.
    #[must_use]
    pub fn weakness(&self) -> Option<Weakness> {
        if self.0.iter().all(|byte| *byte == 0) {
            return Some(Weakness::AllZero);
        }
        if Self::from_phrase(PUBLISHED).is_ok_and(|published| published == *self) {
            return Some(Weakness::Published);
        }
        let of_digits = self.0.iter().all(|byte| *byte < 10);
        let digits = self.0.iter().filter(|byte| **byte != 0).count();
        // A zero byte may be a real digit 0, of which 32 random digits have three or four.
        if of_digits && digits < ENOUGH_DIGITS.saturating_sub(4) {
            return Some(Weakness::FewDigits(digits));
        }
        patterned(&self.0).then_some(Weakness::Pattern)
    }
}

/// Why the key of a phrase can be guessed (nevermined.md section 2.2). None: it cannot, as far as one can see.
#[must_use]
pub fn weakness_of_phrase(phrase: &str) -> Option<Weakness> {
    if phrase == PUBLISHED {
        return Some(Weakness::Published);
    }
    let digits: Vec<u8> = phrase.encode_utf16().filter_map(digit).collect();
    if digits.iter().all(|digit| *digit == 0) {
        return Some(Weakness::AllZero);
    }
    if digits.len() < ENOUGH_DIGITS {
        return Some(Weakness::FewDigits(digits.len()));
    }
    patterned(&digits).then_some(Weakness::Pattern)
}

/// The value of a UTF-16 code unit that is an ASCII digit.
fn digit(unit: u16) -> Option<u8> {
    let unit = u8::try_from(unit).ok()?;
    unit.is_ascii_digit().then(|| unit.wrapping_sub(b'0'))
}

/// Whether a piece of at most a third of the length is all there is, or each value differs from the one before by the
/// same amount. Neither happens to twenty random digits in a lifetime.
fn patterned(values: &[u8]) -> bool {
    let repeats = |period: usize| values.iter().zip(values.iter().skip(period)).all(|(a, b)| a == b);
    let step = |(a, b): (&u8, &u8)| b.wrapping_add(10).wrapping_sub(*a) % 10;
    let mut steps = values.iter().zip(values.iter().skip(1)).map(step);
    let first = steps.next();
    let climbs = values.iter().all(|value| *value < 10) && steps.all(|step| Some(step) == first);
    climbs || (1..=values.len() / 3).any(repeats)
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published => f.write_str("this is the published default, which everybody knows")?,
            Self::AllZero => f.write_str(
                "it holds no digit from 1 to 9, and only digits count: the key would be 32 zero bytes, which everybody knows",
            )?,
            Self::FewDigits(digits) => {
                write!(f, "only digits count in it, and {digits} of them can be guessed")?;
            }
            Self::Pattern => f.write_str("its digits follow a pattern that can be guessed")?,
        }
        f.write_str(
            "; anybody could make tokens. Make a good key with `openssl rand -base64 32` and name its file as `key_file` or \
             in TOLLGATE_JWT_KEY_FILE; or, if a Nevermined Node issues the tokens, give it and us a phrase of 32 random digits \
             (`tr -dc 0-9 </dev/urandom | head -c 32`)",
        )
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Drop for ContentKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for ContentKey {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(key: &ContentKey) -> String {
        use std::fmt::Write;
        key.as_bytes().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        })
    }

    #[test]
    fn a_phrase_gives_the_key_that_the_issuer_derives() {
        let zero = "00".repeat(32);
        for (phrase, key) in [
            (PUBLISHED, "0102030405060708090001020304050607080900010203040506070809000102"),
            ("correcthorsebatterystapleabcdefg", &zero),
            ("1a2b3c4d5e6f7g8h9i0j1k2l3m4n5o6p", "0100020003000400050006000700080009000000010002000300040005000600"),
            (&"\u{1f511}".repeat(16), &zero),
            (&"\u{0663}".repeat(32), &zero),
        ] {
            assert_eq!(hex(&ContentKey::from_phrase(phrase).unwrap()), key, "{phrase}");
        }
        for (phrase, length) in [("", 0), ("1234", 4), (&"1".repeat(31), 31), (&"1".repeat(33), 33)] {
            assert_eq!(ContentKey::from_phrase(phrase), Err(KeyError::PhraseLength(length)));
        }
    }

    #[test]
    fn phrases_that_can_be_guessed_are_known() {
        let good = "83029174650918273645019283746550";
        for (phrase, weakness) in [
            (PUBLISHED, Some(Weakness::Published)),
            ("correcthorsebatterystapleabcdefg", Some(Weakness::AllZero)),
            ("00000000000000000000000000000000", Some(Weakness::AllZero)),
            ("1a2b3c4d5e6f7g8h9i0j1k2l3m4n5o6p", Some(Weakness::FewDigits(16))),
            ("8302917465091827364abcdefghijklm", Some(Weakness::FewDigits(19))),
            ("83029174650918273645abcdefghijkl", None),
            ("77777777777777777777777777777777", Some(Weakness::Pattern)),
            ("98765432109876543210987654321098", Some(Weakness::Pattern)),
            ("12341234123412341234123412341234", Some(Weakness::Pattern)),
            ("23456789012345678901234567890123", Some(Weakness::Pattern)),
            (good, None),
        ] {
            assert_eq!(weakness_of_phrase(phrase), weakness, "{phrase}");
        }
        assert_eq!(ContentKey::from_phrase(good).unwrap().weakness(), None);
        assert_eq!(ContentKey::from_phrase(PUBLISHED).unwrap().weakness(), Some(Weakness::Published));
        let text = Weakness::AllZero.to_string();
        assert!(text.contains("openssl rand -base64 32") && text.contains("32 random digits"), "{text}");
    }

    #[test]
    fn a_key_is_thirty_two_bytes_of_base64() {
        let bytes: [u8; 32] = std::array::from_fn(|i| u8::try_from(255 - i * 7 % 256).unwrap());
        for engine in [general_purpose::STANDARD, general_purpose::URL_SAFE_NO_PAD] {
            assert_eq!(ContentKey::from_base64(&engine.encode(bytes)).unwrap().as_bytes(), &bytes);
        }
        assert_eq!(ContentKey::from_base64(&general_purpose::STANDARD.encode(bytes)).unwrap().weakness(), None);
        let zero = ContentKey::from_base64(&general_purpose::STANDARD.encode([0; 32])).unwrap();
        assert_eq!(zero.weakness(), Some(Weakness::AllZero));
        for bad in ["", "x", &general_purpose::STANDARD.encode([1; 31]), &general_purpose::STANDARD.encode([1; 33])] {
            assert_eq!(ContentKey::from_base64(bad), Err(KeyError::NotAKey), "{bad}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = ContentKey::from_phrase(PUBLISHED).unwrap();
        assert_eq!(format!("{key:?}"), "[secret]");
    }
}
