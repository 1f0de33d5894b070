//! Proof Key for Code Exchange (RFC 7636), method S256 only: `plain` protects from nobody who reads the request.

use openssl::memcmp;

use super::opaque::{base64, sha256};

/// Whether a text can be an S256 challenge: 43 letters of base64 for URLs.
#[must_use]
pub fn is_challenge(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_')
}

/// Whether a text can be a verifier (RFC 7636 section 4.1).
#[must_use]
pub fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-._~".contains(&letter))
}

/// Whether the challenge was made of this verifier.
#[must_use]
pub fn fits(challenge: &str, verifier: &str) -> bool {
    let computed = base64(&sha256(verifier.as_bytes()));
    computed.len() == challenge.len() && memcmp::eq(computed.as_bytes(), challenge.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_rfc_7636_appendix_b_fits() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(is_verifier(verifier) && is_challenge(challenge) && fits(challenge, verifier));
        assert!(!fits(challenge, challenge) && !fits(verifier, verifier) && !fits("", verifier));
    }

    #[test]
    fn verifiers_have_43_to_128_of_the_unreserved_letters() {
        for (length, fine) in [(0, false), (42, false), (43, true), (128, true), (129, false)] {
            assert_eq!(is_verifier(&"~".repeat(length)), fine, "{length}");
            assert_eq!(is_challenge(&"-".repeat(length)), length == 43, "{length}");
        }
        for letter in ["+", "/", "=", " ", "é", "\0"] {
            assert!(!is_verifier(&format!("{}{letter}", "a".repeat(50))));
            assert!(!is_challenge(&format!("{}{letter}", "a".repeat(43 - letter.len()))));
        }
    }
}
