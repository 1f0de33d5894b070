//! `[route.cors]`: what browsers are told.

use std::time::Duration;

use http::{HeaderValue, Method};

use crate::config::{
    reader::Section,
    server::whole_seconds,
    value::{HeaderWord, OriginWord},
};

/// Cross-origin resource sharing: what browsers are told.
#[derive(Clone, Debug)]
pub struct Cors {
    /// `allow_origins`: `*` or a list. Default `*`.
    pub allow_origins: Origins,
    /// `allow_methods`, as `Access-Control-Allow-Methods` says it. None (the default): the one that is asked about.
    pub allow_methods: Option<HeaderValue>,
    /// `allow_headers`, as `Access-Control-Allow-Headers` says it. None (the default): the ones that are asked about.
    pub allow_headers: Option<HeaderValue>,
    /// `expose_headers`: response headers a script may read, as `Access-Control-Expose-Headers` says it. Default: none.
    pub expose_headers: Option<HeaderValue>,
    /// `max_age`: how long a browser may remember the answer, in whole seconds. Default 10 min.
    pub max_age: Duration,
    /// `allow_credentials`: whether cookies and the like may be sent along. Default false; never with `*`.
    pub allow_credentials: bool,
}

/// Which pages may read answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any.
    Any,
    /// These, as browsers write them: scheme, host and, unless it is the usual one, port.
    List(Vec<HeaderValue>),
}

impl Cors {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let origins: Option<Vec<OriginWord>> =
            section.list("allow_origins", &[]).map(|list| list.into_iter().map(|found| found.value).collect());
        let allow_credentials = section.or("allow_credentials", false);
        let any = OriginWord(HeaderValue::from_static("*"));
        let allow_origins = match origins {
            None => Origins::Any,
            Some(list) if list == [any] => Origins::Any,
            Some(list) if list.iter().any(|origin| origin.0 == "*") => {
                section.mistake("allow_origins", "has \"*\" and others: \"*\" is everybody");
                Origins::Any
            }
            Some(list) => Origins::List(list.into_iter().map(|origin| origin.0).collect()),
        };
        if allow_credentials && allow_origins == Origins::Any {
            section.mistake("allow_credentials", "needs a list of `allow_origins`: browsers refuse it with \"*\"");
        }
        let headers = |key| joined(section.values::<HeaderWord>(key, &[]).into_iter().map(|header| header.0));
        let methods = section.values::<Method>("allow_methods", &[]);
        Self {
            allow_origins,
            allow_methods: joined(methods.iter().map(ToString::to_string)),
            allow_headers: headers("allow_headers"),
            expose_headers: headers("expose_headers"),
            max_age: whole_seconds(section, "max_age", Duration::from_mins(10)),
            allow_credentials,
        }
    }
}

/// Words as a header's value has them.
fn joined(words: impl Iterator<Item = String>) -> Option<HeaderValue> {
    let text = words.collect::<Vec<_>>().join(",");
    HeaderValue::from_str(&text).ok().filter(|value| !value.is_empty())
}
