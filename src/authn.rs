//! From a presented credential to an identity.
//!
//! Everything here is a function of the credential, the keys and the time. It knows neither Pingora nor axum, and asks
//! nobody: what the holder of an identity may do is `authz`' question.

use crate::model::decision::Denial;

pub mod nevermined;

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
        if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
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
