//! The head of an HTTP/1.1 message: where it ends, and its lines.
//!
//! RFC 9112 lets a recipient forgive much: a bare LF, a folded line, white space before a colon. Each
//! of these is read in two ways by some pair of programs, and that is how a request is smuggled past one of
//! them. Here nothing is forgiven, and what is forwarded is written anew from the parsed form.

/// The largest head, in bytes, with its last empty line.
pub const MAX_HEAD: usize = 32 * 1024;

/// The most fields of a head.
pub const MAX_FIELDS: usize = 100;

/// The longest target of a request, in bytes.
pub const MAX_TARGET: usize = 8 * 1024;

/// Why bytes are not the head of a message that is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BadHead {
    /// A line ends in LF alone.
    #[error("a line ends in a bare LF")]
    BareLf,
    /// A CR that no LF follows.
    #[error("a bare CR")]
    BareCr,
    /// A byte that has no place in a head: NUL or another control character.
    #[error("a control character")]
    Control,
    /// Over [`MAX_HEAD`].
    #[error("the head is over the limit of 32 KiB")]
    TooLarge,
    /// Over [`MAX_FIELDS`].
    #[error("more than 100 header fields")]
    TooManyFields,
    /// Over [`MAX_TARGET`].
    #[error("the target is over the limit of 8 KiB")]
    TargetTooLong,
    /// The first line has not the three parts of a request's.
    #[error("no request line")]
    RequestLine,
    /// The method has other characters than A-Z, `-` and `_`.
    #[error("no method")]
    Method,
    /// A method that is not forwarded: CONNECT and TRACE.
    #[error("this method is not served")]
    MethodNotServed,
    /// The target has a form or a character that it may not have.
    #[error("no target")]
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("a version other than HTTP/1.0 and HTTP/1.1")]
    Version,
    /// A field's name is empty, has other characters than a token's, or white space around it.
    #[error("a field without a proper name")]
    FieldName,
    /// A field is continued on a second line (obs-fold).
    #[error("a folded field")]
    Folded,
    /// There is no Host.
    #[error("no Host")]
    NoHost,
    /// There are two Hosts.
    #[error("more than one Host")]
    TwoHosts,
    /// The Host is no host and port.
    #[error("a Host that is none")]
    BadHost,
    /// An absolute target names another host than Host does.
    #[error("the target and the Host differ")]
    HostMismatch,
    /// There is more than one Content-Length, equal or not.
    #[error("more than one Content-Length")]
    TwoLengths,
    /// The Content-Length is no decimal number that fits.
    #[error("a Content-Length that is no number")]
    BadLength,
    /// There is a Content-Length beside a Transfer-Encoding.
    #[error("Content-Length beside Transfer-Encoding")]
    LengthAndEncoding,
    /// A Transfer-Encoding other than one `chunked`.
    #[error("a Transfer-Encoding other than chunked")]
    BadEncoding,
    /// A Transfer-Encoding in HTTP/1.0, which has none.
    #[error("Transfer-Encoding in HTTP/1.0")]
    EncodingInOld,
    /// A name that turns into a framing field where `_` is read as `-`.
    #[error("a framing field in disguise")]
    Disguised,
    /// A stream of bytes is asked for that goes on in a protocol other than WebSocket.
    #[error("this protocol is not served")]
    ProtocolNotServed,
    /// An upgrade that carries a body.
    #[error("an upgrade with a body")]
    UpgradeWithBody,
    /// A scheme that is not this connection's.
    #[error("another scheme than https")]
    Scheme,
    /// A field that concerns one connection, or white space around a value, in HTTP/2.
    #[error("a field that HTTP/2 does not have")]
    NotInHttp2,
    /// An Expect other than `100-continue`.
    #[error("an expectation that is unknown")]
    Expectation,
    /// The first line is not an answer's.
    #[error("no status line")]
    StatusLine,
}

impl BadHead {
    /// The status that a visitor gets for it.
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFields => 431,
            Self::TargetTooLong => 414,
            Self::MethodNotServed => 405,
            Self::ProtocolNotServed => 501,
            Self::Version => 505,
            Self::Expectation => 417,
            Self::BareLf
            | Self::BareCr
            | Self::Control
            | Self::RequestLine
            | Self::Method
            | Self::Target
            | Self::FieldName
            | Self::Folded
            | Self::NoHost
            | Self::TwoHosts
            | Self::BadHost
            | Self::HostMismatch
            | Self::TwoLengths
            | Self::BadLength
            | Self::LengthAndEncoding
            | Self::BadEncoding
            | Self::EncodingInOld
            | Self::Disguised
            | Self::UpgradeWithBody
            | Self::Scheme
            | Self::NotInHttp2
            | Self::StatusLine => 400,
        }
    }
}

/// How a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection; answers alone may.
    UntilClose,
}

/// HTTP's version, of those that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Old,
    /// HTTP/1.1.
    Current,
}

/// Looks for the end of a head in bytes as they arrive, each byte once.
#[derive(Debug, Default)]
pub struct Scan {
    at: usize,
}

impl Scan {
    /// Where the head ends that starts at the beginning of `bytes`: behind its empty line. `None` wants more
    /// bytes, appended to the same.
    ///
    /// # Errors
    /// These bytes are no head, whatever comes behind them.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadHead> {
        while let Some(&byte) = bytes.get(self.at) {
            let before = self.at.checked_sub(1).and_then(|at| bytes.get(at));
            match byte {
                b'\n' if before != Some(&b'\r') => return Err(BadHead::BareLf),
                _ if before == Some(&b'\r') && byte != b'\n' => return Err(BadHead::BareCr),
                0..=8 | 0x0b | 0x0c | 0x0e..=0x1f | 0x7f => return Err(BadHead::Control),
                _ => {}
            }
            self.at += 1;
            if self.at > MAX_HEAD {
                return Err(too_large(bytes));
            }
            if byte == b'\n' && bytes.get(..self.at).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
                return Ok(Some(self.at));
            }
        }
        Ok(None)
    }
}

fn too_large(bytes: &[u8]) -> BadHead {
    let first_line = bytes.iter().take(MAX_HEAD).position(|byte| *byte == b'\n');
    if first_line.is_none_or(|end| end > MAX_TARGET) { BadHead::TargetTooLong } else { BadHead::TooLarge }
}

/// One field of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name, as it was written.
    pub name: String,
    /// Its value, without the white space around it: visible ASCII, space, tab, and bytes from 0x80 on.
    pub value: Vec<u8>,
}

impl Field {
    /// Whether this is its name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The value where it is ASCII.
    pub fn text(&self) -> &str {
        if self.value.is_ascii() { std::str::from_utf8(&self.value).unwrap_or_default() } else { "" }
    }

    /// The members of the value, which is a list.
    pub fn list(&self) -> impl Iterator<Item = &str> {
        self.text().split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|m| !m.is_empty())
    }
}

/// The fields of a head in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<Field>);

impl Fields {
    /// The fields of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> + 'a {
        self.0.iter().filter(move |field| field.is(name))
    }

    /// The first field of that name, as text.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|field| field.is(name)).map(Field::text)
    }

    /// Whether a list of that name has this member, in any case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).any(|field| field.list().any(|m| m.eq_ignore_ascii_case(member)))
    }
}

/// Takes a head apart: its first line, and its fields. `head` ends in its empty line, as
/// [`Scan::find_end`] found it.
///
/// # Errors
/// A line that is no field, or too many of them.
pub fn lines(head: &[u8]) -> Result<(&[u8], Fields), BadHead> {
    let mut rest = head.strip_suffix(b"\r\n").ok_or(BadHead::BareLf)?;
    let first = next_line(&mut rest).ok_or(BadHead::RequestLine)?;
    let mut fields = Vec::with_capacity(16);
    while let Some(line) = next_line(&mut rest) {
        if fields.len() == MAX_FIELDS {
            return Err(BadHead::TooManyFields);
        }
        fields.push(field(line)?);
    }
    Ok((first, Fields(fields)))
}

fn next_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, behind) = rest.split_at(end);
    *rest = behind.get(2..).unwrap_or_default();
    Some(line)
}

pub(super) fn field(line: &[u8]) -> Result<Field, BadHead> {
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(BadHead::Folded);
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(BadHead::FieldName)?;
    let (name, value) = line.split_at(colon);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(BadHead::FieldName);
    }
    let name = String::from_utf8(name.to_vec()).map_err(|_| BadHead::FieldName)?;
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
        return Err(BadHead::Control);
    }
    // Not everybody takes a tab for white space, and these decide where a message ends.
    if line.contains(&b'\t') && name.eq_ignore_ascii_case("content-length") {
        return Err(BadHead::BadLength);
    }
    if line.contains(&b'\t') && name.eq_ignore_ascii_case("transfer-encoding") {
        return Err(BadHead::BadEncoding);
    }
    Ok(Field { name, value: value.to_vec() })
}

/// Whether a byte may be part of a token (RFC 9110 §5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// What Content-Length and Transfer-Encoding say together; `None` when there is neither. Both are taken out.
///
/// # Errors
/// They can be read in two ways.
pub(super) fn framing(fields: &mut Fields, version: Version) -> Result<Option<Body>, BadHead> {
    const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "host"];
    let disguised = |field: &Field| {
        field.name.contains('_')
            && FRAMING.iter().any(|real| field.name.replace('_', "-").eq_ignore_ascii_case(real))
    };
    if fields.0.iter().any(disguised) {
        return Err(BadHead::Disguised);
    }
    let lengths: Vec<_> = fields.all("content-length").collect();
    let encodings: Vec<_> = fields.all("transfer-encoding").collect();
    let body = match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => None,
        ([_, ..], [_, ..]) => return Err(BadHead::LengthAndEncoding),
        ([length], []) => Some(Body::Length(decimal(length.text())?)),
        ([_, _, ..], []) => return Err(BadHead::TwoLengths),
        ([], [_, ..]) if version == Version::Old => return Err(BadHead::EncodingInOld),
        ([], [one]) if one.text().eq_ignore_ascii_case("chunked") => Some(Body::Chunked),
        ([], _) => return Err(BadHead::BadEncoding),
    };
    fields.0.retain(|field| !field.is("content-length") && !field.is("transfer-encoding"));
    Ok(body)
}

fn decimal(text: &str) -> Result<u64, BadHead> {
    if text.is_empty() || text.len() > 18 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadHead::BadLength);
    }
    text.parse().map_err(|_| BadHead::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody\n\0";
        let end = bytes.len() - 6;
        for step in 1..bytes.len() {
            let mut scan = Scan::default();
            let found =
                (1..=bytes.len()).step_by(step).find_map(|upto| scan.find_end(&bytes[..upto]).unwrap());
            let found = found.or_else(|| scan.find_end(bytes).unwrap());
            assert_eq!(found, Some(end), "{step}");
        }
    }

    #[test]
    fn what_ends_a_line_in_another_way_is_refused_at_once() {
        let refused = |bytes: &[u8]| Scan::default().find_end(bytes).unwrap_err();
        assert_eq!(refused(b"GET / HTTP/1.1\n"), BadHead::BareLf);
        assert_eq!(refused(b"\n"), BadHead::BareLf);
        assert_eq!(refused(b"GET / HTTP/1.1\rHost"), BadHead::BareCr);
        assert_eq!(refused(b"GET / HTTP/1.1\r\r\n"), BadHead::BareCr);
        assert_eq!(refused(b"GET /\0"), BadHead::Control);
        assert_eq!(refused(b"\x16\x03\x01"), BadHead::Control);
    }

    #[test]
    fn a_head_without_an_end_is_refused_at_its_limit() {
        let mut long = b"GET / HTTP/1.1\r\nA: ".to_vec();
        long.resize(MAX_HEAD, b'a');
        assert_eq!(Scan::default().find_end(&long), Ok(None));
        long.push(b'a');
        assert_eq!(Scan::default().find_end(&long), Err(BadHead::TooLarge));
        assert_eq!(Scan::default().find_end(&vec![b'a'; MAX_HEAD + 1]), Err(BadHead::TargetTooLong));
    }

    #[test]
    fn fields_are_names_and_values() {
        let (first, fields) = lines(b"first\r\nA: b, C ,,d\r\nempty:\r\nX:\t \xff \r\n\r\n").unwrap();
        assert_eq!(first, b"first");
        assert_eq!(fields.0.len(), 3);
        assert_eq!(fields.0[0].list().collect::<Vec<_>>(), ["b", "C", "d"]);
        assert!(fields.lists("a", "c"));
        assert_eq!(fields.first("EMPTY"), Some(""));
        assert_eq!(fields.0[2].value, b"\xff");
        for (line, why) in [
            (&b"A : b"[..], BadHead::FieldName),
            (b": b", BadHead::FieldName),
            (b"A\xff: b", BadHead::FieldName),
            (b"no colon", BadHead::FieldName),
            (b" folded", BadHead::Folded),
            (b"\tA: b", BadHead::Folded),
        ] {
            assert_eq!(lines(&[b"first\r\n", line, b"\r\n\r\n"].concat()), Err(why), "{line:?}");
        }
        let many = format!("first\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(lines(many.as_bytes()), Err(BadHead::TooManyFields));
    }
}
