//! From a presented credential to an identity.
//!
//! Everything here is a function of the credential, the keys and the time. It knows neither Pingora nor axum. What the
//! holder of an identity may do is `authz`' question.

use crate::model::decision::Denial;

pub mod certificate;
pub mod nevermined;
pub mod signed;

/// What a request carries that may prove who is calling.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The `Authorization` header.
    pub authorization: Authorization<'a>,
}

/// The `Authorization` header of a request: absent or present, and not yet looked into.
#[derive(Clone, Copy)]
pub struct Authorization<'a>(Option<&'a [u8]>);

impl<'a> Authorization<'a> {
    /// Takes the values of all `Authorization` headers of a request.
    ///
    /// # Errors
    /// `two_credentials` when there is more than one: we and the upstream could each believe another one.
    pub fn from_values(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Denial> {
        let mut values = values.into_iter();
        let value = values.next();
        match values.next() {
            None => Ok(Self(value)),
            Some(_) => Err(Denial::BadRequest("two_credentials")),
        }
    }

    /// The token in the header: the second of the words that single spaces separate, or the only one
    /// (nevermined.md section 2.5). The scheme may be any word, and what follows the token is ignored.
    ///
    /// # Errors
    /// `malformed_authorization` when there is a header and no token in it: it is empty, holds only a scheme, has two
    /// spaces before the token, or bytes that are not visible ASCII. A header is never the same as none.
    pub fn token(&self) -> Result<Option<&'a str>, Denial> {
        let Some(value) = self.0 else { return Ok(None) };
        let malformed = Denial::InvalidCredential("malformed_authorization");
        // Looks at every byte, since that is many at once: a token is long, and nearly always there is no such byte.
        if !value.iter().fold(true, |visible, byte| visible & matches!(byte, b' '..=b'~')) {
            return Err(malformed);
        }
        let Ok(value) = std::str::from_utf8(value) else { return Err(malformed) };
        let mut words = value.split(' ');
        match (words.next(), words.next()) {
            // Every token that exists has dots, and no scheme has: without them this is a scheme that lost its token.
            (Some(only), None) if only.contains('.') => Ok(Some(only)),
            (Some(scheme), Some(token)) if !scheme.is_empty() && !token.is_empty() => Ok(Some(token)),
            _ => Err(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(value: &str) -> Result<Option<String>, Denial> {
        Ok(Authorization::from_values([value.as_bytes()])?.token()?.map(str::to_owned))
    }

    #[test]
    fn the_token_is_the_second_word_or_the_only_one() {
        for (value, expected) in [
            ("Bearer a.b", "a.b"),
            ("bearer a.b", "a.b"),
            ("foo a.b", "a.b"),
            ("a.b", "a.b"),
            ("Bearer a.b and more", "a.b"),
            ("Bearer a.b ", "a.b"),
            ("Bearer ab", "ab"), // not a token we know, and it is not ours to say so
        ] {
            assert_eq!(token(value), Ok(Some(expected.to_owned())), "{value:?}");
        }
    }

    #[test]
    fn a_header_without_a_token_is_not_the_same_as_no_header() {
        for value in [
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Bearer  a.b",
            " a.b",
            "a.b ",
            "  ",
            "Bearer\ta.b",
            "Bearer a.b\t",
            "Bearer a.b\r\nX: y",
            "Bearer a\0.b",
            "Bearer a.b\x7f",
            "Bearer é.b",
        ] {
            assert_eq!(token(value), Err(Denial::InvalidCredential("malformed_authorization")), "{value:?}");
        }
        let latin = Authorization::from_values([b"Bearer \xe9.b".as_slice()]).unwrap();
        assert_eq!(latin.token(), Err(Denial::InvalidCredential("malformed_authorization")));
        assert_eq!(Authorization::from_values([]).unwrap().token(), Ok(None));
    }

    #[test]
    fn two_headers_are_refused_even_if_they_are_alike_or_empty() {
        for values in [["Bearer a.b", "Bearer c.d"], ["Bearer a.b", "Bearer a.b"], ["", "Bearer a.b"], ["", ""]] {
            let refused = Authorization::from_values(values.map(str::as_bytes)).err();
            assert_eq!(refused, Some(Denial::BadRequest("two_credentials")), "{values:?}");
        }
    }
}
