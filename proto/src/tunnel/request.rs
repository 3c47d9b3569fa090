//! The head of a request, taken apart once and completely.

use super::head::{BadHead, Body, Fields, MAX_TARGET, Version, framing, is_token, lines};
use super::host::Authority;

/// The longest method.
const MAX_METHOD: usize = 24;

/// Protocols that an upgrade must not reach: they would carry requests past the gateway.
const NO_UPGRADE: [&str; 2] = ["h2c", "h2"];

/// A request's head in its parsed form, from which alone it is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method: A-Z, `-` and `_`.
    pub method: String,
    /// Path and query, or `*`. Visible ASCII without `#`, and bytes from 0x80 on.
    pub target: Vec<u8>,
    /// The version that the visitor speaks.
    pub version: Version,
    /// Whom the request is for.
    pub authority: Authority,
    /// All fields but Host, Content-Length and Transfer-Encoding.
    pub fields: Fields,
    /// How the body ends.
    pub body: Body,
    /// The protocol that the visitor would like to go on with.
    pub upgrade: Option<String>,
    /// Whether the visitor holds its body back until it is told to go on.
    pub expects_continue: bool,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
}

impl RequestHead {
    /// Takes a head apart that [`super::head::Scan`] has found the end of.
    ///
    /// # Errors
    /// It is none, or one that two programs could read differently.
    pub fn parse(head: &[u8]) -> Result<Self, BadHead> {
        let (first, mut fields) = lines(head)?;
        let (method, target, version) = request_line(first)?;
        let body = framing(&mut fields, version)?.unwrap_or(Body::None);
        let (target, named) = origin_form(&method, target)?;
        let authority = host(&mut fields)?;
        if named.is_some_and(|named| !named.same_as(&authority)) {
            return Err(BadHead::HostMismatch);
        }
        let upgrade = upgrade(&fields, version);
        if upgrade.is_some() && !matches!(body, Body::None | Body::Length(0)) {
            return Err(BadHead::UpgradeWithBody);
        }
        let expects_continue = expectation(&fields, version)?;
        let keep_alive = version == Version::Current && !fields.lists("connection", "close");
        Ok(Self { method, target, version, authority, fields, body, upgrade, expects_continue, keep_alive })
    }

    /// The path, without the query.
    pub fn path(&self) -> &[u8] {
        self.target.split(|byte| *byte == b'?').next().unwrap_or_default()
    }

    /// The query, without its `?`.
    pub fn query(&self) -> Option<&[u8]> {
        let at = self.target.iter().position(|byte| *byte == b'?')?;
        self.target.get(at + 1..)
    }

    /// Whether asking twice is the same as asking once, and nothing but the head was sent.
    pub fn may_be_repeated(&self) -> bool {
        let idempotent = matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        idempotent && self.upgrade.is_none() && matches!(self.body, Body::None | Body::Length(0))
    }
}

fn request_line(line: &[u8]) -> Result<(String, &[u8], Version), BadHead> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BadHead::RequestLine);
    };
    let plain = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(plain) {
        return Err(BadHead::Method);
    }
    let method = String::from_utf8_lossy(method).into_owned();
    if matches!(method.as_str(), "CONNECT" | "TRACE") {
        return Err(BadHead::MethodNotServed);
    }
    let version = match version {
        b"HTTP/1.1" => Version::Current,
        b"HTTP/1.0" => Version::Old,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(BadHead::Version),
        _ => return Err(BadHead::RequestLine),
    };
    if target.len() > MAX_TARGET {
        return Err(BadHead::TargetTooLong);
    }
    Ok((method, target, version))
}

/// The target as path and query, and the host that an absolute one names.
fn origin_form(method: &str, target: &[u8]) -> Result<(Vec<u8>, Option<Authority>), BadHead> {
    if target.iter().any(|byte| matches!(byte, 0..=32 | b'#' | 127)) {
        return Err(BadHead::Target);
    }
    if target.first() == Some(&b'/') {
        check_path(target)?;
        return Ok((target.to_vec(), None));
    }
    if target == b"*" && method == "OPTIONS" {
        return Ok((target.to_vec(), None));
    }
    let scheme = target.windows(3).position(|window| window == b"://").ok_or(BadHead::Target)?;
    let (scheme, rest) = target.split_at(scheme);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(BadHead::Target);
    }
    let rest = rest.get(3..).unwrap_or_default();
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = Authority::parse(authority).ok_or(BadHead::Target)?;
    let slash: &[u8] = if path.first() == Some(&b'/') { b"" } else { b"/" };
    let path = [slash, path].concat();
    check_path(&path)?;
    Ok((path, Some(authority)))
}

/// Refuses a path that names something above the root, or whose escapes are none: local servers differ in what
/// they make of these.
fn check_path(target: &[u8]) -> Result<(), BadHead> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let path = unescaped(path).ok_or(BadHead::Target)?;
    let mut depth = 0_usize;
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        match segment {
            b".." => depth = depth.checked_sub(1).ok_or(BadHead::Target)?,
            b"" | b"." => {}
            _ => depth += 1,
        }
    }
    Ok(())
}

/// What an escaped path stands for (RFC 3986 §2.1), unless there is a NUL in it.
fn unescaped(path: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let mut byte = *byte;
        if byte == b'%' {
            let ([high, low], behind) = rest.split_first_chunk()?;
            byte = digit(*high)? << 4 | digit(*low)?;
            rest = behind;
        }
        if byte == 0 {
            return None;
        }
        out.push(byte);
    }
    Some(out)
}

/// Takes the one Host out.
fn host(fields: &mut Fields) -> Result<Authority, BadHead> {
    let hosts: Vec<_> = fields.all("host").collect();
    let authority = match hosts.as_slice() {
        [] => return Err(BadHead::NoHost),
        [host] => Authority::parse(&host.value).ok_or(BadHead::BadHost)?,
        [_, _, ..] => return Err(BadHead::TwoHosts),
    };
    fields.0.retain(|field| !field.is("host"));
    Ok(authority)
}

/// The one protocol that is asked for, where asking means anything.
fn upgrade(fields: &Fields, version: Version) -> Option<String> {
    if version == Version::Old || !fields.lists("connection", "upgrade") {
        return None;
    }
    let mut asked = fields.all("upgrade").flat_map(|field| field.list());
    let (Some(protocol), None) = (asked.next(), asked.next()) else { return None };
    let name = protocol.split('/').next().unwrap_or_default();
    let refused = NO_UPGRADE.iter().any(|no| name.eq_ignore_ascii_case(no))
        || name.eq_ignore_ascii_case("http")
        || name.eq_ignore_ascii_case("tls");
    let plain = protocol.bytes().all(|byte| is_token(byte) || byte == b'/');
    (plain && !refused).then(|| protocol.to_owned())
}

fn expectation(fields: &Fields, version: Version) -> Result<bool, BadHead> {
    let mut expectations = fields.all("expect");
    match (expectations.next(), expectations.next()) {
        (None, _) => Ok(false),
        (Some(field), None) if field.text().eq_ignore_ascii_case("100-continue") => {
            Ok(version == Version::Current)
        }
        (Some(_), _) => Err(BadHead::Expectation),
    }
}

#[cfg(test)]
mod tests;
