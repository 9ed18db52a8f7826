//! The first line of a client's first request, spelled as a URL must be.
//!
//! Docker takes `GET /nodes?filters={"role":["manager"]}` as people type it for curl; the HTTP library refuses quotes
//! there. Clients that keep a connection for more than one request spell URLs rightly, so only the first line is
//! looked at.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest first line looked at, in bytes; longer ones go on as they are.
const LONGEST: usize = 64 << 10;

/// A client's stream; what is written to it goes on as it is.
pub(super) struct Lenient<S> {
    stream: S,
    part: Part,
    /// What was read and not handed on yet.
    held: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The first line is not whole yet.
    Line,
    /// Handing on what is held from here.
    Held(usize),
    Rest,
}

impl<S> Lenient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            part: Part::Line,
            held: Vec::new(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.part == Part::Line {
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            this.held.extend_from_slice(read.filled());
            let end = this.held.iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let rest = this.held.split_off(end);
                this.held = escaped(&this.held);
                this.held.extend_from_slice(&rest);
            }
            if end.is_some() || read.filled().is_empty() || this.held.len() > LONGEST {
                this.part = Part::Held(0);
            }
        }
        if let Part::Held(at) = this.part {
            let held = this.held.get(at..).unwrap_or_default();
            let size = held.len().min(buffer.remaining());
            buffer.put_slice(&held[..size]);
            this.part = Part::Held(at + size);
            if at + size == this.held.len() {
                this.held = Vec::new();
                this.part = Part::Rest;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
