//! An endpoint, and on the next line the path of a request: whatever they are, the answer comes, and soon.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::model::{endpoint::Endpoint, path::RequestPath};

fuzz_target!(|input: &str| {
    let (endpoint, path) = input.split_once('\n').unwrap_or((input, "/"));
    let Ok(endpoint) = Endpoint::parse(endpoint) else { return };
    if let Ok(path) = RequestPath::parse(path.as_bytes()) {
        let _ = endpoint.matches(&path);
    }
    assert!(Endpoint::parse(endpoint.as_str()).is_ok(), "an endpoint that was read once is read again");
});
