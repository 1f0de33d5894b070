//! A path in normal form is its own normal form, and holds nothing that two readers could read in two ways.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::model::path::RequestPath;

fuzz_target!(|raw: &[u8]| {
    let Ok(path) = RequestPath::parse(raw) else { return };
    let normal = path.as_str();
    assert!(normal.starts_with('/'), "{normal}");
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'?' | b'#')), "{normal}");
    assert!(normal.split('/').all(|segment| !matches!(segment, "." | "..")), "{normal}");
    assert_eq!(RequestPath::parse(normal.as_bytes()).as_ref(), Ok(&path));
});
