//! A configuration is accepted, or refused with a list of mistakes; it never brings the gateway down.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tollgate::config::Config;

fuzz_target!(|text: &str| {
    let _ = Config::from_toml(text, Path::new("fuzz.toml"));
});
