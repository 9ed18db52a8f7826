//! The last words of a connection that ends early: the one who refuses must stay until they are
//! heard, and the one refused must listen although nobody hears it any more.
//!
//! TLS 1.3 refuses a client's certificate when the client's handshake is over and its first words
//! are under way. An end that closes with such words unread sends a reset, and a client that meets
//! the reset while it writes knows of a broken pipe and not why it was refused.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// How long the other end is heard out.
const LINGER: Duration = Duration::from_secs(2);

/// Ends `stream`, to whose other end all was said, without a reset: says that nothing follows, then
/// takes what still comes, for two seconds at most.
pub async fn hear_out(stream: impl AsyncRead + AsyncWrite + Unpin) {
    // Whoever is gone, or never ends, has had its chance to hear us.
    let _ = tokio::time::timeout(LINGER, to_its_end(stream)).await;
}

async fn to_its_end(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut rest = [0; 8192];
    stream.shutdown().await?;
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// A stream that hides from its writer that the other end is gone, so that the reader comes to what
/// that end said last. HTTP/2 gives up at the first failed write, whatever is there to be read.
///
/// The reader always comes to an end: what the kernel holds, then that the connection is over.
#[derive(Debug)]
pub(crate) struct Listening<S> {
    stream: S,
    /// What the other end said first, as far as nobody has read it yet.
    heard: Vec<u8>,
    /// Nobody hears us any more.
    unheard: bool,
}

impl<S> Listening<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            heard: Vec::new(),
            unheard: false,
        }
    }

    /// Waits for the first words of the other end, which come before it is asked anything: only who
    /// let us in says them.
    ///
    /// # Errors
    /// With the reason when it did not.
    pub(crate) async fn welcomed(stream: S) -> io::Result<Self>
    where
        S: AsyncRead + Unpin,
    {
        let mut listening = Self::new(stream);
        let mut words = [0; 1024];
        let count = listening.stream.read(&mut words).await?;
        if count == 0 {
            let closed = "it closed the connection without a word";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, closed));
        }
        listening.heard.extend_from_slice(&words[..count]);
        Ok(listening)
    }

    /// `written`, or `instead` once the other end hears nothing.
    fn said<T>(
        &mut self,
        context: &Context<'_>,
        written: Poll<io::Result<T>>,
        instead: T,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if is_gone(&error) => {
                self.unheard = true;
                // The reader may have looked before the end came, and is to look once more.
                context.waker().wake_by_ref();
                Poll::Ready(Ok(instead))
            }
            other => other,
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.heard.len().min(buffer.remaining());
        buffer.put_slice(&self.heard[..count]);
        self.heard.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.unheard {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.said(context, written, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unheard {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.said(context, flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unheard {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::net::{TcpListener, TcpStream};
    use tonic::transport::Endpoint;

    use super::*;
    use crate::{ControlRequest, dial};

    /// An end that takes the greeting, then nothing, and has said why: the reset overtakes the
    /// reader.
    #[derive(Debug, Default)]
    struct Refusing {
        greeted: bool,
        refused: bool,
    }

    impl AsyncRead for Refusing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.refused {
                let alert = rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, alert)))
            } else {
                Poll::Pending
            }
        }
    }

    impl AsyncWrite for Refusing {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.greeted {
                self.refused = true;
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.greeted = true;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_caller_whose_words_meet_a_closed_connection_reads_why() {
        let connector = tower::service_fn(|_| async {
            Ok::<_, io::Error>(TokioIo::new(Listening::new(Refusing::default())))
        });
        let channel = Endpoint::from_static("http://nobody").connect_with_connector_lazy(connector);
        let answer = dial::control(channel)
            .call(ControlRequest::GetCluster)
            .await;
        let refused = dial::from_status(&answer.expect_err("nobody answers"));
        assert!(refused.message.contains("AccessDenied"), "{refused:?}");
    }

    #[tokio::test]
    async fn who_still_speaks_is_heard_out_and_meets_no_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            stream.write_all(b"no").await.expect("said");
            // Closed here and now it would reset: there is something to read.
            stream.readable().await.expect("words");
            to_its_end(stream).await.expect("its end");
        });
        let mut caller = TcpStream::connect(addr).await.expect("a connection");
        caller.write_all(&[1; 100_000]).await.expect("taken");
        let mut answer = Vec::new();
        let read = soon(caller.read_to_end(&mut answer)).await;
        read.expect("no reset");
        assert_eq!(answer, b"no");
        caller.write_all(&[1; 100]).await.expect("still heard");
        drop(caller);
        soon(server).await.expect("an end");
    }

    #[tokio::test]
    async fn who_never_ends_is_left() {
        let (ours, theirs) = tokio::io::duplex(64);
        soon(hear_out(ours)).await;
        drop(theirs);
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        let done = tokio::time::timeout(Duration::from_secs(60), work).await;
        done.expect("waited 60 s for an end")
    }

    #[tokio::test]
    async fn who_is_not_let_in_is_told_before_it_asks() {
        let refusing = Refusing {
            greeted: true,
            refused: true,
        };
        let refused = Listening::welcomed(refusing).await.expect_err("an alert");
        assert!(refused.to_string().contains("AccessDenied"), "{refused}");
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"settings").await.expect("room");
        drop(theirs);
        let mut listening = Listening::welcomed(ours).await.expect("words");
        let mut words = String::new();
        let first = listening.read_u8().await.expect("a word");
        listening
            .read_to_string(&mut words)
            .await
            .expect("the rest");
        assert_eq!((first, words.as_str()), (b's', "ettings"));
        let (ours, theirs) = tokio::io::duplex(64);
        drop(theirs);
        let gone = Listening::welcomed(ours).await.expect_err("an end");
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Nothing else is hidden from the writer.
    #[tokio::test]
    async fn a_write_that_fails_for_another_reason_fails() {
        struct Full(u32);
        impl AsyncWrite for Full {
            fn poll_write(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.0 += 1;
                Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()))
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let mut stream = Listening::new(Full(0));
        for _ in 0..2 {
            let error = stream.write_all(b"words").await.expect_err("no room");
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        }
        assert_eq!(stream.stream.0, 2);
    }
}
