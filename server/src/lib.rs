//! The HTTP server of workers and consoles.
//!
//! Strangers reach both, so a connection that sends nothing, half a request, or doesn't read its
//! response is closed in time, costs a few kilobytes until then, and never keeps others out:
//!
//! - **Timeouts.** A request's head must arrive within [`Limits::head_timeout`], which also limits
//!   how long a connection is idle; its body within [`Limits::body_timeout`]. A response that the
//!   client doesn't acknowledge for [`Limits::write_timeout`] ends the connection.
//! - **Limits of connections**, of all addresses together and of each: see [`Limits`].
//!
//! `axum::serve` has none of these (<https://github.com/tokio-rs/axum/issues/2741>), and copies the
//! whole router for each connection.

pub mod client_address;
mod connections;
mod deadline;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use self::client_address::TrustedProxies;
use self::connections::{Admitted, Connections};

/// What a server allows its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a client may take to send a request's head, counted from the connection's first
    /// byte or from the previous response: also how long a connection may be idle. The first byte
    /// must be there after half of it.
    pub head_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_timeout: Duration,
    /// How long a client may leave what was sent to it unacknowledged. Linux only.
    pub write_timeout: Duration,
    /// Connections at once. Beyond it a new connection replaces the one that has waited longest for
    /// a request; if all have requests in progress, the new one is closed. At most half of the
    /// files that the process may open.
    pub max_connections: usize,
    /// Connections at once from one address; of IPv6, from one /64 network. Beyond it a new
    /// connection replaces one of the same address in the same way. `None`: no limit, for clients
    /// that share a few addresses.
    pub max_connections_per_address: Option<usize>,
    /// Proxies, whose connections count for no address.
    pub trusted_proxies: TrustedProxies,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(25),
            body_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(30),
            max_connections: 4_096,
            max_connections_per_address: None,
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

/// The longest head of a request.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4_096;
/// The pause after an error of the listener, such as too many open files.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Listens on an address. Callbacks come in bursts, and a client tries again only after a second if
/// there is no room for its connection: so there is room for as many as are served, if the system
/// allows it (`net.core.somaxconn`).
///
/// # Errors
/// If the address can't be resolved, or no socket can be bound to it.
pub async fn listen(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let mut failure = None;
    for address in tokio::net::lookup_host(address).await? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("the name has no address")))
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves HTTP/1.1 on a listener until `stop` is cancelled, then until the requests in progress are
/// answered. Handlers find the client's address in [`ConnectInfo`].
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    // Once, here: on a router that others share, it copies every route.
    let router = router.with_state(());
    let connections = Connections::new(&limits);
    let limits = Arc::new(limits);
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Closed at once if there are too many with requests in progress.
                let Some(admitted) = connections.admit(peer.ip()) else {
                    continue;
                };
                let connection = Connection {
                    peer,
                    router: router.clone(),
                    limits: Arc::clone(&limits),
                    admitted: Arc::new(admitted),
                };
                tasks.spawn(connection.serve(stream, stop.clone()));
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to accept a connection; retrying"
                );
                tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Whether the client of the connection has caused the error, not the listener.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// One client's connection.
struct Connection {
    peer: SocketAddr,
    router: Router,
    limits: Arc<Limits>,
    admitted: Arc<Admitted>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, stop: CancellationToken) {
        self.configure(&stream);
        // A connection that has sent nothing yet has no buffers.
        let mut first_byte = [0];
        let peeked =
            tokio::time::timeout(self.limits.head_timeout / 2, stream.peek(&mut first_byte));
        let has_sent = tokio::select! {
            peeked = peeked => matches!(peeked, Ok(Ok(1))),
            () = self.admitted.closed() => false,
            () = stop.cancelled() => false,
        };
        if !has_sent {
            return;
        }
        Box::pin(self.serve_requests(stream, stop)).await;
    }

    async fn serve_requests(self, stream: TcpStream, stop: CancellationToken) {
        let admitted = Arc::clone(&self.admitted);
        let head_timeout = self.limits.head_timeout;
        let service = hyper::service::service_fn(move |request| self.respond(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            // The client is gone, was too slow, or has sent what isn't HTTP.
            ended = connection.as_mut() => drop(ended),
            () = admitted.closed() => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                drop(connection.await);
            }
        }
    }

    /// Sets what can be set on the socket; a failure only means that the client is gone.
    fn configure(&self, stream: &TcpStream) {
        drop(stream.set_nodelay(true));
        #[cfg(target_os = "linux")]
        drop(socket2::SockRef::from(stream).set_tcp_user_timeout(Some(self.limits.write_timeout)));
    }

    fn respond(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, std::convert::Infallible>> + use<> {
        let in_progress = self.admitted.begin_request();
        let deadline = Instant::now() + self.limits.body_timeout;
        let missed = deadline::Missed::default();
        let mut request = request.map(|body| deadline::apply(body, deadline, &missed));
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let mut router = self.router.clone();
        async move {
            let response = router.call(request).await?;
            if missed.is_set() {
                return Ok((StatusCode::REQUEST_TIMEOUT, [(CONNECTION, "close")]).into_response());
            }
            // The request is in progress until its response is sent. This keeps the body's length.
            Ok(response.map(|body| {
                Body::new(body.map_err(move |error| {
                    let _ = &in_progress;
                    error
                }))
            }))
        }
    }
}
