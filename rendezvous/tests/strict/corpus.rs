//! Requests as nobody should send them, and a few as everybody does.

/// What is to become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Passed,
    Refused,
    /// As long as nginx does not refuse what passes.
    Either,
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
}

use Expected::{Either, Passed, Refused};

#[derive(Default)]
struct Corpus(Vec<Case>);

const HOST: &str = "Host: forwstest.example.test\r\n";

impl Corpus {
    fn raw(&mut self, name: impl Into<String>, expected: Expected, bytes: impl AsRef<[u8]>) {
        self.0.push(Case { name: name.into(), bytes: bytes.as_ref().to_vec(), expected });
    }

    /// A request line, with everything else as it should be.
    fn line(&mut self, expected: Expected, line: &str) {
        self.raw(format!("line {line:.60?}"), expected, format!("{line}\r\n{HOST}\r\n"));
    }

    /// Further fields of a GET.
    fn fields(&mut self, expected: Expected, fields: &str) {
        let path = format!("/f{}", self.0.len());
        self.raw(
            format!("fields {fields:.80?}"),
            expected,
            format!("GET {path} HTTP/1.1\r\n{HOST}{fields}\r\n"),
        );
    }

    /// Further fields of a POST, and its body. What comes behind a body that is shorter than it seems would be
    /// a request of its own.
    fn post(&mut self, expected: Expected, fields: &str, body: &str) {
        let path = format!("/p{}", self.0.len());
        let bytes = format!("POST {path} HTTP/1.1\r\n{HOST}{fields}\r\n{body}");
        self.raw(format!("post {fields:.60?} {body:.60?}"), expected, bytes);
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut corpus = Corpus::default();
    usual(&mut corpus);
    line_ends(&mut corpus);
    request_lines(&mut corpus);
    targets(&mut corpus);
    hosts(&mut corpus);
    names(&mut corpus);
    values(&mut corpus);
    lengths(&mut corpus);
    encodings(&mut corpus);
    chunks(&mut corpus);
    upgrades(&mut corpus);
    sizes(&mut corpus);
    corpus.0
}

fn usual(corpus: &mut Corpus) {
    corpus.line(Passed, "GET / HTTP/1.1");
    corpus.line(Passed, "GET /a/b%20c?d=e&f=%zz HTTP/1.1");
    corpus.line(Passed, "DELETE /d HTTP/1.1");
    corpus.line(Passed, "OPTIONS /o HTTP/1.1");
    corpus.line(Passed, "GET http://forwstest.example.test/abs HTTP/1.1");
    corpus.line(Passed, "GET /old HTTP/1.0");
    corpus.fields(Passed, "Accept: */*\r\nX-Empty:\r\nX-Tab:\ta\tb\t\r\n");
    corpus.fields(Passed, "Cookie: a=b; c=d\r\nCookie: e=f\r\n");
    corpus.fields(Passed, "Content-Length: 0\r\n");
    corpus.post(Passed, "Content-Length: 5\r\n", "hello");
    corpus.post(Passed, "Content-Length:5\r\n", "hello");
    corpus.post(Passed, "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n");
    corpus.post(Passed, "transfer-encoding: Chunked\r\n", "5;a=b\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    corpus.raw("an empty line first", Passed, format!("\r\nGET /first HTTP/1.1\r\n{HOST}\r\n"));
    corpus.fields(
        Passed,
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
         AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    );
}

fn line_ends(corpus: &mut Corpus) {
    let host = "Host: forwstest.example.test";
    for (name, text) in [
        ("all LF", format!("GET /1 HTTP/1.1\n{host}\n\n")),
        ("first LF", format!("GET /2 HTTP/1.1\n{host}\r\n\r\n")),
        ("Host LF", format!("GET /3 HTTP/1.1\r\n{host}\n\r\n")),
        ("last LF", format!("GET /4 HTTP/1.1\r\n{host}\r\n\n")),
        ("LF in a value", format!("GET /5 HTTP/1.1\r\n{host}\r\nA: b\nC: d\r\n\r\n")),
        ("all CR", format!("GET /6 HTTP/1.1\r{host}\r\r")),
        ("CR in a value", format!("GET /7 HTTP/1.1\r\n{host}\r\nA: b\rC: d\r\n\r\n")),
        ("CR in a name", format!("GET /8 HTTP/1.1\r\n{host}\r\nA\r: b\r\n\r\n")),
        ("CR CR LF", format!("GET /9 HTTP/1.1\r\r\n{host}\r\n\r\n")),
        ("CR CR LF behind a field", format!("GET /10 HTTP/1.1\r\n{host}\r\r\n\r\n")),
        ("CR CR LF at the end", format!("GET /11 HTTP/1.1\r\n{host}\r\n\r\r\n")),
        ("LF CR", format!("GET /12 HTTP/1.1\n\r{host}\n\r\n\r")),
        ("CR in the target", format!("GET /1\r3 HTTP/1.1\r\n{host}\r\n\r\n")),
        ("LF before the line", format!("\nGET /14 HTTP/1.1\r\n{host}\r\n\r\n")),
        ("CR before the line", format!("\rGET /15 HTTP/1.1\r\n{host}\r\n\r\n")),
        ("folded with a space", format!("GET /16 HTTP/1.1\r\n{host}\r\nA: b\r\n c\r\n\r\n")),
        ("folded with a tab", format!("GET /17 HTTP/1.1\r\n{host}\r\nA: b\r\n\tc\r\n\r\n")),
        ("the first field folded", format!("GET /18 HTTP/1.1\r\n {host}\r\n\r\n")),
        ("a folded Host", "GET /19 HTTP/1.1\r\nHost:\r\n forwstest.example.test\r\n\r\n".to_owned()),
        ("vertical tab for an end", format!("GET /20 HTTP/1.1\x0b{host}\x0b\x0b")),
        ("form feed in a value", format!("GET /21 HTTP/1.1\r\n{host}\r\nA: b\x0cc\r\n\r\n")),
    ] {
        corpus.raw(name, Refused, text);
    }
}

fn request_lines(corpus: &mut Corpus) {
    for line in [
        "GET  /two-spaces HTTP/1.1",
        "GET /two-spaces  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/tab HTTP/1.1",
        "GET /tab\tHTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1 x",
        "GET /a b HTTP/1.1",
        "GET HTTP/1.1",
        "GET",
        "GET /",
        "/ HTTP/1.1",
        "get / HTTP/1.1",
        "G\0T / HTTP/1.1",
        "GE(T / HTTP/1.1",
        "G\u{e4}T / HTTP/1.1",
        "AVERYLONGMETHODTHATNOBODYKNOWS / HTTP/1.1",
        "CONNECT forwstest.example.test:80 HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "TRACE / HTTP/1.1",
        "PRI * HTTP/2.0",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1.2",
        "GET / HTTP/1",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "GET / HTTP/1.1.1",
        "GET / http/1.1",
        "GET / HTTP /1.1",
        "GET / HTTPS/1.1",
        "GET / HTP/1.1",
        "GET / HTTP/1,1",
        "GET / HTTP/-1.1",
        "GET / HTTP/x.1",
    ] {
        corpus.line(Refused, line);
    }
    corpus.raw("TLS instead", Refused, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    corpus.raw("SSH instead", Refused, b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    corpus.raw("HTTP/2 instead", Refused, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    corpus.raw("SOCKS instead", Refused, b"\x05\x01\x00");
    corpus.raw(
        "a proxy's greeting",
        Refused,
        format!("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\n{HOST}\r\n"),
    );
}

fn targets(corpus: &mut Corpus) {
    for target in [
        "*",
        "a",
        "a/b",
        "#",
        "/#a",
        "/a#b",
        "//\u{7f}",
        "ftp://forwstest.example.test/",
        "http:/forwstest.example.test/",
        "http://",
        "http:///a",
        "http://other.example.test/",
        "http://forwstest.example.test@other.example.test/",
        "http://user:pass@forwstest.example.test/",
        "http://forwstest.example.test:81/",
        "http://forwstest.example.test:x/",
        "/..",
        "/../a",
        "/a/../../b",
        "/%2e%2e/a",
        "/%2E./a",
        "/a/%2e%2e/%2e%2e/b",
        "/%00",
        "/a%00b",
        "/%",
        "/%2",
        "/%zz",
        "/%u0041",
        "javascript:alert(1)",
        "forwstest.example.test:80",
    ] {
        corpus.line(Refused, &format!("GET {target} HTTP/1.1"));
    }
    for target in
        ["/a/../b", "/./a", "//a", "/a//b", "/%2fa", "/%25", "/\"<>`{}|^\\", "/a?b#", "/?..%00", "/a;b=c"]
    {
        corpus.line(Either, &format!("GET {target} HTTP/1.1"));
    }
    corpus.raw(
        "a byte over ASCII",
        Either,
        [b"GET /\xff\xfe HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat(),
    );
    for byte in (1..=31_u8).chain([127]) {
        if matches!(byte, b'\t' | b'\r' | b'\n') {
            continue;
        }
        let line = [b"GET /c".as_slice(), &[byte], b" HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat();
        corpus.raw(format!("byte {byte:#04x} in the target"), Refused, line);
    }
}

fn hosts(corpus: &mut Corpus) {
    corpus.raw("no Host", Refused, "GET /h HTTP/1.1\r\n\r\n");
    corpus.raw("no Host in HTTP/1.0", Refused, "GET /h HTTP/1.0\r\n\r\n");
    for fields in [
        "Host: forwstest.example.test\r\nHost: forwstest.example.test\r\n",
        "Host: forwstest.example.test\r\nHost: other.example.test\r\n",
        "Host: forwstest.example.test\r\nhOST: other.example.test\r\n",
        "Host:\r\n",
        "Host: \r\n",
        "Host : forwstest.example.test\r\n",
        "Host: forwstest.example.test, other.example.test\r\n",
        "Host: forwstest.example.test other\r\n",
        "Host: forwstest.example.test/a\r\n",
        "Host: forwstest.example.test\\a\r\n",
        "Host: a@forwstest.example.test\r\n",
        "Host: forwstest.example.test:80:80\r\n",
        "Host: forwstest.example.test:x\r\n",
        "Host: forwstest.example.test:99999\r\n",
        "Host: forwstest.example.test#a\r\n",
        "Host: forwstest.example.test?a\r\n",
        "Host: forwstest..example.test\r\n",
        "Host: .\r\n",
        "Host: forwstest.example.test\0\r\n",
        "Host: forwstest.exa\u{e4}mple.test\r\n",
        "Host: [forwstest.example.test]\r\n",
        "Host: [::1\r\n",
        "Host: forwstest.example.test\r\nHost_: x\r\nHost: y\r\n",
        "Host: forwstest.example.test\r\nX: y\r\n Host: z\r\n",
    ] {
        corpus.raw(format!("hosts {fields:.70?}"), Refused, format!("GET /h HTTP/1.1\r\n{fields}\r\n"));
    }
}

fn names(corpus: &mut Corpus) {
    for field in [
        "A : b",
        "A\t: b",
        " A: b",
        ": b",
        "A B: c",
        "A(B): c",
        "A@: b",
        "A\"B: c",
        "A/B: c",
        "A[B]: c",
        "A{B}: c",
        "A,B: c",
        "A=B: c",
        "A;B: c",
        "A<B: c",
        "A?B: c",
        "A\\B: c",
        "no colon",
        "A\u{e4}: b",
    ] {
        corpus.fields(Refused, &format!("{field}\r\n"));
    }
    for byte in (0..=31_u8).chain([127, 128, 255]) {
        if matches!(byte, b'\r' | b'\n') {
            continue;
        }
        let bytes = [b"GET /n HTTP/1.1\r\n", HOST.as_bytes(), b"X", &[byte], b"Y: z\r\n\r\n"].concat();
        corpus.raw(format!("byte {byte:#04x} in a name"), Refused, bytes);
    }
}

fn values(corpus: &mut Corpus) {
    for byte in (0..=31_u8).chain([127]) {
        if matches!(byte, b'\t' | b'\r' | b'\n') {
            continue;
        }
        let bytes = [b"GET /v HTTP/1.1\r\n", HOST.as_bytes(), b"X: a", &[byte], b"b\r\n\r\n"].concat();
        corpus.raw(format!("byte {byte:#04x} in a value"), Refused, bytes);
    }
    corpus.fields(Either, "X: \u{e4}\u{f6}\r\n");
    corpus.fields(Refused, "Expect: 200-ok\r\n");
    corpus.fields(Refused, "Expect: 100-continue, x\r\n");
    corpus.fields(Refused, "Expect: 100-continue\r\nExpect: 100-continue\r\n");
}

fn lengths(corpus: &mut Corpus) {
    const BEHIND: &str = "helloGET /smuggled HTTP/1.1\r\nHost: forwstest.example.test\r\n\r\n";
    for length in [
        "",
        " ",
        "+5",
        "-5",
        "5 5",
        "5,5",
        "5, 5",
        "5;",
        "0x5",
        "5.0",
        "5e0",
        "five",
        "5\t6",
        "\u{ff15}",
        "'5'",
        "5a",
        "18446744073709551621",
        "99999999999999999999",
        "9223372036854775808",
        "5\0",
        "1_0",
    ] {
        corpus.post(Refused, &format!("Content-Length: {length}\r\n"), BEHIND);
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 6\r\n",
        "Content-Length: 5\r\nX: y\r\nContent-Length: 7\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        " Content-Length: 5\r\n",
        "Content_Length: 5\r\n",
        "Content-Length: 5\r\nContent_Length: 0\r\n",
        "Content-Length:\r\n 5\r\n",
        "Content-Length: 5\r\n\tx\r\n",
        "Content-Length: 5\nContent-Length: 6\r\n",
        "\0Content-Length: 5\r\n",
    ] {
        corpus.post(Refused, fields, BEHIND);
    }
    corpus.post(Either, "Content-Length: 05\r\n", "hello");
    corpus.post(Refused, "Content-Length: \t5 \r\n", "hello");
    corpus.post(Passed, "Content-Length:   5  \r\n", "hello");
}

fn encodings(corpus: &mut Corpus) {
    const BODY: &str = "5\r\nhello\r\n0\r\n\r\n";
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nTransfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: chu\x0bnked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\x0c\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: chunked\u{a0}\r\n",
        "Transfer-Encoding: c\r\n hunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding:\n chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Content-Length: 5\r\nTransfer_Encoding: chunked\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding\r\n",
        "Transfer-Encoding:\tchunked\r\n",
    ] {
        corpus.post(Refused, fields, BODY);
    }
    let old = format!("POST /old HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{BODY}");
    corpus.raw("chunks in HTTP/1.0", Refused, old);
}

fn chunks(corpus: &mut Corpus) {
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5\r\nhello\r\n0\r\nA : b\r\n\r\n",
        "5\r\nhello\r\n0\r\n A: b\r\n\r\n",
    ] {
        corpus.post(Refused, "Transfer-Encoding: chunked\r\n", body);
    }
}

fn upgrades(corpus: &mut Corpus) {
    let ask = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    corpus.post(Refused, &format!("{ask}Content-Length: 5\r\n"), "hello");
    corpus.post(Refused, &format!("{ask}Transfer-Encoding: chunked\r\n"), "5\r\nhello\r\n0\r\n\r\n");
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Host\r\n",
        "Connection: close, Content-Length\r\n",
        "Connection: X-Forwarded-For, Forwarded\r\nX-Forwarded-For: 1.1.1.1\r\n",
    ] {
        corpus.fields(Either, fields);
    }
}

fn sizes(corpus: &mut Corpus) {
    corpus.line(Refused, &format!("GET /{} HTTP/1.1", "a".repeat(9 * 1024)));
    corpus.fields(Refused, &format!("X: {}\r\n", "a".repeat(40 * 1024)));
    corpus.fields(Refused, &format!("{}: b\r\n", "a".repeat(40 * 1024)));
    corpus.fields(Refused, &"A: b\r\n".repeat(101));
    corpus.line(Passed, &format!("GET /{} HTTP/1.1", "a".repeat(4 * 1024)));
}
