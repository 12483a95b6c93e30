//! A TCP balancer, as clients of a cluster have one: a connection goes to the first backend that
//! answers.
//!
//! A frozen program accepts connections and never answers. So the backend is chosen by its answer
//! to the client's first bytes; both AMQP's and HTTP's clients speak first. An open connection
//! stays where it is, frozen or not: noticing that is the client's job.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long a backend may take to answer the client's first bytes.
const PATIENCE: Duration = Duration::from_secs(4);

pub(crate) struct Balancer {
    pub(crate) address: String,
    _task: AbortOnDropHandle<()>,
}

/// The backend that is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The first of the list.
    Fixed,
    /// Another one for each connection.
    Rotating,
}

impl Balancer {
    pub(crate) async fn before(backends: Vec<String>, first: First) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (tasks, turn) = (TaskTracker::new(), AtomicUsize::new(0));
        let backends = Arc::new(backends);
        let task = TaskTracker::new().spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let skipped = match first {
                    First::Fixed => 0,
                    First::Rotating => turn.fetch_add(1, Ordering::Relaxed),
                };
                tasks.spawn(serve(client, Arc::clone(&backends), skipped));
            }
        });
        Ok(Self {
            address,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

async fn serve(mut client: TcpStream, backends: Arc<Vec<String>>, skipped: usize) {
    let mut sent = Vec::new();
    for n in 0..backends.len() {
        let Some(backend) = backends.get((n + skipped) % backends.len()) else {
            return;
        };
        let opening = open(&mut client, backend, &mut sent);
        if let Ok(Ok(mut server)) = tokio::time::timeout(PATIENCE, opening).await {
            // Either side may end it at any time.
            drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            return;
        }
    }
}

/// Connects to a backend and sends it what the client has sent so far, until it answers. What the
/// client sends meanwhile is kept for the next backend.
async fn open(
    client: &mut TcpStream,
    backend: &str,
    sent: &mut Vec<u8>,
) -> std::io::Result<TcpStream> {
    let mut server = TcpStream::connect(backend).await?;
    server.write_all(sent).await?;
    let mut answer = vec![0; 16 * 1024];
    loop {
        let before = sent.len();
        tokio::select! {
            read = client.read_buf(sent) => {
                if read? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                server.write_all(sent.get(before..).unwrap_or_default()).await?;
            }
            read = server.read(&mut answer) => {
                let read = read?;
                if read == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                client.write_all(answer.get(..read).unwrap_or_default()).await?;
                return Ok(server);
            }
        }
    }
}
