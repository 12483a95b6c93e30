//! A door to a server that can be shut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// A TCP proxy. Shut, it cuts what is open and refuses what comes.
pub(crate) struct Proxy {
    pub(crate) address: String,
    shut: Arc<AtomicBool>,
    cut: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (shut, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (is_shut, is_cut) = (Arc::clone(&shut), Arc::clone(&cut));
        let connections = TaskTracker::new();
        let task = TaskTracker::new().spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if is_shut.load(Ordering::SeqCst) {
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
            shut,
            cut,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// A server's URL, by way of this door.
    pub(crate) fn in_place_of(&self, url: &str) -> String {
        let (before, after) = url.split_once('@').unwrap();
        let rest = after.split_once('/').map_or("", |(_, rest)| rest);
        format!("{before}@{}/{rest}", self.address)
    }

    /// Cuts every connection and refuses new ones.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        self.cut.notify_waiters();
    }

    /// Lets connections through again.
    pub(crate) fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
    }
}
