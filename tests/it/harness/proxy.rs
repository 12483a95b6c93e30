//! A TCP proxy that can refuse connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// A TCP proxy. While closed, it has cut its connections and refuses new ones.
pub(crate) struct Proxy {
    pub(crate) address: String,
    closed: Arc<AtomicBool>,
    cut: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (closed, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (is_closed, is_cut) = (Arc::clone(&closed), Arc::clone(&cut));
        let connections = TaskTracker::new();
        let task = TaskTracker::new().spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if is_closed.load(Ordering::SeqCst) {
                    continue;
                }
                let (server, cut) = (server.clone(), Arc::clone(&is_cut));
                connections.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(server).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self {
            address,
            closed,
            cut,
            _task: AbortOnDropHandle::new(task),
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
        self.closed.store(true, Ordering::SeqCst);
        self.cut.notify_waiters();
    }

    /// Accepts connections again.
    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }
}
