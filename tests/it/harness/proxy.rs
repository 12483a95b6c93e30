//! A TCP proxy that refuses connections, freezes them, and slows them down.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// A TCP proxy. While closed, it has cut its connections and refuses new ones.
pub(crate) struct Proxy {
    pub(crate) address: String,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// The direction of a proxied stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// What the client sends.
    ToServer,
    /// What the server sends.
    ToClient,
    Both,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    connections: Mutex<Vec<Connection>>,
    to_server: watch::Sender<Pace>,
    to_client: watch::Sender<Pace>,
}

/// An open connection, as the methods of [`Proxy`] reach it.
struct Connection {
    cut: CancellationToken,
    to_server_frozen: CancellationToken,
    to_client_frozen: CancellationToken,
}

/// How bytes of one direction are forwarded.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// How long after its arrival a byte is forwarded.
    delay: Duration,
    /// At most this many bytes at a time, and the pause after them.
    drip: Option<(usize, Duration)>,
}

/// The most bytes that are read at once.
const CHUNK: usize = 16 * 1024;
/// The most chunks of one direction that wait for their delay.
const MAX_DELAYED_CHUNKS: usize = 64;

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let tasks = TaskTracker::new();
        let accepting = accept(listener, server, Arc::clone(&shared), tasks.clone());
        Self {
            address,
            shared,
            _task: AbortOnDropHandle::new(tasks.spawn(accepting)),
        }
    }

    /// A server's URL, with the proxy's address in place of the server's.
    pub(crate) fn in_place_of(&self, url: &str) -> String {
        let (before, after) = url.split_once('@').unwrap();
        let rest = after.split_once('/').map_or("", |(_, rest)| rest);
        format!("{before}@{}/{rest}", self.address)
    }

    /// Cuts every connection and refuses new ones.
    pub(crate) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            connection.cut.cancel();
        }
    }

    /// Accepts connections again.
    pub(crate) fn open(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
    }

    /// Blackholes the connections that are open now, for good: they stay open, and nothing is read
    /// or forwarded in this direction, not even that a side has closed. New connections work.
    /// Returns how many connections that are.
    pub(crate) fn freeze(&self, direction: Direction) -> usize {
        let connections = self.shared.connections.lock().unwrap();
        for connection in connections.iter() {
            if direction != Direction::ToClient {
                connection.to_server_frozen.cancel();
            }
            if direction != Direction::ToServer {
                connection.to_client_frozen.cancel();
            }
        }
        connections.len()
    }

    /// Forwards every byte this long after its arrival, on open and on new connections.
    pub(crate) fn delay(&self, direction: Direction, delay: Duration) {
        self.change(direction, |pace| pace.delay = delay);
    }

    /// Forwards at most so many bytes at a time, with a pause after them, on open and on new
    /// connections.
    pub(crate) fn drip(&self, direction: Direction, bytes: usize, pause: Duration) {
        self.change(direction, |pace| pace.drip = Some((bytes, pause)));
    }

    fn change(&self, direction: Direction, change: impl Fn(&mut Pace)) {
        if direction != Direction::ToClient {
            self.shared.to_server.send_modify(&change);
        }
        if direction != Direction::ToServer {
            self.shared.to_client.send_modify(&change);
        }
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>, tasks: TaskTracker) {
    while let Ok((client, _)) = listener.accept().await {
        let (server, shared) = (server.clone(), Arc::clone(&shared));
        tasks.spawn(async move {
            let cut = CancellationToken::new();
            let (to_server_frozen, to_client_frozen) =
                (CancellationToken::new(), CancellationToken::new());
            {
                let mut connections = shared.connections.lock().unwrap();
                // Under the lock, so that a connection is either refused or cut by `close`.
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                connections.retain(|connection| !connection.cut.is_cancelled());
                connections.push(Connection {
                    cut: cut.clone(),
                    to_server_frozen: to_server_frozen.clone(),
                    to_client_frozen: to_client_frozen.clone(),
                });
            }
            // Also marks the connection as ended.
            let _cut_at_end = cut.clone().drop_guard();
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let (server_pace, client_pace) =
                (shared.to_server.subscribe(), shared.to_client.subscribe());
            let forwarding = async {
                tokio::try_join!(
                    forward(from_client, to_server, server_pace, to_server_frozen),
                    forward(from_server, to_client, client_pace, to_client_frozen),
                )
            };
            tokio::select! {
                // Both sides have closed, or one is gone.
                _ = forwarding => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

/// Forwards one direction until its end, and then closes it at the other side. Once `frozen`, never
/// returns.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    pace: watch::Receiver<Pace>,
    frozen: CancellationToken,
) -> io::Result<()> {
    let (sender, mut delayed) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_DELAYED_CHUNKS);
    let reading = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer).await?;
            if sender
                .send((Instant::now(), buffer[..read].to_vec()))
                .await
                .is_err()
                || read == 0
            {
                return Ok(());
            }
        }
    };
    let writing = async {
        while let Some((arrived, chunk)) = delayed.recv().await {
            let delay = pace.borrow().delay;
            if !delay.is_zero() {
                tokio::time::sleep_until(arrived + delay).await;
            }
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let drip = pace.borrow().drip;
                let (now, later) =
                    rest.split_at(drip.map_or(rest.len(), |(n, _)| n.min(rest.len())));
                to.write_all(now).await?;
                rest = later;
                if let Some((_, pause)) = drip {
                    tokio::time::sleep(pause).await;
                }
            }
            if chunk.is_empty() {
                break;
            }
        }
        to.shutdown().await
    };
    let forwarding = async { tokio::try_join!(reading, writing).map(drop) };
    tokio::select! {
        biased;
        () = frozen.cancelled() => std::future::pending().await,
        result = forwarding => result,
    }
}

mod tests {
    use super::*;

    /// A server that sends back what it receives, and a connection to it through a proxy.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap().to_string()).await;
        TaskTracker::new().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                TaskTracker::new().spawn(async move {
                    let (mut from, mut to) = stream.split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                });
            }
        });
        let mut client = TcpStream::connect(&proxy.address).await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap(), Some(*b"ping"));
        (proxy, client)
    }

    /// What comes back for four bytes; `None` if nothing does.
    async fn answer(client: &mut TcpStream) -> io::Result<Option<[u8; 4]>> {
        client.write_all(b"ping").await?;
        let mut answer = [0; 4];
        let reading = client.read_exact(&mut answer);
        match tokio::time::timeout(Duration::from_millis(300), reading).await {
            Ok(read) => read.map(|_| Some(answer)),
            Err(_) => Ok(None),
        }
    }

    #[tokio::test]
    async fn a_frozen_connection_stays_open_and_silent_while_new_ones_work() {
        for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
            let (proxy, mut client) = echo().await;
            assert_eq!(proxy.freeze(direction), 1);
            assert_eq!(answer(&mut client).await.unwrap(), None, "{direction:?}");
            let mut other = TcpStream::connect(&proxy.address).await.unwrap();
            assert_eq!(answer(&mut other).await.unwrap(), Some(*b"ping"));
            assert_eq!(answer(&mut client).await.unwrap(), None, "{direction:?}");
        }
    }

    #[tokio::test]
    async fn one_direction_is_frozen_and_the_other_still_carries_what_is_sent_and_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap().to_string()).await;
        let mut client = TcpStream::connect(&proxy.address).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(b"hello").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
        proxy.freeze(Direction::ToServer);
        server.write_all(b"news").await.unwrap();
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"news");
    }

    #[tokio::test]
    async fn a_frozen_connection_takes_no_more_than_the_buffers_hold() {
        let (proxy, mut client) = echo().await;
        proxy.freeze(Direction::ToServer);
        let bytes = vec![0; 64 << 20];
        let writing = client.write_all(&bytes);
        let waited = tokio::time::timeout(Duration::from_secs(1), writing).await;
        assert!(waited.is_err(), "64 MiB were written");
    }

    #[tokio::test]
    async fn bytes_are_delayed_and_dripped() {
        let (proxy, mut client) = echo().await;
        proxy.delay(Direction::ToServer, Duration::from_millis(50));
        proxy.delay(Direction::ToClient, Duration::from_millis(50));
        let started = Instant::now();
        assert_eq!(answer(&mut client).await.unwrap(), Some(*b"ping"));
        assert!(started.elapsed() >= Duration::from_millis(100));

        proxy.delay(Direction::Both, Duration::ZERO);
        proxy.drip(Direction::ToClient, 1, Duration::from_millis(20));
        let started = Instant::now();
        assert_eq!(answer(&mut client).await.unwrap(), Some(*b"ping"));
        assert!(started.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn a_closed_proxy_has_cut_its_connections_and_refuses_new_ones() {
        let (proxy, mut client) = echo().await;
        proxy.close();
        assert!(client.read_exact(&mut [0; 1]).await.is_err());
        let mut refused = TcpStream::connect(&proxy.address).await.unwrap();
        assert!(refused.read_exact(&mut [0; 1]).await.is_err());
        proxy.open();
        let mut client = TcpStream::connect(&proxy.address).await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap(), Some(*b"ping"));
    }
}
