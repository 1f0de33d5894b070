//! Client certificates of neurons: whose hotkey the subject's organisation names, and whether that hotkey has published the
//! certificate's key (nexus.md section 0, point 1).
//!
//! Whether the client holds the key is not asked here: TLS has proven it, or whoever passes the certificate on vouches for it.

pub mod forwarded;

use crate::{
    chain::neurons::Neurons,
    model::{
        certificate::{CertificateKey, ClientCertificate, Encoding, SelfSignature},
        clock::Timestamp,
        decision::{Denial, Reason},
        hotkey::Hotkey,
        identity::{Identity, Proof, Subject},
        neuron::{NetUid, PublishedKey},
    },
};

/// How far a client's clock, or ours, may be off, in seconds: certificates are made by machines that present them at once.
pub const CLOCK_SKEW_SECONDS: i64 = 60;

/// Which certificates are good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// What RFC 5280 and common sense say: one organisation, in the hotkey's one spelling; valid now; for clients; signed
    /// with its own key.
    Strict,
    /// What the replaced system said, with its weaknesses (nexus.md sections 1.4, 1.5 and 7): the first organisation counts,
    /// and characters are removed from it until it is one that somebody has published a key for.
    NexusAuth,
}

/// Finds out whose certificate this is.
///
/// # Errors
/// [`Denial::Unavailable`] when it cannot be found out which key the hotkey has published, otherwise
/// [`Denial::InvalidCredential`] with one of these reasons:
///
/// | Reason | The certificate |
/// | --- | --- |
/// | `malformed_certificate` * | is not X.509 version 3, or has a critical extension that we do not know |
/// | `no_organization` | names nobody |
/// | `ambiguous_identity` * | names more than one organisation |
/// | `invalid_hotkey` | names something else than a hotkey |
/// | `unsupported_key_algorithm` | has a key that is not of Ed25519 |
/// | `not_yet_valid`, `expired` * | is not valid now, give or take [`CLOCK_SKEW_SECONDS`] |
/// | `wrong_key_usage` * | is not meant for TLS clients, or not for signatures |
/// | `unknown_hotkey` | names a hotkey that has published no key |
/// | `registry_malformed` | names a hotkey that has published something that is no key of Ed25519 |
/// | `key_mismatch` | has another key than the one that was published, or one that is not published for good yet |
/// | `bad_signature`, `not_self_signed` * | was not signed with its own key, or by somebody else |
///
/// Those with a star exist under [`Rules::Strict`] only.
pub async fn identify(
    certificate: &ClientCertificate,
    rules: Rules,
    netuid: NetUid,
    neurons: &Neurons,
    now: Timestamp,
) -> Result<Identity, Denial> {
    match rules {
        Rules::Strict => strictly(certificate, netuid, neurons, now).await,
        Rules::NexusAuth => as_nexus_auth(certificate, netuid, neurons).await,
    }
}

async fn strictly(
    certificate: &ClientCertificate,
    netuid: NetUid,
    neurons: &Neurons,
    now: Timestamp,
) -> Result<Identity, Denial> {
    let (hotkey, key) = check(certificate, now).map_err(Denial::InvalidCredential)?;
    let published = published(neurons, netuid, &hotkey, certificate.key).await?;
    match published {
        // Both are public: how long the comparison takes tells nobody anything.
        Some(PublishedKey::Ed25519(published)) if published == key => {}
        Some(PublishedKey::Ed25519(_) | PublishedKey::NOT_FINAL) => {
            return Err(Denial::InvalidCredential("key_mismatch"));
        }
        Some(PublishedKey::Unusable(_)) => return Err(Denial::InvalidCredential("registry_malformed")),
        None => return Err(Denial::InvalidCredential("unknown_hotkey")),
    }
    // After the comparison: a wrong key is the graver finding, and makes every signature wrong.
    match certificate.self_signature {
        SelfSignature::Genuine => {}
        SelfSignature::Wrong => return Err(Denial::InvalidCredential("bad_signature")),
        SelfSignature::ByAnother => return Err(Denial::InvalidCredential("not_self_signed")),
    }
    Ok(Identity {
        not_before: Some(certificate.not_before),
        // An X.509 certificate is still valid at its last moment.
        expires_at: Some(Timestamp(certificate.not_after.0.saturating_add(1))),
        ..identity(Subject::Hotkey(hotkey))
    })
}

/// What can be told from the certificate alone.
fn check(certificate: &ClientCertificate, now: Timestamp) -> Result<(Hotkey, [u8; 32]), Reason> {
    if certificate.version != 3 || certificate.unknown_critical_extension {
        return Err("malformed_certificate");
    }
    let organization = match certificate.organizations.as_slice() {
        [] => return Err("no_organization"),
        [one] if one.text.is_empty() => return Err("no_organization"),
        [one] => one,
        _ => return Err("ambiguous_identity"),
    };
    if !matches!(organization.encoding, Encoding::Printable | Encoding::Utf8) {
        return Err("invalid_hotkey");
    }
    let hotkey = organization.hotkey.ok_or("invalid_hotkey")?;
    let CertificateKey::Ed25519(key) = certificate.key else { return Err("unsupported_key_algorithm") };
    if now.0.saturating_add(CLOCK_SKEW_SECONDS) < certificate.not_before.0 {
        return Err("not_yet_valid");
    }
    if now.0.saturating_sub(CLOCK_SKEW_SECONDS) > certificate.not_after.0 {
        return Err("expired");
    }
    if !certificate.is_for_clients || !certificate.is_for_signatures {
        return Err("wrong_key_usage");
    }
    Ok((hotkey, key))
}

async fn as_nexus_auth(certificate: &ClientCertificate, netuid: NetUid, neurons: &Neurons) -> Result<Identity, Denial> {
    let first = certificate.organizations.first().filter(|first| !first.text.is_empty());
    let first = first.ok_or(Denial::InvalidCredential("no_organization"))?;
    let subject = looked_up_by_nexus_auth(&first.text).ok_or(Denial::InvalidCredential("invalid_hotkey"))?;
    let published = match &subject {
        Subject::Hotkey(hotkey) => published(neurons, netuid, hotkey, certificate.key).await?,
        _ => neurons.own_key(netuid).await?,
    };
    let checked = match (published, certificate.key) {
        (None, _) => Err("unknown_hotkey"),
        (Some(PublishedKey::NOT_FINAL), _) => Err("key_mismatch"),
        // What was published for Ed25519 was compared, however long it was.
        (Some(PublishedKey::Unusable(why)), _) if why != "published_key_length" => Err("registry_malformed"),
        (Some(_), CertificateKey::Other) => Err("unsupported_key_algorithm"),
        (Some(PublishedKey::Ed25519(published)), CertificateKey::Ed25519(key)) if published == key => Ok(()),
        (Some(_), CertificateKey::Ed25519(_)) => Err("key_mismatch"),
    };
    checked.map_err(Denial::InvalidCredential)?;
    Ok(identity(subject))
}

/// Whom the replaced system looked up for an organisation: it removed characters that would have led its question
/// elsewhere (nexus.md section 1.4). What cannot be anybody's name is refused; it would have been after the question.
fn looked_up_by_nexus_auth(organization: &str) -> Option<Subject> {
    let rest = organization.replace(['/', '\\'], "").replace("..", "");
    if !rest.chars().all(|character| character.is_ascii_alphanumeric() || " _-".contains(character)) {
        return None;
    }
    match rest.trim() {
        "self" => Some(Subject::OwnNeuron),
        name => name.parse().ok().map(Subject::Hotkey),
    }
}

/// What a hotkey has published. If it is not the certificate's key, it is looked at once more: the key may be newer than the
/// table.
async fn published(
    neurons: &Neurons,
    netuid: NetUid,
    hotkey: &Hotkey,
    key: CertificateKey,
) -> Result<Option<PublishedKey>, Denial> {
    match (neurons.key(netuid, hotkey).await?, key) {
        (Some(PublishedKey::Ed25519(published)), CertificateKey::Ed25519(key)) if published != key => {
            neurons.key_again(netuid, hotkey).await
        }
        (Some(PublishedKey::Unusable(_)), CertificateKey::Ed25519(_)) => neurons.key_again(netuid, hotkey).await,
        (published, _) => Ok(published),
    }
}

fn identity(subject: Subject) -> Identity {
    Identity {
        subject,
        proof: Proof::ClientCertificate,
        not_before: None,
        expires_at: None,
        issued_at: None,
        entitlement: None,
        access_token: None,
    }
}

#[cfg(test)]
mod tests;
