//! Whose request it is: the address of the client, also behind a proxy.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The proxies whose `X-Forwarded-For` counts. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

/// A part of the list is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an IP address or network, such as 10.0.0.0/8 or 2001:db8::1")]
pub struct Invalid(String);

const FORWARDED_FOR: &str = "x-forwarded-for";

impl TrustedProxies {
    /// Parses addresses and networks, separated by commas. An empty text has none.
    ///
    /// # Errors
    /// [`Invalid`] names the part.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let network = part.parse::<IpNet>();
                network
                    .or_else(|_| part.parse::<IpAddr>().map(IpNet::from))
                    .map_err(|_| Invalid(part.to_owned()))
            })
            .collect::<Result<Vec<IpNet>, Invalid>>()
            .map(|networks| Self(networks.into()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address of the client that sent a request: the last one in `X-Forwarded-For` that isn't
    /// a trusted proxy's, if the request came from such a proxy; else the peer's. What an untrusted
    /// party wrote before it is ignored.
    pub fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.contains(peer) {
            return peer.to_canonical();
        }
        let mut client = peer;
        let hops = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
            .map(str::trim)
            .collect::<Vec<_>>();
        for hop in hops.into_iter().rev() {
            // Some proxies add the port.
            let with_port = || hop.parse::<SocketAddr>().map(|address| address.ip());
            let Ok(address) = hop.parse::<IpAddr>().or_else(|_| with_port()) else {
                break;
            };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client.to_canonical()
    }
}

/// The network that counts as one client: the address, or for IPv6 its /64, which is one
/// customer's.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_trusted_proxy_has_seen_counts_as_the_clients_address() {
        let proxies = TrustedProxies::parse("10.0.0.0/8, 2001:db8::1").unwrap();
        let client = |peer: &str, forwarded: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            proxies
                .client_of(peer.parse().unwrap(), &headers)
                .to_string()
        };
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            // The client itself wrote the first.
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            (
                "10.0.0.1",
                &["203.0.113.9", "198.51.100.7, 10.0.0.2"],
                "198.51.100.7",
            ),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("2001:db8::1", &["nonsense"], "2001:db8::1"),
            ("10.0.0.1", &["203.0.113.9, nonsense, 10.0.0.2"], "10.0.0.2"),
        ] {
            assert_eq!(client(peer, forwarded), expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn a_list_of_proxies_that_is_invalid_is_refused() {
        let invalid = TrustedProxies::parse("10.0.0.1, proxy.example").unwrap_err();
        assert_eq!(invalid, Invalid("proxy.example".to_owned()));
        assert!(TrustedProxies::parse(" ").unwrap().is_empty());
    }
}
