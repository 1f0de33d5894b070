//! Which resource servers a token is for (RFC 8707).

use serde::Deserialize;

use super::{Code, Error};

/// `resource`, once or several times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Resources {
    /// Several times.
    Several(Vec<String>),
    /// Once.
    One(String),
    /// Not at all.
    #[default]
    None,
}

impl Resources {
    fn list(&self) -> &[String] {
        match self {
            Self::Several(list) => list,
            Self::One(one) => std::slice::from_ref(one),
            Self::None => &[],
        }
    }

    /// With a blank between them, if all of them are known. None asked for: an empty text, the usual audience.
    ///
    /// # Errors
    /// `invalid_target`.
    pub fn among(&self, known: &[String]) -> Result<String, Error> {
        if self.list().iter().all(|asked| known.contains(asked)) {
            return Ok(self.list().join(" "));
        }
        Err(Error::oauth(Code::InvalidTarget, "resource is not one that this server issues tokens for"))
    }

    /// Those of a grant, or the ones of them that are asked for.
    ///
    /// # Errors
    /// `invalid_target`.
    pub fn narrowing(&self, granted: &str) -> Result<String, Error> {
        if self.list().is_empty() {
            return Ok(granted.to_owned());
        }
        self.among(&granted.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn only_known_resources_can_be_asked_for() {
        let known = list(&["https://a.example/", "https://b.example"]);
        assert_eq!(Resources::None.among(&known).unwrap(), "");
        assert_eq!(Resources::One("https://a.example/".into()).among(&known).unwrap(), "https://a.example/");
        assert_eq!(Resources::Several(known.clone()).among(&known).unwrap(), "https://a.example/ https://b.example");
        for bad in ["https://a.example", "https://a.example/#x", "", "a b"] {
            assert!(
                Resources::One(bad.into()).among(&known).is_err_and(|error| error.is(Code::InvalidTarget)),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_token_request_can_ask_for_less_and_never_for_more() {
        let granted = "https://a.example https://b.example";
        assert_eq!(Resources::None.narrowing(granted).unwrap(), granted);
        assert_eq!(Resources::One("https://b.example".into()).narrowing(granted).unwrap(), "https://b.example");
        assert!(Resources::One("https://c.example".into()).narrowing(granted).is_err());
        assert!(Resources::One("https://a.example".into()).narrowing("").is_err());
    }
}
