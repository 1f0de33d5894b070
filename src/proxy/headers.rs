//! Headers on their way through: what a client may not say about itself, and what we say instead.
//!
//! Pingora has already dropped the hop-by-hop fields and whatever `Connection` names. Both functions may run more than
//! once for a request (a retry, an informational response), so they replace and never add.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
};

use crate::{
    model::{
        identity::{AccessToken, IdentityFields},
        secret::Secret,
    },
    telemetry,
};

/// What the upstream is told, from our own knowledge.
pub struct Told<'a> {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Whether that address is one of the proxies whose word we take.
    pub trusted: bool,
    /// The scheme the client used with us.
    pub scheme: &'static str,
    /// `NVM-User-id`, `NVM-Scope`, `NVM-Owner` (nevermined.md section 5.2).
    pub identity: Option<&'a IdentityFields>,
    /// `X-Hotkey`: the neuron that calls, in the one spelling that there is of it.
    pub hotkey: Option<&'a str>,
    /// What our authorization server said of the caller, if an access token of it was presented.
    pub access_token: Option<&'a AccessToken>,
    /// What becomes of the client's `Authorization`.
    pub authorization: Authorization<'a>,
    /// The `Host` for the upstream; none: the client's stays.
    pub host: Option<&'a HeaderValue>,
    /// `X-Request-Id`.
    pub request_id: &'a str,
    /// Whether names go on as the client and we spell them. Otherwise they go in lower case.
    pub preserve_case: bool,
}

impl Told<'_> {
    /// How many fields are set, or a few more. With that known a map grows once.
    fn fields(&self) -> usize {
        const ALWAYS: usize = 5;
        let few = |said: bool, fields| if said { fields } else { 0 };
        ALWAYS + few(self.identity.is_some(), 3) + few(self.hotkey.is_some(), 1) + few(self.access_token.is_some(), 4)
    }
}

/// What becomes of the client's `Authorization`.
pub enum Authorization<'a> {
    /// It stays: the route asks for no credential, so it is the upstream's to read.
    Keep,
    /// It goes: it was ours to read, and the service wants none.
    Remove,
    /// The provider's takes its place.
    Replace(&'a Secret),
}

/// The name of a field that we set.
struct Field {
    name: HeaderName,
    /// As the replaced proxy spelled it (nevermined.md section 5.2), or as is usual.
    spelled: &'static str,
}

impl Field {
    const fn new(name: &'static str, spelled: &'static str) -> Self {
        Self { name: HeaderName::from_static(name), spelled }
    }
}

static USER_ID: Field = Field::new("nvm-user-id", "NVM-User-id");
static SCOPE: Field = Field::new("nvm-scope", "NVM-Scope");
static OWNER: Field = Field::new("nvm-owner", "NVM-Owner");
static HOTKEY: Field = Field::new("x-hotkey", "X-Hotkey");
static SUBJECT: Field = Field::new("x-auth-subject", "X-Auth-Subject");
static SIGNER: Field = Field::new("x-auth-signer", "X-Auth-Signer");
static CLIENT: Field = Field::new("x-auth-client", "X-Auth-Client");
static SCOPE_OF_TOKEN: Field = Field::new("x-auth-scope", "X-Auth-Scope");
static REAL_IP: Field = Field::new("x-real-ip", "X-Real-IP");
static FORWARDED_FOR: Field = Field::new("x-forwarded-for", "X-Forwarded-For");
static FORWARDED_PROTO: Field = Field::new("x-forwarded-proto", "X-Forwarded-Proto");
static REQUEST_ID: Field = Field::new("x-request-id", "X-Request-Id");
static AUTHORIZATION: Field = Field::new("authorization", "Authorization");
static HOST: Field = Field::new("host", "Host");

/// Fields that say who a client is or where it came from, in lower case with hyphens. A client's own are removed; some
/// are set again. `forwarded` and the rest of the family are believed only from a trusted proxy.
const OURS: [&str; 11] = [
    "nvm-user-id",
    "nvm-scope",
    "nvm-owner",
    "x-hotkey",
    "x-auth-subject",
    "x-auth-signer",
    "x-auth-client",
    "x-auth-scope",
    "x-real-ip",
    "x-request-id",
    "x-forwarded-proto",
];
const PROXIES: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-forwarded-client-cert",
    "forwarded",
];
/// How proxies tell a service which certificate a client has: RFC 9440, and everything that begins like NGINX's custom.
const CERTIFICATE: [&str; 2] = ["client-cert", "client-cert-chain"];
const CERTIFICATE_FAMILY: &str = "x-client-cert";

/// The fields of a request or an answer.
trait Fields {
    fn map(&self) -> &HeaderMap;
    /// Sets a field, and takes the place of all that had its name.
    fn set(&mut self, field: &'static Field, value: HeaderValue) -> Result<()>;
    fn remove(&mut self, name: &HeaderName);
}

macro_rules! fields_with_their_spelling {
    ($($header:ty),*) => {$(
        /// With the spelling of their names, in a second map beside the first.
        impl Fields for $header {
            fn map(&self) -> &HeaderMap {
                &self.headers
            }

            fn set(&mut self, field: &'static Field, value: HeaderValue) -> Result<()> {
                self.insert_header(field.spelled, value)
            }

            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }
        }
    )*};
}

fields_with_their_spelling!(RequestHeader, ResponseHeader);

/// In lower case. Setting one costs a quarter.
impl Fields for HeaderMap {
    fn map(&self) -> &HeaderMap {
        self
    }

    fn set(&mut self, field: &'static Field, value: HeaderValue) -> Result<()> {
        self.insert(&field.name, value);
        Ok(())
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }
}

/// Makes the client's header into ours.
///
/// # Errors
/// When a value cannot stand in a header: it is checked where it comes from, so this is a mistake of ours.
pub fn to_upstream(request: &mut RequestHeader, told: &Told<'_>) -> Result<()> {
    // HTTP/2 has the host in the target, which ours takes the place of. Pingora makes a target of it again.
    let authority = if told.host.is_none() && !request.headers.contains_key(header::HOST) {
        request.uri.authority().map(|authority| value(authority.as_str().into())).transpose()?
    } else {
        None
    };
    let host = authority.as_ref().or(told.host);
    if told.preserve_case {
        return change(request, told, host);
    }
    let (nothing, ()) = http::Request::new(()).into_parts();
    let mut parts = http::request::Parts::from(std::mem::replace(request, nothing.into()));
    parts.headers.reserve(told.fields());
    change(&mut parts.headers, told, host)?;
    *request = parts.into();
    Ok(())
}

fn change(fields: &mut impl Fields, told: &Told<'_>, host: Option<&HeaderValue>) -> Result<()> {
    let forwarded_for = told.trusted.then(|| joined(fields.map(), &FORWARDED_FOR.name)).flatten();
    let forwarded_proto = told.trusted.then(|| scheme_of_proxy(fields.map())).flatten();
    remove_spoofed(fields, told.trusted);

    if let Some(client) = told.client {
        let client = value(address(client.to_canonical()))?;
        let chain = match forwarded_for {
            Some(before) => value(format!("{before}, {}", client.to_str().unwrap_or_default()).into())?,
            None => client.clone(),
        };
        fields.set(&FORWARDED_FOR, chain)?;
        fields.set(&REAL_IP, client)?;
    }
    fields.set(&FORWARDED_PROTO, HeaderValue::from_static(forwarded_proto.unwrap_or(told.scheme)))?;
    fields.set(&REQUEST_ID, value(told.request_id.into())?)?;
    if let Some(IdentityFields { user_id, scope, owner }) = told.identity {
        for (field, value) in [(&USER_ID, user_id), (&SCOPE, scope), (&OWNER, owner)] {
            if let Some(value) = value {
                fields.set(field, value.clone())?;
            }
        }
    }
    if let Some(hotkey) = told.hotkey {
        fields.set(&HOTKEY, value(hotkey.into())?)?;
    }
    if let Some(token) = told.access_token {
        let client = token.client.as_deref().unwrap_or_default();
        let said = [
            (&SUBJECT, &*token.account),
            (&SIGNER, token.signer.as_str()),
            (&CLIENT, client),
            (&SCOPE_OF_TOKEN, &*token.scope),
        ];
        for (field, said) in said.into_iter().filter(|(_, said)| !said.is_empty()) {
            fields.set(field, value(said.into())?)?;
        }
    }
    match told.authorization {
        Authorization::Keep => {}
        Authorization::Remove => fields.remove(&AUTHORIZATION.name),
        Authorization::Replace(secret) => {
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "provider's credential"))?;
            value.set_sensitive(true);
            fields.set(&AUTHORIZATION, value)?;
        }
    }
    if let Some(host) = host {
        fields.set(&HOST, host.clone())?;
    }
    Ok(())
}

/// The text of an address. By hand: the formatter takes as long as setting the field.
fn address(client: IpAddr) -> Vec<u8> {
    let mut text = Vec::with_capacity(LONGEST_V4);
    telemetry::address(&mut text, client);
    text
}

const LONGEST_V4: usize = "255.255.255.255".len();

/// A value out of a text, without a copy.
fn value(text: Vec<u8>) -> Result<HeaderValue> {
    HeaderValue::try_from(text)
        .map_err(|_| pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "a value of ours"))
}

/// Removes our fields in every spelling. An underscore for a hyphen makes another field here, and the same variable for
/// a service behind CGI, WSGI or Rack.
fn remove_spoofed(fields: &mut impl Fields, trusted: bool) {
    // The usual request has none of them: nothing is collected then.
    loop {
        let mut names = fields.map().keys();
        let spoofed = names.find(|name| is_spoofed(name.as_str(), trusted));
        let Some(spoofed) = spoofed.cloned() else { break };
        fields.remove(&spoofed);
    }
}

fn is_spoofed(name: &str, trusted: bool) -> bool {
    let one_of = |list: &[&str]| list.iter().any(|ours| same_field(name, ours));
    // Cheap first: most fields begin with another letter.
    match name.as_bytes().first() {
        Some(b'n' | b'x' | b'f') => {
            let certificate = name.get(..CERTIFICATE_FAMILY.len());
            one_of(&OURS)
                || (!trusted && one_of(&PROXIES))
                || certificate.is_some_and(|start| same_field(start, CERTIFICATE_FAMILY))
        }
        Some(b'c') => one_of(&CERTIFICATE),
        _ => false,
    }
}

fn same_field(name: &str, ours: &str) -> bool {
    name.len() == ours.len() && name.bytes().zip(ours.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
}

fn joined(fields: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = fields.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn scheme_of_proxy(fields: &HeaderMap) -> Option<&'static str> {
    match fields.get(&FORWARDED_PROTO.name)?.as_bytes() {
        scheme if scheme.eq_ignore_ascii_case(b"https") => Some("https"),
        scheme if scheme.eq_ignore_ascii_case(b"http") => Some("http"),
        _ => None,
    }
}

/// Fields with which an upstream would steer a proxy (nevermined.md section 5.5), or that concern only the way to it.
const NOT_FOR_CLIENTS: [&str; 9] = [
    "x-accel-redirect",
    "x-accel-buffering",
    "x-accel-charset",
    "x-accel-expires",
    "x-accel-limit-rate",
    "x-pad",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
];

/// What the client is told with an answer.
pub struct Answered<'a> {
    /// `X-Request-Id`. None: it need not know.
    pub request_id: Option<&'a str>,
    /// Whether `NVMCreditsConsumed` is kept from it.
    pub hide_credits: bool,
    /// As [`Told::preserve_case`].
    pub preserve_case: bool,
}

/// Makes the upstream's answer into ours: what is internal is kept from the client.
///
/// # Errors
/// When a value cannot stand in a header, which is a mistake of ours.
pub fn to_client(response: &mut ResponseHeader, answered: &Answered<'_>) -> Result<()> {
    if answered.preserve_case {
        return change_answer(response, answered);
    }
    // Nothing else of it is lost on the way.
    let reason = response.get_reason_phrase().filter(|reason| Some(*reason) != response.status.canonical_reason());
    let reason = reason.map(ToOwned::to_owned);
    let (nothing, ()) = http::Response::new(()).into_parts();
    let mut parts = http::response::Parts::from(std::mem::replace(response, nothing.into()));
    change_answer(&mut parts.headers, answered)?;
    *response = parts.into();
    if reason.is_some() {
        response.set_reason_phrase(reason.as_deref())?;
    }
    Ok(())
}

fn change_answer(fields: &mut impl Fields, answered: &Answered<'_>) -> Result<()> {
    let internal = |name: &HeaderName| {
        matches!(name.as_str().as_bytes().first(), Some(b'x' | b'p')) && NOT_FOR_CLIENTS.contains(&name.as_str())
    };
    loop {
        let Some(name) = fields.map().keys().find(|name| internal(name)).cloned() else { break };
        fields.remove(&name);
    }
    if answered.hide_credits {
        fields.remove(&CREDITS_CONSUMED);
    }
    match answered.request_id {
        Some(id) => fields.set(&REQUEST_ID, value(id.into())?),
        None => Ok(()),
    }
}

/// What a service says an answer cost (nevermined.md section 8). Made once: a text would be made a name for each answer.
pub static CREDITS_CONSUMED: HeaderName = HeaderName::from_static("nvmcreditsconsumed");

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn told(secret: &Secret, trusted: bool) -> Told<'_> {
        static HOST: HeaderValue = HeaderValue::from_static("upstream.example:8443");
        static IDENTITY: IdentityFields = IdentityFields {
            user_id: Some(HeaderValue::from_static("0xabc")),
            scope: Some(HeaderValue::from_static("did:nv:1")),
            owner: None,
        };
        Told {
            client: Some(IpAddr::from([9, 9, 9, 9])),
            trusted,
            scheme: "https",
            identity: Some(&IDENTITY),
            hotkey: Some("5Hotkey"),
            access_token: None,
            authorization: Authorization::Replace(secret),
            host: Some(&HOST),
            request_id: "id",
            preserve_case: true,
        }
    }

    fn values(request: &RequestHeader, name: &str) -> Vec<String> {
        request.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let spoofed = [
            ("NVM-User-id", "evil"),
            ("nvm-user-id", "evil"),
            ("NVM_User_id", "evil"),
            ("NVM_USER-ID", "evil"),
            ("nvm-scope", "evil"),
            ("nvm_owner", "evil"),
            ("X-Hotkey", "evil"),
            ("x_hotkey", "evil"),
            ("X-HOTKEY", "evil"),
            ("X-Auth-Subject", "evil"),
            ("x_auth_signer", "evil"),
            ("X-Auth_Client", "evil"),
            ("x-auth-scope", "evil"),
            ("x-client-cert", "evil"),
            ("X_Client_Cert", "evil"),
            ("x-client-cert-subject", "evil"),
            ("X-Client_Cert_Issuer", "evil"),
            ("X-Client-Certificate", "evil"),
            ("client-cert", "evil"),
            ("client_cert_chain", "evil"),
            ("x-forwarded-client-cert", "evil"),
            ("x-real-ip", "evil"),
            ("X_Real_IP", "evil"),
            ("x-forwarded-for", "evil"),
            ("x_forwarded_for", "evil"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=evil"),
            ("x-request-id", "evil"),
            ("authorization", "Bearer evil"),
            ("host", "evil"),
        ];
        let mut request = request(&spoofed);
        let secret = Secret::new("Bearer provider".to_owned());
        // More than once, and with the spelling and without.
        for preserve_case in [true, true, false, false] {
            to_upstream(&mut request, &Told { preserve_case, ..told(&secret, false) }).unwrap();
            assert_eq!(request.has_case(), preserve_case);
            let all = format!("{:?}", request.headers);
            assert!(!all.contains("evil"), "{all}");
            assert_eq!(values(&request, "nvm-user-id"), ["0xabc"]);
            assert_eq!(values(&request, "nvm-scope"), ["did:nv:1"]);
            assert!(values(&request, "nvm-owner").is_empty(), "a value that there is not is not sent");
            assert_eq!(values(&request, "x-hotkey"), ["5Hotkey"]);
            assert_eq!(values(&request, "x-forwarded-for"), ["9.9.9.9"]);
            assert_eq!(values(&request, "x-real-ip"), ["9.9.9.9"]);
            assert_eq!(values(&request, "x-forwarded-proto"), ["https"]);
            assert_eq!(values(&request, "authorization"), ["Bearer provider"]);
            assert_eq!(values(&request, "host"), ["upstream.example:8443"]);
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "h"),
        ];
        let mut request = request(&fields);
        to_upstream(&mut request, &told(&Secret::new(String::new()), true)).unwrap();
        assert_eq!(values(&request, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 9.9.9.9"]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["h"]);
    }

    #[test]
    fn other_fields_are_not_touched() {
        let fields = [
            ("cookie", "a=b"),
            ("x-custom", "1"),
            ("x-custom", "2"),
            ("nvm-authorization", "z"),
            ("x-auth-token", "t"),
            ("x-auth-subjects", "u"),
            ("accept", "*/*"),
            ("x-client", "2"),
            ("client-certs", "3"),
        ];
        let mut request = request(&fields);
        for preserve_case in [true, false] {
            let secret = Secret::new(String::new());
            to_upstream(&mut request, &Told { preserve_case, ..told(&secret, false) }).unwrap();
            assert_eq!(values(&request, "x-custom"), ["1", "2"]);
            for (name, value) in [("cookie", "a=b"), ("nvm-authorization", "z"), ("accept", "*/*")] {
                assert_eq!(values(&request, name), [value]);
            }
        }
    }

    #[test]
    fn the_rest_of_a_request_stays_whatever_becomes_of_the_spelling() {
        let mut request = RequestHeader::build("PATCH", b"/a?b=c", None).unwrap();
        request.set_version(http::Version::HTTP_2);
        let secret = Secret::new(String::new());
        to_upstream(&mut request, &Told { preserve_case: false, ..told(&secret, false) }).unwrap();
        let stayed = (request.method.as_str(), request.raw_path(), request.version);
        assert_eq!(stayed, ("PATCH", &b"/a?b=c"[..], http::Version::HTTP_2));
    }

    #[test]
    fn an_answer_stays_what_it_is_but_for_what_is_internal() {
        for preserve_case in [true, false] {
            let mut response = ResponseHeader::build(299, None).unwrap();
            response.set_reason_phrase(Some("Rather Good")).unwrap();
            response.set_version(http::Version::HTTP_11);
            for (name, value) in [
                ("ETag", "1"),
                ("X-Accel-Redirect", "/secret"),
                ("Set-Cookie", "a"),
                ("Set-Cookie", "b"),
                ("X-Request-Id", "theirs"),
            ] {
                response.append_header(name, value).unwrap();
            }
            response.append_header("NVMCreditsConsumed", "7").unwrap();
            to_client(&mut response, &Answered { request_id: Some("ours"), hide_credits: true, preserve_case })
                .unwrap();
            assert_eq!(response.has_case(), preserve_case);
            let stayed = (response.status.as_u16(), response.get_reason_phrase(), response.version);
            assert_eq!(stayed, (299, Some("Rather Good"), http::Version::HTTP_11));
            let mut wire = Vec::new();
            response.header_to_h1_wire(&mut wire);
            let wire = String::from_utf8(wire).unwrap();
            let etag = if preserve_case { "ETag: 1" } else { "etag: 1" };
            let id = if preserve_case { "X-Request-Id: ours" } else { "x-request-id: ours" };
            let mut lines: Vec<_> = wire.lines().collect();
            lines.sort_by_key(|line| line.split_once(':').map(|(name, _)| name.to_lowercase()));
            assert_eq!(lines, [etag, "Set-Cookie: a", "Set-Cookie: b", id]);
        }
    }

    #[test]
    fn names_are_spelled_as_they_stand_here() {
        for field in [
            &USER_ID,
            &SCOPE,
            &OWNER,
            &HOTKEY,
            &SUBJECT,
            &SIGNER,
            &CLIENT,
            &SCOPE_OF_TOKEN,
            &REAL_IP,
            &FORWARDED_FOR,
            &FORWARDED_PROTO,
            &REQUEST_ID,
            &AUTHORIZATION,
            &HOST,
        ] {
            assert!(field.name.as_str().eq_ignore_ascii_case(field.spelled), "{}", field.spelled);
        }
    }
}
