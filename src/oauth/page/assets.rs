//! What pages load: compiled in, and remembered by browsers for good, since a change of any of it changes all addresses.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use openssl::sha::Sha256;

/// A file.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal: $kind:expr,)*) => {
        &[$(Asset { name: $name, kind: $kind, text: include_str!(concat!("assets/", $name)) }),*]
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const ASSETS: &[Asset] = assets! {
    "authorize.js": SCRIPT,
    "bittensor.js": SCRIPT,
    "device.js": SCRIPT,
    "ethereum.js": SCRIPT,
    "icon.svg": "image/svg+xml",
    "landing.js": SCRIPT,
    "page.js": SCRIPT,
    "sign.js": SCRIPT,
    "style.css": "text/css; charset=utf-8",
};

/// One hash of all of them: scripts load each other, so they change together.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for asset in ASSETS {
        hash.update(asset.name.as_bytes());
        hash.update(&asset.text.len().to_be_bytes());
        hash.update(asset.text.as_bytes());
    }
    let [a, b, c, d, e, f, g, h, ..] = hash.finish();
    format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
});

/// The route that [`serve`] answers.
pub const ROUTE: &str = "/static/{version}/{name}";

/// The folder that today's files are in.
pub fn folder() -> String {
    format!("/static/{}", *VERSION)
}

/// A file. While an update is under way, a page of one gateway may ask another: it gets what there is, and forgets it.
pub async fn serve(Path((version, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let remembered = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    let headers = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, remembered),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    (headers, asset.text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_and_loads_only_what_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/oauth/page/assets");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let names: Vec<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        assert_eq!(names, files);
        for asset in ASSETS {
            for (_, rest) in
                asset.text.match_indices("from \"./").map(|(at, text)| asset.text.split_at(at + text.len()))
            {
                let loaded = rest.split('"').next().unwrap();
                assert!(names.contains(&loaded), "{} loads {loaded}", asset.name);
            }
            let elsewhere = asset.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{} names a host", asset.name);
        }
    }
}
