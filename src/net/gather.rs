//! Small writes of one turn of the event loop, gathered into one.
//!
//! An HTTP/2 connection carries many streams, and each that has something to say wakes its task, which would write at once: one
//! system call, one TLS record and one packet per answer. So the first flush after a write only steps back behind the tasks that are
//! ready already; what they add meanwhile goes out with it. A lone answer waits for nothing but that one step.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gathered at most: one TLS record.
const MOST: usize = 16 << 10;
/// Writes from here on are passed on without a copy.
const LARGE: usize = 4 << 10;

/// A byte stream whose small writes are gathered until a flush.
pub(super) struct Gathering<S> {
    stream: S,
    gathered: BytesMut,
    /// The flush under way has let the others go first.
    stepped_back: bool,
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, gathered: BytesMut::new(), stepped_back: false }
    }

    /// Writes what was gathered.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gathered.has_remaining() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.gathered))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(count);
        }
        // Idle connections keep no memory.
        self.gathered = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length >= LARGE || this.gathered.len() + length > MOST {
            ready!(this.poll_release(context))?;
        }
        if length >= LARGE {
            return Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        }
        for slice in slices {
            this.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.gathered.has_remaining() && !std::mem::replace(&mut this.stepped_back, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.poll_release(context))?;
        this.stepped_back = false;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_release(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts the writes that arrive.
    struct Counting(Vec<usize>);

    impl AsyncWrite for Counting {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_writes_go_out_together_and_large_ones_in_order() {
        let mut stream = Gathering::new(Counting(Vec::new()));
        for _ in 0..3 {
            stream.write_all(&[1; 100]).await.expect("room");
        }
        assert!(stream.stream.0.is_empty(), "nothing before the flush");
        stream.flush().await.expect("room");
        assert_eq!(stream.stream.0, [300]);
        stream.write_all(&[1; 10]).await.expect("room");
        stream.write_all(&[1; 5000]).await.expect("room");
        assert_eq!(stream.stream.0, [300, 10, 5000], "what came first goes first");
        for _ in 0..5 {
            stream.write_all(&[1; 4000]).await.expect("room");
        }
        assert_eq!(stream.stream.0, [300, 10, 5000, 16000], "a full buffer does not wait");
        stream.shutdown().await.expect("room");
        assert_eq!(stream.stream.0, [300, 10, 5000, 16000, 4000]);
    }

    #[tokio::test]
    async fn every_byte_arrives_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(7);
        let sent: Vec<u8> = (0..20_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut stream = Gathering::new(near);
            for (index, piece) in sent.chunks(997).enumerate() {
                stream.write_all(piece).await.expect("a reader");
                if index % 3 == 0 {
                    stream.flush().await.expect("a reader");
                }
            }
            stream.shutdown().await.expect("a reader");
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.expect("a writer");
        writer.await.expect("no panic");
        assert_eq!(received, expected);
    }
}
