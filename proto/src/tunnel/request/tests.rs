use super::*;

fn parse(text: &str) -> Result<RequestHead, BadHead> {
    RequestHead::parse(text.as_bytes())
}

fn with(fields: &str) -> Result<RequestHead, BadHead> {
    parse(&format!("POST /a?b HTTP/1.1\r\nHost: x.test\r\n{fields}\r\n"))
}

#[test]
fn a_request_is_understood() {
    let head = parse("GET /a/b?c=d HTTP/1.1\r\nHost: X.test:81\r\nAccept: */*\r\n\r\n").unwrap();
    assert_eq!((head.method.as_str(), head.target.as_slice()), ("GET", &b"/a/b?c=d"[..]));
    assert_eq!((head.path(), head.query()), (&b"/a/b"[..], Some(&b"c=d"[..])));
    assert_eq!((head.authority.host(), head.authority.as_str()), ("x.test", "X.test:81"));
    assert_eq!((head.body, head.keep_alive), (Body::None, true));
    assert_eq!(head.fields.0.len(), 1);
    assert!(head.may_be_repeated());
}

#[test]
fn an_absolute_target_must_name_the_host() {
    let absolute = |target: &str, host: &str| {
        parse(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).map(|head| head.target)
    };
    assert_eq!(absolute("http://x.test/a", "X.test").unwrap(), b"/a");
    assert_eq!(absolute("HTTPS://x.test:443?q", "x.test").unwrap(), b"/?q");
    assert_eq!(absolute("http://x.test", "x.test:80").unwrap(), b"/");
    assert_eq!(absolute("http://y.test/", "x.test"), Err(BadHead::HostMismatch));
    assert_eq!(absolute("http://x.test:81/", "x.test"), Err(BadHead::HostMismatch));
    assert_eq!(absolute("http://x.test:443/", "x.test:80"), Err(BadHead::HostMismatch));
    for target in
        ["ftp://x.test/", "x.test:80", "http://u@x.test/", "http:///", "x", "*", "http:/x.test/", "/#a", ""]
    {
        assert!(absolute(target, "x.test").is_err(), "{target}");
    }
}

#[test]
fn a_body_has_one_end() {
    assert_eq!(with("Content-Length: 7\r\n").unwrap().body, Body::Length(7));
    assert_eq!(with("Transfer-Encoding: Chunked\r\n").unwrap().body, Body::Chunked);
    for (fields, why) in [
        ("Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", BadHead::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\ncontent-length: 0\r\n", BadHead::LengthAndEncoding),
        ("Content-Length: 7\r\nContent-Length: 7\r\n", BadHead::TwoLengths),
        ("Content-Length: 7\r\nContent-Length: 8\r\n", BadHead::TwoLengths),
        ("Content-Length: 7, 7\r\n", BadHead::BadLength),
        ("Content-Length: +7\r\n", BadHead::BadLength),
        ("Content-Length: -7\r\n", BadHead::BadLength),
        ("Content-Length: 0x7\r\n", BadHead::BadLength),
        ("Content-Length: 7 7\r\n", BadHead::BadLength),
        ("Content-Length:\r\n", BadHead::BadLength),
        ("Content-Length: 99999999999999999999\r\n", BadHead::BadLength),
        ("Transfer-Encoding: gzip, chunked\r\n", BadHead::BadEncoding),
        ("Transfer-Encoding: chunked, chunked\r\n", BadHead::BadEncoding),
        ("Transfer-Encoding: identity\r\n", BadHead::BadEncoding),
        ("Transfer-Encoding:\r\n", BadHead::BadEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", BadHead::BadEncoding),
        ("Content_Length: 7\r\n", BadHead::Disguised),
        ("Transfer_Encoding: chunked\r\n", BadHead::Disguised),
        ("Transfer-Encoding : chunked\r\n", BadHead::FieldName),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", BadHead::Folded),
    ] {
        assert_eq!(with(fields), Err(why), "{fields}");
    }
    let old = parse("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old, Err(BadHead::EncodingInOld));
}

#[test]
fn a_request_line_has_three_parts_and_one_space_between() {
    for (line, why) in [
        ("GET /", BadHead::RequestLine),
        ("GET  / HTTP/1.1", BadHead::RequestLine),
        ("GET / HTTP/1.1 ", BadHead::RequestLine),
        (" GET / HTTP/1.1", BadHead::RequestLine),
        ("GET /a b HTTP/1.1", BadHead::RequestLine),
        ("GET\t/ HTTP/1.1", BadHead::RequestLine),
        ("get / HTTP/1.1", BadHead::Method),
        ("G(T / HTTP/1.1", BadHead::Method),
        ("CONNECT x.test:80 HTTP/1.1", BadHead::MethodNotServed),
        ("TRACE / HTTP/1.1", BadHead::MethodNotServed),
        ("GET / HTTP/2.0", BadHead::Version),
        ("GET / HTTP/1.2", BadHead::Version),
        ("GET / http/1.1", BadHead::RequestLine),
        ("GET / HTTP/1.1.1", BadHead::RequestLine),
        ("GET / HTTP/01.1", BadHead::RequestLine),
    ] {
        assert_eq!(parse(&format!("{line}\r\nHost: x\r\n\r\n")), Err(why), "{line}");
    }
}

#[test]
fn there_is_one_host_and_it_is_one() {
    let hosts = |fields: &str| parse(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).unwrap_err();
    assert_eq!(hosts(""), BadHead::NoHost);
    assert_eq!(hosts("Host: a\r\nHost: a\r\n"), BadHead::TwoHosts);
    assert_eq!(hosts("Host: a\r\nhOST: b\r\n"), BadHead::TwoHosts);
    assert_eq!(hosts("Host:\r\n"), BadHead::BadHost);
    assert_eq!(hosts("Host: a, b\r\n"), BadHead::BadHost);
    assert_eq!(hosts("Host: a@b\r\n"), BadHead::BadHost);
    assert_eq!(parse("GET / HTTP/1.0\r\n\r\n").unwrap_err(), BadHead::NoHost);
}

#[test]
fn an_upgrade_is_asked_for_by_both_fields_and_has_no_body() {
    let upgrade = |fields: &str| with(fields).map(|head| head.upgrade);
    assert_eq!(
        upgrade("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n").unwrap().as_deref(),
        Some("websocket")
    );
    for fields in [
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
        "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
    ] {
        assert_eq!(upgrade(fields), Ok(None), "{fields}");
    }
    let fields = "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n";
    assert_eq!(upgrade(fields), Err(BadHead::UpgradeWithBody));
    let fields = "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(upgrade(fields), Err(BadHead::UpgradeWithBody));
}

#[test]
fn there_is_one_expectation() {
    assert!(with("Expect: 100-Continue\r\nContent-Length: 1\r\n").unwrap().expects_continue);
    assert_eq!(with("Expect: 200-ok\r\n"), Err(BadHead::Expectation));
    let old =
        parse("POST / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").unwrap();
    assert!(!old.expects_continue && !old.keep_alive);
}
