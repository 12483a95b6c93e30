//! The open connections, and which of them may stay.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Limits;
use crate::client_address::{TrustedProxies, network_of};

/// The open connections of a server.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    max: usize,
    max_per_address: usize,
    trusted_proxies: TrustedProxies,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    by_id: HashMap<u64, Entry>,
    by_network: HashMap<IpAddr, usize>,
}

struct Entry {
    /// Whose connection it is; `None` for a proxy.
    network: Option<IpAddr>,
    /// Since when it has waited for a request; `None` while one is in progress.
    waiting_since: Option<Instant>,
    close: CancellationToken,
}

/// An open connection. Dropping it makes room for another.
pub(super) struct Admitted {
    id: u64,
    close: CancellationToken,
    connections: Connections,
}

/// A request in progress on a connection, until it is dropped.
pub(super) struct RequestInProgress(Arc<Admitted>);

impl Connections {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Shared {
            max: limits.max_connections.min(max_files() / 2).max(1),
            max_per_address: limits.max_connections_per_address.unwrap_or(usize::MAX),
            trusted_proxies: limits.trusted_proxies.clone(),
            open: Mutex::default(),
        }))
    }

    /// Admits a connection from an address, or says that there are too many.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Admitted> {
        let is_proxy = self.0.trusted_proxies.contains(address);
        let network = (!is_proxy).then(|| network_of(address));
        let mut open = self.open();
        if let Some(network) = network
            && open.by_network.get(&network).copied().unwrap_or(0) >= self.0.max_per_address
        {
            open.close_longest_waiting(|entry| entry.network == Some(network))?;
        }
        if open.by_id.len() >= self.0.max {
            open.close_longest_waiting(|_| true)?;
        }
        let id = open.next_id;
        open.next_id += 1;
        let close = CancellationToken::new();
        let entry = Entry {
            network,
            waiting_since: Some(Instant::now()),
            close: close.clone(),
        };
        open.by_id.insert(id, entry);
        if let Some(network) = network {
            *open.by_network.entry(network).or_default() += 1;
        }
        Some(Admitted {
            id,
            close,
            connections: self.clone(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Closes the connection that has waited longest for a request, of those that may be closed.
    /// `None` if every one of them has a request in progress.
    fn close_longest_waiting(&mut self, may_close: impl Fn(&Entry) -> bool) -> Option<()> {
        let waiting = self
            .by_id
            .iter()
            .filter(|(_, entry)| may_close(entry))
            .filter_map(|(id, entry)| Some((entry.waiting_since?, *id)));
        let (_, id) = waiting.min()?;
        self.remove(id);
        Some(())
    }

    /// Forgets a connection and closes it, if it is still there.
    fn remove(&mut self, id: u64) {
        let Some(entry) = self.by_id.remove(&id) else {
            return;
        };
        entry.close.cancel();
        let Some(network) = entry.network else {
            return;
        };
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

impl Admitted {
    /// Returns when the connection must be closed, to make room.
    pub(super) async fn closed(&self) {
        self.close.cancelled().await;
    }

    /// Marks the connection as having a request in progress.
    pub(super) fn begin_request(self: &Arc<Self>) -> RequestInProgress {
        self.set_waiting_since(None);
        RequestInProgress(Arc::clone(self))
    }

    fn set_waiting_since(&self, since: Option<Instant>) {
        if let Some(entry) = self.connections.open().by_id.get_mut(&self.id) {
            entry.waiting_since = since;
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.open().remove(self.id);
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        self.0.set_waiting_since(Some(Instant::now()));
    }
}

/// How many files the process may open.
fn max_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .current
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, per_address: Option<usize>, proxies: &str) -> Connections {
        Connections::new(&Limits {
            max_connections: max,
            max_connections_per_address: per_address,
            trusted_proxies: TrustedProxies::parse(proxies).unwrap(),
            ..Limits::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_replaces_the_one_that_has_waited_longest_for_a_request() {
        let connections = connections(3, None, "");
        let mut admitted = Vec::new();
        for _ in 0..3 {
            admitted.push(Arc::new(connections.admit(address("192.0.2.1")).unwrap()));
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        let busy = admitted[0].begin_request();
        let fourth = connections.admit(address("192.0.2.2")).unwrap();
        let closed: Vec<bool> = admitted
            .iter()
            .map(|one| one.close.is_cancelled())
            .collect();
        assert_eq!(closed, [false, true, false]);
        // A request that is finished leaves its connection waiting, for no time yet.
        drop(busy);
        let _fifth = connections.admit(address("192.0.2.2")).unwrap();
        assert!(admitted[2].close.is_cancelled() && !fourth.close.is_cancelled());
    }

    #[tokio::test]
    async fn a_new_connection_is_refused_when_every_other_has_a_request_in_progress() {
        let connections = connections(1, None, "");
        let first = Arc::new(connections.admit(address("192.0.2.1")).unwrap());
        let _busy = first.begin_request();
        assert!(connections.admit(address("192.0.2.2")).is_none());
    }

    #[tokio::test]
    async fn one_address_or_ipv6_network_has_its_limit_and_a_trusted_proxy_has_none() {
        let connections = connections(100, Some(2), "198.51.100.0/24");
        let mut busy = Vec::new();
        for (text, is_admitted) in [
            ("192.0.2.1", true),
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::1", true),
            ("198.51.100.9", true),
            ("198.51.100.9", true),
            ("198.51.100.9", true),
        ] {
            let admitted = connections.admit(address(text));
            assert_eq!(admitted.is_some(), is_admitted, "{text}");
            busy.extend(admitted.map(|admitted| Arc::new(admitted).begin_request()));
        }
        drop(busy);
        assert!(connections.open().by_network.is_empty());
    }

    #[tokio::test]
    async fn a_new_connection_of_an_address_at_its_limit_replaces_one_of_its_own() {
        let connections = connections(100, Some(1), "");
        let strangers = connections.admit(address("192.0.2.1")).unwrap();
        let first = connections.admit(address("192.0.2.2")).unwrap();
        let second = connections.admit(address("192.0.2.2")).unwrap();
        let closed = [strangers, first, second].map(|one| one.close.is_cancelled());
        assert_eq!(closed, [false, true, false]);
    }
}
