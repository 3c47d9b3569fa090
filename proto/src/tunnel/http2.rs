//! Requests that came over HTTP/2 (RFC 9113), written as HTTP/1.1.
//!
//! Everything behind the front door reads one form, and reads it strictly. What HTTP/2 says otherwise is said
//! here in that form, and what can't be said in it is refused: nothing that comes out of here has more lines, or
//! other ones, than came in.

pub mod websocket;

use super::head::{BadHead, Field, Fields, is_token};
use super::host::Authority;

/// Fields that concern one connection, which HTTP/2 has other ways for (RFC 9113 §8.2.2).
const CONNECTION: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A request's head as HTTP/2 carries it.
#[derive(Debug, Clone)]
pub struct Http2Head<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:scheme`.
    pub scheme: Option<&'a str>,
    /// `:authority`.
    pub authority: Option<&'a str>,
    /// `:path`.
    pub path: &'a str,
    /// `:protocol`, with which a CONNECT asks for a stream of bytes (RFC 8441). See [`websocket`].
    pub protocol: Option<&'a str>,
    /// The other fields in their order.
    pub fields: Vec<(&'a str, &'a [u8])>,
    /// Whether nothing follows the head.
    pub ended: bool,
}

impl Http2Head<'_> {
    /// The same head in HTTP/1.1. A body without a length follows it in chunks.
    ///
    /// # Errors
    /// It is none, or says something that HTTP/1.1 would understand as something else.
    pub fn to_http1(&self) -> Result<Vec<u8>, BadHead> {
        if self.protocol.is_some() {
            return Err(BadHead::ProtocolNotServed);
        }
        let mut out = self.written(self.method, &[])?;
        if !self.ended && self.length().is_none() {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }

    /// The lines of the head, so far as they are the visitor's, but for the fields with these names.
    fn written(&self, method: &str, without: &[&str]) -> Result<Vec<u8>, BadHead> {
        if self.scheme.is_some_and(|scheme| scheme != "https") {
            return Err(BadHead::Scheme);
        }
        if !method.bytes().all(is_token) {
            return Err(BadHead::Method);
        }
        let path_is_plain = self.path == "*" || self.path.starts_with('/');
        if !path_is_plain || self.path.bytes().any(|byte| matches!(byte, 0..=32 | 127)) {
            return Err(BadHead::Target);
        }
        let host = self.host()?;
        let mut out = Vec::with_capacity(1024);
        put(
            &mut out,
            &[method.as_bytes(), b" ", self.path.as_bytes(), b" HTTP/1.1\r\nHost: ", host, b"\r\n"],
        );
        let mut cookies: Vec<&[u8]> = Vec::new();
        for (name, value) in &self.fields {
            check(name, value)?;
            match *name {
                "host" => {}
                name if without.contains(&name) => {}
                "cookie" => cookies.push(value),
                _ => put(&mut out, &[name.as_bytes(), b": ", value, b"\r\n"]),
            }
        }
        // HTTP/2 may take them apart, so that they compress better (RFC 9113 §8.2.3).
        if !cookies.is_empty() {
            put(&mut out, &[b"cookie: ", &cookies.join(&b"; "[..]), b"\r\n"]);
        }
        Ok(out)
    }

    /// The length that is named.
    pub fn length(&self) -> Option<&[u8]> {
        self.fields.iter().find(|(name, _)| *name == "content-length").map(|(_, value)| *value)
    }

    /// Whom it is for: `:authority`, with which a Host has to agree.
    fn host(&self) -> Result<&[u8], BadHead> {
        let mut hosts = self.fields.iter().filter(|(name, _)| *name == "host").map(|(_, value)| *value);
        let (host, second) = (hosts.next(), hosts.next());
        if second.is_some() {
            return Err(BadHead::TwoHosts);
        }
        let parse = |bytes| Authority::parse(bytes).ok_or(BadHead::BadHost);
        match (self.authority.map(str::as_bytes), host) {
            (None, None) => Err(BadHead::NoHost),
            (Some(named), Some(host)) if !parse(named)?.same_as(&parse(host)?) => Err(BadHead::HostMismatch),
            (Some(host), _) | (None, Some(host)) => parse(host).map(|_| host),
        }
    }
}

fn check(name: &str, value: &[u8]) -> Result<(), BadHead> {
    if name.is_empty() || !name.bytes().all(|byte| is_token(byte) && !byte.is_ascii_uppercase()) {
        return Err(BadHead::FieldName);
    }
    if value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
        return Err(BadHead::Control);
    }
    // White space around a value: two programs may read two values (RFC 9113 §8.2.1).
    if value.trim_ascii().len() < value.len() {
        return Err(BadHead::NotInHttp2);
    }
    if CONNECTION.contains(&name) || name == "te" && !value.eq_ignore_ascii_case(b"trailers") {
        return Err(BadHead::NotInHttp2);
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The fields of an answer as HTTP/2 carries them: those that concern one connection stay behind.
pub fn answer_fields(fields: &Fields) -> impl Iterator<Item = (String, &[u8])> {
    let carried = |field: &&Field| !CONNECTION.iter().any(|name| field.is(name));
    fields.0.iter().filter(carried).map(|field| (field.name.to_ascii_lowercase(), field.value.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::super::head::{Body, Scan};
    use super::super::request::RequestHead;
    use super::*;

    const GET: Http2Head<'_> = Http2Head {
        method: "GET",
        scheme: Some("https"),
        authority: Some("nas.example.test"),
        path: "/a?b",
        protocol: None,
        fields: Vec::new(),
        ended: true,
    };

    fn written(fields: &[(&'static str, &'static str)], ended: bool) -> Result<String, BadHead> {
        let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let head = Http2Head { fields, ended, ..GET }.to_http1()?;
        assert_eq!(Scan::default().find_end(&head), Ok(Some(head.len())));
        Ok(String::from_utf8(head).unwrap())
    }

    #[test]
    fn a_head_is_the_same_in_http_1() {
        assert_eq!(
            written(&[("accept", "*/*"), ("cookie", "a=b"), ("x", ""), ("cookie", "c=d")], true).unwrap(),
            "GET /a?b HTTP/1.1\r\nHost: nas.example.test\r\naccept: */*\r\nx: \r\ncookie: a=b; c=d\r\n\r\n"
        );
        let body = |fields: &[(&'static str, &'static str)], ended| {
            RequestHead::parse(written(fields, ended).unwrap().as_bytes()).map(|head| head.body)
        };
        assert_eq!(body(&[], true), Ok(Body::None));
        assert_eq!(body(&[], false), Ok(Body::Chunked));
        assert_eq!(body(&[("content-length", "5")], false), Ok(Body::Length(5)));
        assert_eq!(body(&[("content-length", "0")], true), Ok(Body::Length(0)));
        assert_eq!(
            body(&[("content-length", "5"), ("content-length", "5")], false),
            Err(BadHead::TwoLengths)
        );
    }

    #[test]
    fn the_authority_and_the_host_agree() {
        let host = |authority, host: &[&'static str]| {
            let fields = host.iter().map(|host| ("host", host.as_bytes())).collect();
            let head = Http2Head { authority, fields, ..GET }.to_http1()?;
            RequestHead::parse(&head).map(|head| head.authority.as_str().to_owned())
        };
        assert_eq!(host(Some("a.test"), &[]), Ok("a.test".to_owned()));
        assert_eq!(host(Some("a.test"), &["A.test:443"]), Ok("a.test".to_owned()));
        assert_eq!(host(None, &["a.test"]), Ok("a.test".to_owned()));
        assert_eq!(host(None, &[]), Err(BadHead::NoHost));
        assert_eq!(host(Some("a.test"), &["b.test"]), Err(BadHead::HostMismatch));
        assert_eq!(host(Some("a.test"), &["a.test", "a.test"]), Err(BadHead::TwoHosts));
        for bad in ["", "a@b", "a b", "a/b", "a\r\nx: y"] {
            assert_eq!(host(Some(bad), &[]), Err(BadHead::BadHost), "{bad:?}");
        }
    }

    #[test]
    fn nothing_becomes_another_line_or_concerns_a_connection() {
        for (name, value, why) in [
            ("connection", "close", BadHead::NotInHttp2),
            ("content-length", "0 ", BadHead::NotInHttp2),
            ("x", "\ta", BadHead::NotInHttp2),
            ("keep-alive", "5", BadHead::NotInHttp2),
            ("proxy-connection", "x", BadHead::NotInHttp2),
            ("transfer-encoding", "chunked", BadHead::NotInHttp2),
            ("upgrade", "websocket", BadHead::NotInHttp2),
            ("te", "gzip", BadHead::NotInHttp2),
            ("X", "y", BadHead::FieldName),
            ("", "y", BadHead::FieldName),
            (":path", "/b", BadHead::FieldName),
            ("x y", "", BadHead::FieldName),
            ("x\r\ny", "", BadHead::FieldName),
            ("x:y", "", BadHead::FieldName),
            ("x", "a\r\nb: c", BadHead::Control),
            ("x", "a\nb", BadHead::Control),
            ("x", "a\0", BadHead::Control),
        ] {
            assert_eq!(written(&[(name, value)], true), Err(why), "{name:?}: {value:?}");
        }
        assert!(written(&[("te", "Trailers")], true).is_ok());
        for path in ["", "a", "http://nas.example.test/", "/a b", "/a\r\nX: y", "/\0"] {
            assert_eq!(Http2Head { path, ..GET }.to_http1(), Err(BadHead::Target), "{path:?}");
        }
        for method in ["G T", "GET / HTTP/1.1\r\nX:", "G\r\n"] {
            assert_eq!(Http2Head { method, ..GET }.to_http1(), Err(BadHead::Method), "{method:?}");
        }
        assert_eq!(Http2Head { scheme: Some("http"), ..GET }.to_http1(), Err(BadHead::Scheme));
    }

    #[test]
    fn an_answer_leaves_behind_what_concerns_a_connection() {
        let field = |name: &str| Field { name: name.to_owned(), value: b"x".to_vec() };
        let fields = Fields(["Connection", "ETag", "Upgrade", "Keep-Alive"].map(field).to_vec());
        assert_eq!(answer_fields(&fields).collect::<Vec<_>>(), [("etag".to_owned(), &b"x"[..])]);
    }
}
