//! Chunked bodies (RFC 9112 §7.1), read without forgiveness and written anew.

use super::forward::may_trail;
use super::head::{BadHead, Fields, field};

/// The longest line of a chunk's size and extensions.
pub const MAX_SIZE_LINE: usize = 1024;

/// The trailer section at the most, in bytes.
pub const MAX_TRAILERS: usize = 8 * 1024;

/// Why bytes are no chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// The size is no hexadecimal number, too large, or its line is too long.
    #[error("no chunk size")]
    Size,
    /// A chunk does not end in CRLF.
    #[error("a chunk that does not end where it should")]
    End,
    /// A trailer is no field, or there are too many of them.
    #[error("no trailer: {0}")]
    Trailer(#[from] BadHead),
}

/// What the next bytes of a chunked body are.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Only the framing; the rest has not come yet.
    More,
    /// Data: so many bytes behind the framing.
    Data(usize),
    /// The end, with these trailers.
    End(Fields),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// Reads a chunked body.
#[derive(Debug)]
pub struct ChunkReader {
    state: State,
    /// What has come of a line, or of the CRLF behind a chunk.
    line: Vec<u8>,
    trailers: Fields,
    trailer_bytes: usize,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self { state: State::Size, line: Vec::new(), trailers: Fields::default(), trailer_bytes: 0 }
    }
}

impl ChunkReader {
    /// Reads on: how many of `bytes` are framing, and what follows them. Data are never kept here.
    ///
    /// # Errors
    /// This is no chunked body; nothing of it may be used any more.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(usize, Piece), BadChunk> {
        let mut framing = 0;
        loop {
            if let State::Data(left) = self.state {
                let here =
                    usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len().saturating_sub(framing));
                if here == 0 {
                    return Ok((framing, Piece::More));
                }
                let left = left - here as u64;
                self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                return Ok((framing, Piece::Data(here)));
            }
            if self.state == State::Done {
                return Ok((framing, Piece::End(std::mem::take(&mut self.trailers))));
            }
            let Some(byte) = bytes.get(framing) else { return Ok((framing, Piece::More)) };
            framing += 1;
            self.framing_byte(*byte)?;
        }
    }

    fn framing_byte(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.line.push(byte);
        match self.state {
            State::DataEnd => match self.line.as_slice() {
                b"\r" => {}
                b"\r\n" => self.next(State::Size),
                _ => return Err(BadChunk::End),
            },
            State::Size => {
                if self.line.len() > MAX_SIZE_LINE {
                    return Err(BadChunk::Size);
                }
                if byte == b'\n' {
                    let size = size(&self.line)?;
                    self.next(if size == 0 { State::Trailers } else { State::Data(size) });
                }
            }
            State::Trailers => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > MAX_TRAILERS {
                    return Err(BadHead::TooLarge.into());
                }
                if byte == b'\n' {
                    self.trailer()?;
                }
            }
            State::Data(_) | State::Done => {}
        }
        Ok(())
    }

    fn next(&mut self, state: State) {
        self.line.clear();
        self.state = state;
    }

    fn trailer(&mut self) -> Result<(), BadChunk> {
        let line = self.line.strip_suffix(b"\r\n").ok_or(BadHead::BareLf)?;
        if line.is_empty() {
            self.next(State::Done);
            return Ok(());
        }
        let field = field(line)?;
        if may_trail(&field.name) {
            self.trailers.0.push(field);
        }
        self.line.clear();
        Ok(())
    }
}

/// The number in `5;ext=1\r\n`.
fn size(line: &[u8]) -> Result<u64, BadChunk> {
    let line = line.strip_suffix(b"\r\n").ok_or(BadChunk::Size)?;
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let (digits, extension) = line.split_at(end);
    let plain = extension.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e));
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) || !plain {
        return Err(BadChunk::Size);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| BadChunk::Size)?;
    u64::from_str_radix(digits, 16).map_err(|_| BadChunk::Size)
}

/// What goes before so many bytes of data, which are not none.
pub fn before(length: usize) -> String {
    format!("{length:x}\r\n")
}

/// What goes behind each chunk's data.
pub const BEHIND: &[u8] = b"\r\n";

/// What ends a chunked body.
pub fn last(trailers: &Fields) -> Vec<u8> {
    let mut bytes = b"0\r\n".to_vec();
    for field in &trailers.0 {
        bytes.extend_from_slice(field.name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(&field.value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body whose bytes come `step` at a time: its data, its trailers, and what is left over.
    fn read(body: &[u8], step: usize) -> Result<Option<(Vec<u8>, Fields, usize)>, BadChunk> {
        let (mut reader, mut data, mut at) = (ChunkReader::default(), Vec::new(), 0);
        let mut upto = step.min(body.len());
        loop {
            let (framing, piece) = reader.read(&body[at..upto])?;
            at += framing;
            match piece {
                Piece::Data(length) => {
                    data.extend_from_slice(&body[at..at + length]);
                    at += length;
                }
                Piece::More if upto == body.len() => return Ok(None),
                Piece::More => upto = (upto + step).min(body.len()),
                Piece::End(trailers) => return Ok(Some((data, trailers, body.len() - at))),
            }
        }
    }

    #[test]
    fn a_body_is_the_same_however_its_bytes_arrive() {
        let body =
            b"5\r\nhello\r\n1;a=\"b\"\r\n \r\n0005\r\nworld\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\nGET";
        for step in 1..=body.len() {
            let (data, trailers, left) = read(body, step).unwrap().unwrap();
            assert_eq!(
                (data.as_slice(), left >= 3 || step < body.len()),
                (&b"hello world"[..], true),
                "{step}"
            );
            assert_eq!(last(&trailers), b"0\r\nX-Sum: 1\r\n\r\n");
        }
        assert_eq!(before(255) + "x", "ff\r\nx");
    }

    #[test]
    fn nothing_comes_behind_the_content_that_could_not_come_before_it() {
        let theirs = "X-Forwarded-For x_forwarded_user Forwarded X-Real-IP X-Original-URL True-Client-IP Cookie \
                      Set-Cookie Set_Cookie Host Authorization Proxy-Authorization Content-Length Content-Type \
                      content_encoding Transfer-Encoding Connection Keep-Alive TE Trailer Upgrade";
        for name in theirs.split_whitespace() {
            let body = format!("0\r\n{name}: evil\r\nETag: kept\r\n\r\n");
            let (_, trailers, _) = read(body.as_bytes(), body.len()).unwrap().unwrap();
            assert_eq!(last(&trailers), b"0\r\nETag: kept\r\n\r\n", "{name}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for body in [
            &b"\r\n"[..],
            b"x\r\n",
            b"5\n",
            b"5 \r\n",
            b" 5\r\n",
            b"0x5\r\n",
            b"+5\r\n",
            b"-1\r\n",
            b"5;\0\r\n",
            b"5;a\rb\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n",
            b"1\r\nhello",
            b"ffffffffffffffff\r\n",
            b"1000000000000000\r\n",
            b"5\r\r\n",
            b"0\r\nbad\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n folded: b\r\n",
            b"0\r\nA : b\r\n",
            b"0\r\n\n",
            b"5\r\nhello\r\n\r\n0\r\n\r\n",
        ] {
            assert!(read(body, body.len()).is_err(), "{:?}", String::from_utf8_lossy(body));
            assert!(read(body, 1).is_err(), "{:?}", String::from_utf8_lossy(body));
        }
        assert_eq!(read(b"5\r\nhel", 3), Ok(None));
        assert_eq!(read(&[&b"5;"[..], &[b'a'; MAX_SIZE_LINE]].concat(), 100), Err(BadChunk::Size));
        let long = format!("0\r\n{}", "a: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
        assert_eq!(read(long.as_bytes(), 100), Err(BadChunk::Trailer(BadHead::TooLarge)));
    }
}
