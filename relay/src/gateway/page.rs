//! The gateway's own answers: short, complete in themselves, in the form that the visitor can show.

use proto::name::ShareName;
use proto::tunnel::head::Version;
use proto::tunnel::request::RequestHead;

/// Something to say to a visitor.
pub(crate) struct Page {
    pub(crate) status: u16,
    content_type: &'static str,
    body: String,
    /// Fields that belong to the status, as lines.
    fields: String,
}

/// What a visitor's program shows best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Json,
    Text,
}

impl Page {
    /// A failure, for whoever sent this request: what happened, and what to do.
    pub(crate) fn failure(status: u16, request: Option<&RequestHead>, what: &str, remedy: &str) -> Self {
        let form = request.map_or(Form::Text, form);
        let title = reason(status);
        let (content_type, body) = match form {
            Form::Html => ("text/html; charset=utf-8", html(status, title, what, remedy)),
            Form::Json => (
                "application/json",
                serde_json::json!({ "status": status, "message": format!("{what} {remedy}") }).to_string(),
            ),
            Form::Text => ("text/plain; charset=utf-8", format!("{status} {title}\n{what} {remedy}\n")),
        };
        Self { status, content_type, body, fields: fields(status) }
    }

    /// The same, where the visitor is asked for a user and password.
    pub(crate) fn asking_for_password(self, name: &ShareName) -> Self {
        let fields = format!("WWW-Authenticate: Basic realm=\"{name}\", charset=\"UTF-8\"\r\n");
        Self { fields, ..self }
    }

    /// Something for a program.
    pub(crate) fn json(status: u16, value: &serde_json::Value) -> Self {
        let body = value.to_string();
        Self { status, content_type: "application/json", body, fields: fields(status) }
    }

    /// Something plain.
    pub(crate) fn text(status: u16, text: &str) -> Self {
        let body = text.to_owned();
        Self { status, content_type: "text/plain; charset=utf-8", body, fields: fields(status) }
    }

    /// Its bytes, as the answer to `request`; without one, nothing follows on the connection.
    pub(crate) fn bytes(&self, request: Option<&RequestHead>, keep_alive: bool) -> Vec<u8> {
        use std::fmt::Write as _;

        let Self { status, content_type, body, fields } = self;
        let mut out = format!("HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\n", reason(*status));
        // Writing to a string has no way to fail.
        let _ = write!(out, "Content-Length: {}\r\nCache-Control: no-store\r\n", body.len());
        out.push_str("X-Content-Type-Options: nosniff\r\n");
        if content_type.starts_with("text/html") {
            out.push_str("Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n");
        }
        out.push_str(fields);
        if !keep_alive || request.is_none_or(|request| request.version == Version::Old) {
            out.push_str("Connection: close\r\n");
        }
        out.push_str("\r\n");
        if request.is_none_or(|request| request.method != "HEAD") {
            out.push_str(body);
        }
        out.into_bytes()
    }
}

fn fields(status: u16) -> String {
    match status {
        429 | 503 => "Retry-After: 2\r\n",
        405 => "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n",
        _ => "",
    }
    .to_owned()
}

fn form(request: &RequestHead) -> Form {
    let accepts = |kind: &str| request.fields.all("accept").any(|field| field.text().contains(kind));
    if accepts("text/html") {
        Form::Html
    } else if accepts("application/json") {
        Form::Json
    } else {
        Form::Text
    }
}

/// The words of a status, of those that are used here.
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// All texts are ours: nothing of the request is in them.
fn html(status: u16, title: &str, what: &str, remedy: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{status} {title}</title>\n\
         <style>:root{{color-scheme:light dark}}\
         body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}}\
         p{{margin:.5rem 0}}small{{opacity:.6}}</style>\n\
         <h1>{status} {title}</h1>\n<p>{what}</p>\n<p>{remedy}</p>\n\
         <p><small>Culvert gateway</small></p>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(fields: &str, method: &str) -> String {
        let head = format!("{method} / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let page = Page::failure(503, Some(&request), "It is away.", "Wait.");
        String::from_utf8(page.bytes(Some(&request), true)).unwrap()
    }

    #[test]
    fn a_failure_has_the_form_that_its_reader_wants() {
        let html = failure("Accept: text/html,*/*\r\n", "GET");
        assert!(html.contains("<h1>503 Service Unavailable</h1>\n<p>It is away.</p>"), "{html}");
        assert!(html.contains("\r\nRetry-After: 2\r\n") && !html.contains("Connection: close"), "{html}");
        let json = failure("Accept: application/json\r\n", "GET");
        assert!(json.ends_with("\r\n\r\n{\"message\":\"It is away. Wait.\",\"status\":503}"), "{json}");
        let text = failure("", "GET");
        assert!(text.ends_with("\r\n\r\n503 Service Unavailable\nIt is away. Wait.\n"), "{text}");
        let head = failure("", "HEAD");
        assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: 42\r\n"), "{head}");
        let nobody = Page::failure(400, None, "a", "b").bytes(None, true);
        assert!(String::from_utf8(nobody).unwrap().contains("\r\nConnection: close\r\n"));
    }
}
