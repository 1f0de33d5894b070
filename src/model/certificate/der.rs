//! DER, as much of it as it takes to see that a certificate has one reading only (X.690).

use super::Encoding;

/// Constructed, universal 16.
pub const SEQUENCE: u8 = 0x30;
/// Constructed, universal 17.
pub const SET: u8 = 0x31;
/// Universal 6.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// The version of a certificate: constructed, context-specific 0.
pub const VERSION: u8 = 0xa0;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;

/// How deep elements may be in one another. A certificate's are some eight deep.
const MAX_DEPTH: usize = 24;

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// Class, form and number. Numbers above 30 are not read.
    pub tag: u8,
    pub content: &'a [u8],
}

/// The one element that these bytes are.
pub fn only(bytes: &[u8]) -> Option<Element<'_>> {
    let (element, rest) = first(bytes)?;
    rest.is_empty().then_some(element)
}

/// The first element of these bytes, and what follows it. Its length is in the shortest form.
fn first(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => match rest {
            [one @ 0x80..=0xff, rest @ ..] => (usize::from(*one), rest),
            _ => return None,
        },
        // More than 64 KiB is more than a certificate.
        0x82 => match rest {
            [one @ 1..=0xff, two, rest @ ..] => (usize::from(u16::from_be_bytes([*one, *two])), rest),
            _ => return None,
        },
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((Element { tag, content }, rest))
}

impl<'a> Element<'a> {
    /// What this element consists of, if it has this tag.
    pub fn elements(&self, tag: u8) -> Option<Vec<Element<'a>>> {
        if self.tag == tag { all(self.content) } else { None }
    }

    /// Whether this element and all in it are whole elements, in the one form that DER has for numbers and for booleans.
    pub fn is_well_formed(&self) -> bool {
        self.is_well_formed_at(MAX_DEPTH)
    }

    fn is_well_formed_at(&self, depth: usize) -> bool {
        if self.tag & 0x20 != 0 {
            let Some(inner) = depth.checked_sub(1) else { return false };
            return all(self.content).is_some_and(|parts| parts.iter().all(|part| part.is_well_formed_at(inner)));
        }
        match (self.tag, self.content) {
            (BOOLEAN, content) => matches!(content, [0 | 0xff]),
            // Sequences and sets are never primitive.
            (INTEGER, [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..] | []) | (0x10 | 0x11, _) => false,
            _ => true,
        }
    }

    /// Whether this is a date of the one form that a certificate may have (RFC 5280 §4.1.2.5). Which day it is, if any, is
    /// not looked at.
    pub fn is_date(&self) -> bool {
        let digits = match (self.tag, self.content) {
            (UTC_TIME, [digits @ .., b'Z']) if digits.len() == 12 => digits,
            (GENERALIZED_TIME, [digits @ .., b'Z']) if digits.len() == 14 => digits,
            _ => return false,
        };
        digits.iter().all(u8::is_ascii_digit)
    }

    /// The text that this is, if it has a kind that the replaced system read (nexus.md section 1.3).
    pub fn text(&self) -> Option<(String, Encoding)> {
        let ascii = |encoding, allowed: fn(u8) -> bool| {
            let text = self
                .content
                .iter()
                .copied()
                .all(allowed)
                .then(|| self.content.iter().copied().map(char::from).collect())?;
            Some((text, encoding))
        };
        match self.tag {
            UTF8_STRING => Some((std::str::from_utf8(self.content).ok()?.to_owned(), Encoding::Utf8)),
            PRINTABLE_STRING => ascii(Encoding::Printable, is_printable),
            IA5_STRING => ascii(Encoding::Ia5, |byte| byte.is_ascii()),
            NUMERIC_STRING => ascii(Encoding::Numeric, |byte| byte.is_ascii_digit() || byte == b' '),
            TELETEX_STRING => ascii(Encoding::Teletex, |_| true),
            BMP_STRING => {
                let (units, odd) = self.content.as_chunks::<2>();
                if !odd.is_empty() {
                    return None;
                }
                let mut units: Vec<u16> = units.iter().copied().map(u16::from_be_bytes).collect();
                // Some write C's end of a text.
                if units.last() == Some(&0) {
                    units.pop();
                }
                Some((String::from_utf16_lossy(&units), Encoding::Bmp))
            }
            _ => None,
        }
    }
}

/// The elements that follow one another in these bytes.
fn all(mut bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        let (element, rest) = first(bytes)?;
        elements.push(element);
        bytes = rest;
    }
    Some(elements)
}

/// `PrintableString` has no `*` and no `&`, which are in so many certificates that the replaced system read them.
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?*&".contains(&byte)
}
