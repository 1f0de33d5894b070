//! From a presented credential to an identity.
//!
//! Everything here is a function of the credential, the keys and the time. It knows neither Pingora nor axum. What the
//! holder of an identity may do is `authz`' question.

use crate::model::decision::Denial;

pub mod certificate;
mod genuine;
pub mod jwt;
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

    /// What would be the token, if all of it were one: what follows a scheme and a space. It has not been looked into, and
    /// is good for nothing but to be found among the tokens that are known. None: [`Self::token`] has to look.
    fn unverified_rest(&self) -> Option<&'a [u8]> {
        let value = self.0?;
        let space = value.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = value.split_at_checked(space)?;
        let is_scheme = !scheme.is_empty() && scheme.iter().all(u8::is_ascii_graphic);
        if is_scheme { rest.get(1..) } else { None }
    }

    /// The token in the header: the second of the words that single spaces separate, or the only one
    /// (nevermined.md section 2.5). The scheme may be any word, and what follows the token is ignored.
    ///
    /// # Errors
    /// `malformed_authorization` when there is a header and no token in it: it is empty, holds only a scheme, has two
    /// spaces before the token, or bytes that are not visible ASCII. A header is never the same as none.
    pub fn token(&self) -> Result<Option<&'a str>, Denial> {
        let malformed = Denial::InvalidCredential("malformed_authorization");
        let Some(value) = self.text()? else { return Ok(None) };
        let Some((scheme, rest)) = value.split_once(' ') else {
            // Every token that exists has dots, and no scheme has: without them this is a scheme that lost its token.
            return if value.contains('.') { Ok(Some(value)) } else { Err(malformed) };
        };
        let token = first_word(rest);
        if scheme.is_empty() || token.is_empty() { Err(malformed) } else { Ok(Some(token)) }
    }

    /// The token of `Bearer` credentials (RFC 6750 section 2.1), whose scheme may be written in any case.
    ///
    /// # Errors
    /// `malformed_authorization` when there is a header of another scheme or form. A header is never the same as none.
    pub fn bearer(&self) -> Result<Option<&'a str>, Denial> {
        let malformed = Denial::InvalidCredential("malformed_authorization");
        let Some(value) = self.text()? else { return Ok(None) };
        let (scheme, rest) = value.split_once(' ').ok_or(malformed.clone())?;
        let token = rest.trim_start_matches(' ');
        let good = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ');
        if good { Ok(Some(token)) } else { Err(malformed) }
    }

    /// Whether this is a bearer token in three parts, as signed ones have (RFC 7515 section 7.1); encrypted ones have five.
    #[must_use]
    pub fn is_signed_token(&self) -> bool {
        matches!(self.bearer(), Ok(Some(token)) if token.bytes().filter(|byte| *byte == b'.').count() == 2)
    }

    /// The header's value, if there is one.
    fn text(&self) -> Result<Option<&'a str>, Denial> {
        let Some(value) = self.0 else { return Ok(None) };
        // Looks at every byte, since that is many at once: a token is long, and nearly always there is no such byte.
        let visible = value.iter().fold(true, |visible, byte| visible & matches!(byte, b' '..=b'~'));
        let text = std::str::from_utf8(value).ok().filter(|_| visible);
        text.map(Some).ok_or(Denial::InvalidCredential("malformed_authorization"))
    }
}

/// The text up to the first space.
fn first_word(text: &str) -> &str {
    // Looks at every byte, since that is many at once, unlike a search. A token is long, and nothing follows it as a rule.
    let followed = text.bytes().fold(false, |followed, byte| followed | matches!(byte, b' '));
    if followed { text.split(' ').next().unwrap_or_default() } else { text }
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
    fn bearer_credentials_have_one_form() {
        let bearer = |value: &str| {
            let authorization = Authorization::from_values([value.as_bytes()])?;
            Ok((authorization.bearer()?.map(str::to_owned), authorization.is_signed_token()))
        };
        for (value, token, signed) in [
            ("Bearer a.b.c", "a.b.c", true),
            ("bEARER a.b.c", "a.b.c", true),
            ("Bearer  a.b.c", "a.b.c", true),
            ("Bearer a.b.c.d.e", "a.b.c.d.e", false),
            ("Bearer a.b", "a.b", false),
            ("Bearer opaque", "opaque", false),
        ] {
            assert_eq!(bearer(value), Ok((Some(token.to_owned()), signed)), "{value:?}");
        }
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "a.b.c",
            " a.b.c",
            " Bearer a.b.c",
            "Basic a.b.c",
            "DPoP a.b.c",
            "Bearer a.b.c ",
            "Bearer a.b.c d",
            "Bearer\ta.b.c",
            "Bearer a.b.c\t",
            "Bearer \u{e9}.b.c",
        ] {
            assert_eq!(bearer(value), Err(Denial::InvalidCredential("malformed_authorization")), "{value:?}");
        }
        let none = Authorization::from_values([]).unwrap();
        assert_eq!((none.bearer(), none.is_signed_token()), (Ok(None), false));
    }

    #[test]
    fn two_headers_are_refused_even_if_they_are_alike_or_empty() {
        for values in [["Bearer a.b", "Bearer c.d"], ["Bearer a.b", "Bearer a.b"], ["", "Bearer a.b"], ["", ""]] {
            let refused = Authorization::from_values(values.map(str::as_bytes)).err();
            assert_eq!(refused, Some(Denial::BadRequest("two_credentials")), "{values:?}");
        }
    }
}
