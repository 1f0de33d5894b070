//! Reading an upstream's answer: what it cost, and where it ends.

use http::{HeaderMap, Method, Version, header};
use pingora::http::ResponseHeader;

use super::headers::CREDITS_CONSUMED;
use crate::model::credits::{Credits, parse_report};

/// What a service says it used: one value, or several that say the same.
pub fn reported(headers: &HeaderMap) -> Option<Credits> {
    let mut values = headers.get_all(&CREDITS_CONSUMED).iter();
    let first = values.next()?;
    values.all(|other| other == first).then(|| parse_report(first.as_bytes())).flatten()
}

pub fn announces_credits(headers: &HeaderMap) -> bool {
    let announced = headers.get_all(header::TRAILER).iter().filter_map(|value| value.to_str().ok());
    announced.flat_map(|names| names.split(',')).any(|name| name.trim().eq_ignore_ascii_case(CREDITS_CONSUMED.as_str()))
}

pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Whether a response's header, which announces a body of so many bytes, is all there is. From an HTTP/1 upstream Pingora has announced chunks by now if a body of
/// unknown length follows, so a header that announces nothing announces that nothing comes. HTTP/2 need announce nothing.
pub fn has_no_body(method: &Method, response: &ResponseHeader, announced: Option<u64>) -> bool {
    let status = response.status.as_u16();
    let silent = announced.is_none() && !response.headers.contains_key(header::TRANSFER_ENCODING);
    method == Method::HEAD
        || matches!(status, 101 | 204 | 304)
        || announced == Some(0)
        || (silent && response.version != Version::HTTP_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_that_contradict_each_other_are_none() {
        let headers = |values: &[&'static str]| -> HeaderMap {
            values.iter().map(|value| (CREDITS_CONSUMED.clone(), value.parse().unwrap())).collect()
        };
        assert_eq!(reported(&headers(&["7"])).map(Credits::get), Some(7));
        assert_eq!(reported(&headers(&["7", "7"])).map(Credits::get), Some(7));
        for contradictory in [&["7", "8"][..], &["7, 7"], &[], &["x"]] {
            assert_eq!(reported(&headers(contradictory)), None, "{contradictory:?}");
        }
    }
}
