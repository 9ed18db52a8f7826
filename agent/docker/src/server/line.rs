//! The first line of each request, spelled as a URL must be.
//!
//! Docker takes `GET /nodes?filters={"role":["manager"]}` as people type it for curl; the HTTP library refuses quotes
//! there. So what a client sends is followed as far as to know where a request begins: heads line by line, bodies by
//! their length or their chunks. Where that is in doubt the rest of the connection goes on as it came.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Method;
use tokio::io::{AsyncRead, ReadBuf};

use crate::route::{is_raw, split_version};

/// Longest line looked at, in bytes; nothing is after a longer one.
const LONGEST: usize = 64 << 10;

/// Bytes of a body read at once.
const PIECE: usize = 64 << 10;

/// What a client sends.
pub(super) struct Lenient<S> {
    stream: S,
    part: Part,
    /// The head that is being read.
    head: Head,
    /// A line that is not whole yet.
    line: Vec<u8>,
    /// What was looked at and not handed on yet.
    ready: Vec<u8>,
    /// How much of it was handed on.
    handed: usize,
}

/// What comes next from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A request's first line.
    First,
    /// The rest of its head.
    Head,
    /// So many bytes of its body.
    Body(u64),
    /// The size of a chunk of its body.
    Size,
    /// So many bytes of a chunk, its end of line included.
    Chunk(u64),
    /// What may stand after the last chunk.
    Trailer,
    /// Nothing that we know.
    Rest,
}

/// What of a head says where its body ends.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    length: u64,
    is_chunked: bool,
    /// No request follows, or we cannot tell where.
    is_last: bool,
}

impl<S> Lenient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            part: Part::First,
            head: Head::default(),
            line: Vec::new(),
            ready: Vec::new(),
            handed: 0,
        }
    }

    /// Looks at `bytes` and makes them ready.
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let whole = match self.part {
                Part::Body(left) | Part::Chunk(left) => {
                    bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))
                }
                Part::Rest => bytes.len(),
                _ => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let size = end.map_or(bytes.len(), |end| end + 1);
                    self.line.extend_from_slice(&bytes[..size]);
                    bytes = &bytes[size..];
                    if end.is_some() {
                        self.end_line();
                    } else if self.line.len() > LONGEST {
                        self.give_up();
                    }
                    continue;
                }
            };
            self.ready.extend_from_slice(&bytes[..whole]);
            bytes = &bytes[whole..];
            self.passed(whole);
        }
    }

    /// Counts `size` bytes of a body.
    fn passed(&mut self, size: usize) {
        let size = size as u64;
        self.part = match self.part {
            Part::Body(left) if left == size => Part::First,
            Part::Body(left) => Part::Body(left.saturating_sub(size)),
            Part::Chunk(left) if left == size => Part::Size,
            Part::Chunk(left) => Part::Chunk(left.saturating_sub(size)),
            part => part,
        };
    }

    /// Hands on what was held, and all that comes, as it is.
    fn give_up(&mut self) {
        self.ready.append(&mut self.line);
        self.part = Part::Rest;
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        self.part = match self.part {
            Part::First if text.is_empty() => Part::First,
            Part::First => {
                self.head = Head {
                    is_last: takes_over(text),
                    ..Head::default()
                };
                self.ready.extend_from_slice(&escaped(&line));
                self.part = Part::Head;
                return;
            }
            Part::Head if text.is_empty() => self.head.body(),
            Part::Head => {
                self.head.field(text);
                Part::Head
            }
            Part::Size => {
                let digits = text.split(';').next().unwrap_or("").trim();
                match u64::from_str_radix(digits, 16) {
                    Ok(0) => Part::Trailer,
                    Ok(size) => Part::Chunk(size.saturating_add(2)),
                    Err(_) => Part::Rest,
                }
            }
            Part::Trailer if text.is_empty() => Part::First,
            part => part,
        };
        self.ready.extend_from_slice(&line);
    }
}

impl Head {
    /// Notes a line of the head.
    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "content-length" => match value.parse() {
                Ok(length) => self.length = length,
                Err(_) => self.is_last = true,
            },
            "transfer-encoding" => {
                self.is_chunked = value.eq_ignore_ascii_case("chunked");
                self.is_last |= !self.is_chunked;
            }
            "upgrade" => self.is_last = true,
            _ => {}
        }
    }

    /// What comes after the head.
    fn body(self) -> Part {
        match self {
            Self { is_last: true, .. } => Part::Rest,
            Self {
                is_chunked: true, ..
            } => Part::Size,
            Self { length: 0, .. } => Part::First,
            Self { length, .. } => Part::Body(length),
        }
    }
}

/// Whether a request of this first line makes its connection a raw one.
fn takes_over(line: &str) -> bool {
    let mut words = line.split(' ');
    let method = words.next().and_then(|word| word.parse::<Method>().ok());
    let target = words.next().unwrap_or("");
    let path = target.split('?').next().unwrap_or("");
    method.is_none_or(|method| is_raw(&method, split_version(path).1))
}

/// `line` without the characters that no URL has, which Go reads as if they were escaped.
fn escaped(line: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(line.len());
    for byte in line {
        match byte {
            b'"' | b'<' | b'>' | b'`' | 0x7f.. => {
                escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            _ => escaped.push(*byte),
        }
    }
    escaped
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.handed < this.ready.len() {
                let held = &this.ready[this.handed..];
                let size = held.len().min(buffer.remaining());
                buffer.put_slice(&held[..size]);
                this.handed += size;
                return Poll::Ready(Ok(()));
            }
            this.ready = Vec::new();
            this.handed = 0;
            match this.part {
                Part::Rest => return Pin::new(&mut this.stream).poll_read(context, buffer),
                Part::Body(left) | Part::Chunk(left) => {
                    // Bodies are large and go on as they are: not through our own hands.
                    let left = usize::try_from(left).unwrap_or(PIECE);
                    let most = left.min(PIECE).min(buffer.remaining());
                    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
                    ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
                    let size = part.filled().len();
                    buffer.advance(size);
                    this.passed(size);
                    return Poll::Ready(Ok(()));
                }
                _ => {}
            }
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                this.give_up();
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.take(read.filled());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// What is handed on of `sent`, which comes in pieces of `size` bytes.
    async fn through(sent: &[u8], size: usize) -> String {
        let pieces: Vec<_> = sent.chunks(size).collect();
        let mut stream = tokio_test_stream(&pieces);
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    fn tokio_test_stream<'a>(pieces: &[&'a [u8]]) -> Lenient<Pieces<'a>> {
        Lenient::new(Pieces(pieces.iter().copied().collect()))
    }

    /// One piece a read.
    struct Pieces<'a>(std::collections::VecDeque<&'a [u8]>);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(piece) = self.0.pop_front() {
                let size = piece.len().min(buffer.remaining());
                buffer.put_slice(&piece[..size]);
                if size < piece.len() {
                    self.0.push_front(&piece[size..]);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn each_request_of_a_connection_may_have_quotes() {
        let quoted = "GET /nodes?filters={\"a\":1} HTTP/1.1\r\nHost: \"d\"\r\n\r\n";
        let mended = "GET /nodes?filters={%22a%22:1} HTTP/1.1\r\nHost: \"d\"\r\n\r\n";
        let plain = "POST /a HTTP/1.1\r\nContent-Length: 12\r\n\r\n{\"a\":\n\"b\"}\r\n";
        let chunked = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
            3;x=y\r\n\"\n\"\r\nb\r\n<<\r\n0\r\n\r\n>\n\r\n0\r\nX: \"1\"\r\n\r\n";
        let attach = "POST /v1.41/containers/a/attach?stdin=1 HTTP/1.1\r\n\r\n";
        let sent = [
            quoted, plain, quoted, chunked, "\r\n", quoted, attach, quoted,
        ]
        .concat();
        let due = [
            mended, plain, mended, chunked, "\r\n", mended, attach, quoted,
        ]
        .concat();
        for size in [1, 2, 3, 7, 64, 4096, sent.len()] {
            assert_eq!(
                through(sent.as_bytes(), size).await,
                due,
                "pieces of {size}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_in_doubt_goes_on_as_it_came() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\nGET \"", "x".repeat(2 * LONGEST));
        for sent in [
            "GET /a HTTP/1.1\r\nUpgrade: tcp\r\n\r\nGET \" \r\n",
            "POST /a HTTP/1.1\r\nContent-Length: x\r\n\r\nGET \" \r\n",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nGET \" \r\n",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\nGET \" \r\n",
            "\u{16}\u{3}\u{1} \"\r\nGET \"",
            "GET \"without an end",
            &long,
        ] {
            for size in [1, 5000] {
                let due = sent.replacen("\u{16}\u{3}\u{1} \"", "\u{16}\u{3}\u{1} %22", 1);
                assert_eq!(through(sent.as_bytes(), size).await, due, "{sent:.60}");
            }
        }
    }
}
