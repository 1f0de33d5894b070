//! A client's certificate as another proxy passes it on: in `X-Client-Cert`, percent-encoded (nexus.md section 1.3).
//!
//! NGINX writes `$ssl_client_escaped_cert`: PEM in which everything but letters, digits and `-_.~` is escaped. Others escape
//! as forms do, leave the armour out, or put text before it and a chain after it; all of this was understood, and is.

use std::borrow::Cow;

use base64::{Engine, alphabet, engine::general_purpose::GeneralPurpose};

use super::Rules;
use crate::model::certificate::{ClientCertificate, MalformedCertificate};

/// Why there is no certificate in a header.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unreadable {
    /// A `%` without two hexadecimal digits after it.
    #[error("the percent-encoding is broken")]
    Encoding,
    /// There is no certificate, or one that is none.
    #[error(transparent)]
    Certificate(#[from] MalformedCertificate),
}

/// Reads the value of `X-Client-Cert`.
///
/// The first block of PEM that can be decoded is the certificate; under the strict rules its label must say so. A `+` is a
/// blank, as in a form; where that leaves no certificate, the strict rules also try it as the character of base64 that a proxy
/// has forgotten to escape.
///
/// # Errors
/// When there is none.
pub fn read(value: &[u8], rules: Rules) -> Result<ClientCertificate, Unreadable> {
    let text = percent_decoded(value).ok_or(Unreadable::Encoding)?;
    let blanks: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let as_form = percent_decoded(&blanks).ok_or(Unreadable::Encoding)?;
    let parse = |text: &[u8]| {
        let der = first_block(text, rules).ok_or(MalformedCertificate)?;
        ClientCertificate::parse(&der)
    };
    let read = match rules {
        Rules::Strict => {
            parse(&as_form).or_else(|malformed| if text == as_form { Err(malformed) } else { parse(&text) })
        }
        Rules::NexusAuth => parse(&as_form),
    };
    Ok(read?)
}

fn percent_decoded(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !value.contains(&b'%') {
        return Some(value.into());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                decoded.push(digit(*high)? << 4 | digit(*low)?);
                after
            }
            (b'%', _) => return None,
            _ => {
                decoded.push(*byte);
                after
            }
        };
    }
    Some(decoded.into())
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
const LABEL: &[u8] = b"CERTIFICATE";

/// What the first block of PEM that can be decoded holds. Text without the beginning of a certificate anywhere is taken for
/// the inside of one.
fn first_block(text: &[u8], rules: Rules) -> Option<Vec<u8>> {
    const BEGINNING: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let armoured;
    let text = if text.windows(BEGINNING.len()).any(|window| window == BEGINNING) {
        text
    } else {
        armoured = [BEGINNING, b"\n", text, b"\n-----END CERTIFICATE-----"].concat();
        &armoured
    };
    let (label, content) = first_decodable(text)?;
    (rules == Rules::NexusAuth || label == LABEL).then_some(content)
}

/// The label and content of the first block that can be decoded. One that is broken off, or ends with another label than it
/// began with, is passed over.
fn first_decodable(text: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let mut open: Option<(&[u8], Vec<u8>)> = None;
    for line in text.split(|byte| *byte == b'\n') {
        let label = |start| line.strip_prefix(start)?.trim_ascii_end().strip_suffix(DASHES);
        if let Some(label) = label(BEGIN) {
            open = Some((label, Vec::new()));
        } else if line.starts_with(END) {
            if let Some((begun, base64)) = open.take()
                && label(END) == Some(begun)
                && let Ok(content) = BASE64.decode(base64)
            {
                return Some((begun, content));
            }
        } else if let Some((_, base64)) = &mut open
            && !(base64.is_empty() && line.contains(&b':'))
        {
            // Lines with a colon at the beginning of a block are its headers (RFC 1421).
            base64.extend(line.iter().filter(|byte| !b" \t\r".contains(byte)));
        }
    }
    None
}

/// Bits that are left over at the end are not looked at, as the replaced system did not: they are not part of what is read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in "(%[0-9a-f]{2}|[-+ a-zA-Z:\\n]|-----(BEGIN|END) [A-Z ]{0,12}-----\\n?|%){0,40}") {
            for rules in [Rules::Strict, Rules::NexusAuth] {
                let _ = read(value.as_bytes(), rules);
            }
        }
    }

    #[test]
    fn percent_signs_need_two_digits() {
        for (value, decoded) in [
            ("", Some("")),
            ("abc", Some("abc")),
            ("%41%4a%4A", Some("AJJ")),
            ("%2B+", Some("++")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%+1", None),
            ("%%41", None),
        ] {
            let found = percent_decoded(value.as_bytes());
            assert_eq!(found.as_deref(), decoded.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn the_first_block_that_can_be_decoded_is_taken() {
        for (text, found) in [
            ("-----BEGIN A-----\nYWJj\n-----END A-----", Some(("A", "abc"))),
            ("before\n-----BEGIN A-----\r\nYW\n Jj \n-----END A-----  \nafter", Some(("A", "abc"))),
            ("-----BEGIN A-----\nHeader: x\nYWJj\n-----END A-----", Some(("A", "abc"))),
            ("-----BEGIN A-----\n-----BEGIN B-----\nYWJj\n-----END B-----\n-----END A-----", Some(("B", "abc"))),
            ("-----BEGIN A-----\nYWJ\n-----END A-----\n-----BEGIN B-----\nYWJj\n-----END B-----", Some(("B", "abc"))),
            ("-----BEGIN A-----\nYWJj\n-----END B-----", None),
            ("-----BEGIN A-----\nYWJj", None),
            (" -----BEGIN A-----\nYWJj\n-----END A-----", None),
            ("-----BEGIN A----- YWJj -----END A-----", None),
            ("-----BEGIN A-----\n-----END A-----", Some(("A", ""))),
            ("", None),
        ] {
            let block = first_decodable(text.as_bytes());
            let block =
                block.map(|(label, content)| (str::from_utf8(label).unwrap(), String::from_utf8(content).unwrap()));
            assert_eq!(block, found.map(|(label, content)| (label, content.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn the_strict_rules_want_the_right_label() {
        let text = b"-----BEGIN PUBLIC KEY-----\nYWJj\n-----END PUBLIC KEY-----\n-----BEGIN CERTIFICATE-----\n";
        assert_eq!(first_block(text, Rules::Strict), None);
        assert_eq!(first_block(text, Rules::NexusAuth), Some(b"abc".to_vec()));
        assert_eq!(first_block(b"YW\nJj", Rules::Strict), Some(b"abc".to_vec()));
    }
}
