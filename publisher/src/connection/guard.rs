//! Stands between the socket and lapin, and hands lapin only what is safe of a message.
//!
//! Whoever may publish a message chooses its headers and its length, and RabbitMQ passes on what
//! lapin refuses, which ends the connection for every message, or what costs it its stack or the
//! memory of the machine. lapin decodes a message before any code of its user's runs. So the guard
//! reads the frames before lapin does:
//!
//! - A message's [headers](table) get a limit of depth, size and number, and what lapin can't parse
//!   is removed. The header `x-voice-otp-removed` says why.
//! - A body longer than the contract allows is cut as it arrives. The header
//!   `x-voice-otp-body-bytes` has its length.
//! - With a [budget], the socket isn't read while the messages that were delivered and not
//!   acknowledged exceed a number of bytes.
//!
//! Everything else passes unchanged.

mod budget;
mod cursor;
mod filter;
mod frame;
mod properties;
mod table;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::tcp::AsyncTcpStream;

use self::budget::Budget;
use self::filter::{Filter, Stop};

/// The header of a message whose body was cut: the bytes that it had.
pub(super) const BODY_BYTES: &str = properties::BODY_BYTES;
/// The header of a message of which properties or headers were removed: why they were.
pub(super) const REMOVED: &str = properties::REMOVED;

/// The socket of a connection, or TLS on it.
type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// tokio's reactor, with streams that are guarded. lapin's type of stream is its reactor's.
#[derive(Clone, Debug)]
pub(super) struct GuardedReactor(Tokio);

/// A stream whose reader gets what is safe.
pub(super) struct Guarded {
    socket: Socket,
    /// For timers: lapin reads on a thread outside of the runtime.
    tokio: tokio::runtime::Handle,
    filter: Filter,
    /// What was read from the socket and not yet filtered: the bytes from `start` to `end`.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// What the reader gets before the next frame of the broker's: the rest of a heartbeat.
    heartbeat: &'static [u8],
    /// Set while the budget is exhausted.
    pause: Option<Pause>,
}

/// A time in which the socket isn't read.
struct Pause {
    next_heartbeat: Pin<Box<tokio::time::Sleep>>,
    /// Who waits for the end.
    reader: Waker,
}

/// The initial capacity for input: a frame of RabbitMQ's default size, and the next one's header.
const INPUT_BYTES: usize = 132 * 1024;
/// How often lapin gets a heartbeat while the socket isn't read. Without one it would give the
/// connection up after twice the heartbeat interval, which is at least a second.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A heartbeat: a frame without payload, on channel 0.
const HEARTBEAT: &[u8] = &[frame::HEARTBEAT, 0, 0, 0, 0, 0, 0, frame::END];

/// The current tokio runtime, for connections on [`Guarded`] streams.
pub(super) fn runtime() -> Runtime<RuntimeParts<Tokio, GuardedReactor>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), GuardedReactor(tokio)))
}

impl Guarded {
    /// Guards a stream. `max_unacknowledged` is the limit of unacknowledged messages in bytes.
    pub(super) fn new(socket: Socket, max_unacknowledged: Option<u64>) -> Self {
        Self {
            socket,
            tokio: tokio::runtime::Handle::current(),
            filter: Filter::new(max_unacknowledged.map(Budget::new)),
            input: vec![0; INPUT_BYTES],
            start: 0,
            end: 0,
            heartbeat: &[],
            pause: None,
        }
    }

    /// Reads from the socket, until the input that isn't filtered has `wanted` bytes or more, or
    /// the socket has no more. `Ok(false)` is the end of the stream.
    fn fill(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<bool>> {
        if self.start == self.end || self.start + wanted > self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if wanted > self.input.len() {
            self.input.resize(wanted, 0);
        }
        while self.end - self.start < wanted {
            let free = self.input.get_mut(self.end..).unwrap_or_default();
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, free))?;
            if read == 0 {
                return Poll::Ready(Ok(false));
            }
            self.end += read;
        }
        Poll::Ready(Ok(true))
    }

    /// Waits for an acknowledgement, or until the reader must get a heartbeat.
    fn pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let pause = self.pause.get_or_insert_with(|| {
            let _entered = self.tokio.enter();
            tracing::debug!("not reading from the broker: too many bytes are unacknowledged");
            Pause {
                next_heartbeat: Box::pin(tokio::time::sleep(HEARTBEAT_INTERVAL)),
                reader: cx.waker().clone(),
            }
        });
        pause.reader.clone_from(cx.waker());
        ready!(pause.next_heartbeat.as_mut().poll(cx));
        let next = tokio::time::Instant::now() + HEARTBEAT_INTERVAL;
        pause.next_heartbeat.as_mut().reset(next);
        Poll::Ready(())
    }

    /// These bytes were written to the socket.
    fn written(&mut self, bytes: &[u8]) {
        let Some(budget) = &mut self.filter.budget else {
            return;
        };
        budget.sent(bytes);
        if !budget.is_exhausted()
            && let Some(pause) = self.pause.take()
        {
            pause.reader.wake();
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        output: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut written = 0;
        loop {
            let room = output.get_mut(written..).unwrap_or_default();
            let copied = this.heartbeat.len().min(room.len());
            let (heartbeat, left) = this.heartbeat.split_at(copied);
            let (filled, room) = room.split_at_mut(copied);
            filled.copy_from_slice(heartbeat);
            this.heartbeat = left;
            written += copied;
            let input = this.input.get(this.start..this.end).unwrap_or_default();
            let progress = this.filter.run(input, room).map_err(io::Error::other)?;
            this.start += progress.read;
            written += progress.written;
            if written > 0 || output.is_empty() {
                return Poll::Ready(Ok(written));
            }
            match progress.stop {
                Stop::OutputFull => return Poll::Ready(Ok(written)),
                Stop::NeedsInput(bytes) => {
                    if !ready!(this.fill(cx, bytes))? {
                        return Poll::Ready(Ok(0));
                    }
                }
                Stop::Exhausted => {
                    ready!(this.pause(cx));
                    this.heartbeat = HEARTBEAT;
                }
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.socket).poll_write(cx, bytes))?;
        this.written(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let part = slice.get(..left.min(slice.len())).unwrap_or_default();
            this.written(part);
            left -= part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_close(cx)
    }
}

impl Reactor for GuardedReactor {
    type TcpStream = Guarded;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, dur: Duration) -> Self::Sleep {
        self.0.sleep(dur)
    }

    fn interval(&self, dur: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(dur)
    }

    fn tcp_connect_addr(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(addr);
        async move {
            let socket = AsyncTcpStream::Plain(connecting.await?);
            Ok(Guarded::new(socket, None))
        }
    }
}

#[cfg(test)]
mod tests;
