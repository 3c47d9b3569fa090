//! The head of an answer, from a server that nobody here knows.

use super::head::{BadHead, Body, Fields, MAX_FIELDS, MAX_HEAD, Version, framing, lines};

/// An answer's head in its parsed form, from which alone it is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The version that the server speaks.
    pub version: Version,
    /// The status, from 100 to 599.
    pub status: u16,
    /// The words behind it.
    pub reason: Vec<u8>,
    /// All fields but Content-Length and Transfer-Encoding.
    pub fields: Fields,
    /// How the body that follows ends.
    pub body: Body,
    /// The length that is named, whether a body follows or not.
    pub length: Option<u64>,
}

/// Fields, and bytes, by which [`super::forward::response_head`] may make a head longer.
const OUR_FIELDS: usize = 2;
const OUR_BYTES: usize = 256;

impl ResponseHead {
    /// Takes the head of an answer to `method` apart, found by [`super::head::Scan`].
    ///
    /// # Errors
    /// It is none, one that two programs could read differently, or so long that it would be too long with what
    /// is added to it.
    pub fn parse(head: &[u8], method: &str) -> Result<Self, BadHead> {
        let parsed = Self::parse_forwarded(head, method)?;
        if head.len() + OUR_BYTES > MAX_HEAD {
            return Err(BadHead::TooLarge);
        }
        if parsed.fields.0.len() + OUR_FIELDS > MAX_FIELDS {
            return Err(BadHead::TooManyFields);
        }
        Ok(parsed)
    }

    /// The same for one that was forwarded.
    ///
    /// # Errors
    /// As for [`Self::parse`], with the limits of any head.
    pub fn parse_forwarded(head: &[u8], method: &str) -> Result<Self, BadHead> {
        let (first, mut fields) = lines(head)?;
        let (version, status, reason) = status_line(first)?;
        let framing = framing(&mut fields, version)?;
        let length = match framing {
            Some(Body::Length(length)) => Some(length),
            Some(Body::None | Body::Chunked | Body::UntilClose) | None => None,
        };
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let body = if bodiless { Body::None } else { framing.unwrap_or(Body::UntilClose) };
        Ok(Self { version, status, reason: reason.to_vec(), fields, body, length })
    }

    /// Whether another answer to the same request follows.
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

fn status_line(line: &[u8]) -> Result<(Version, u16, &[u8]), BadHead> {
    let (version, rest) = line.split_at_checked(9).ok_or(BadHead::StatusLine)?;
    let version = match version {
        b"HTTP/1.1 " => Version::Current,
        b"HTTP/1.0 " => Version::Old,
        _ => return Err(BadHead::StatusLine),
    };
    let (digits, reason) = rest.split_at_checked(3).ok_or(BadHead::StatusLine)?;
    let status = match digits {
        [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
            digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
        }
        _ => return Err(BadHead::StatusLine),
    };
    match reason {
        [] => Ok((version, status, b"")),
        [b' ', reason @ ..] => Ok((version, status, reason)),
        _ => Err(BadHead::StatusLine),
    }
}

#[cfg(test)]
mod tests {
    use super::super::forward::response_head;
    use super::super::head::Scan;
    use super::*;

    fn parse(text: &str, method: &str) -> Result<ResponseHead, BadHead> {
        ResponseHead::parse(text.as_bytes(), method)
    }

    #[test]
    fn the_longest_answer_that_is_read_is_read_again_with_what_is_added() {
        let many = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a:b\r\n".repeat(count));
        let long = |bytes| format!("HTTP/1.1 200 OK\r\na:{}\r\n\r\n", "b".repeat(bytes));
        let (fields, bytes) = (MAX_FIELDS - OUR_FIELDS, MAX_HEAD - OUR_BYTES - long(0).len());
        for text in [many(fields), long(bytes)] {
            let head = parse(&text, "GET").unwrap();
            let (written, ..) = response_head(&head, Version::Current, false, "example.test");
            assert_eq!(Scan::default().find_end(&written), Ok(Some(written.len())));
            ResponseHead::parse_forwarded(&written, "GET").unwrap();
        }
        assert_eq!(parse(&many(fields + 1), "GET"), Err(BadHead::TooManyFields));
        assert_eq!(parse(&long(bytes + 1), "GET"), Err(BadHead::TooLarge));
    }

    #[test]
    fn an_answer_is_understood() {
        let head = parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\n", "GET").unwrap();
        assert_eq!((head.status, head.reason.as_slice(), head.body), (200, &b"OK"[..], Body::Length(3)));
        assert_eq!(head.fields.0.len(), 1);
        assert_eq!(parse("HTTP/1.1 200\r\n\r\n", "GET").unwrap().body, Body::UntilClose);
        assert_eq!(parse("HTTP/1.0 404 \r\n\r\n", "GET").unwrap().status, 404);
        let chunked = parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET").unwrap();
        assert_eq!((chunked.body, chunked.length), (Body::Chunked, None));
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for (status, method) in
            [(200, "HEAD"), (100, "GET"), (103, "GET"), (204, "GET"), (304, "GET"), (101, "GET")]
        {
            let head = parse(&format!("HTTP/1.1 {status} X\r\nContent-Length: 3\r\n\r\n"), method).unwrap();
            assert_eq!((head.body, head.length), (Body::None, Some(3)), "{status}");
            assert_eq!(head.is_interim(), matches!(status, 100 | 103), "{status}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "HTTP/1.1 20 X\r\n\r\n",
            "HTTP/1.1 999 X\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 2000 X\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        ] {
            assert!(parse(text, "GET").is_err(), "{text}");
        }
    }
}
