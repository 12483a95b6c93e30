//! What a broker's URL says: where the broker is, how it is trusted, and how its user is known.

use std::net::IpAddr;

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

use super::Error;

/// A broker's URL, checked.
pub(super) struct Target {
    pub(super) uri: AMQPUri,
    /// `None`: the connection isn't encrypted.
    tls: Option<Tls>,
}

#[derive(Clone)]
pub(super) struct Tls {
    /// The name that the broker's certificate must have.
    pub(super) server_name: String,
    /// The authorities that are trusted instead of the machine's.
    authorities: Option<Vec<CertificateDer<'static>>>,
    /// The certificate that identifies this client, and the file of its key.
    identity: Option<(Vec<CertificateDer<'static>>, String)>,
}

/// The heartbeat interval, in seconds, that a URL can change. A peer that is silent for two of them
/// is given up, after 12 to 18 seconds. RabbitMQ's documentation recommends 5 to 20 seconds.
const HEARTBEAT_S: u16 = 6;
/// The longest heartbeat interval: twice that long a dead connection may go unnoticed.
const MAX_HEARTBEAT_S: u16 = 60;

impl Target {
    pub(super) fn parse(text: &SecretString) -> Result<Self, Error> {
        let text = text.expose_secret();
        let url = Url::parse(text).map_err(|_| Error::Url)?;
        let mut files = Files::default();
        let mut cleartext_allowed = false;
        for (name, value) in url.query_pairs() {
            let wrong = |wanted| Err(Error::Parameter(name.to_string(), wanted));
            match &*name {
                "heartbeat" => match value.parse() {
                    Ok(1..=MAX_HEARTBEAT_S) => {}
                    _ => return wrong("a number of seconds from 1 to 60"),
                },
                "connection_timeout" if value.parse::<u64>().is_err() => {
                    return wrong("a number of milliseconds");
                }
                "channel_max" | "frame_max" if value.parse::<u32>().is_err() => {
                    return wrong("a number");
                }
                "auth_mechanism" if value.parse::<SASLMechanism>().is_err() => {
                    return wrong("plain, amqplain, external or anonymous");
                }
                "connection_timeout" | "channel_max" | "frame_max" | "auth_mechanism" => {}
                "cacertfile" => files.authorities = Some(value.into_owned()),
                "certfile" => files.certificate = Some(value.into_owned()),
                "keyfile" => files.key = Some(value.into_owned()),
                "server_name_indication" => files.server_name = Some(value.into_owned()),
                "verify" if value == "verify_peer" => {}
                "verify" => {
                    return wrong("verify_peer; without verification any server would be trusted");
                }
                ALLOW_CLEARTEXT => match value.parse() {
                    Ok(allowed) => cleartext_allowed = allowed,
                    Err(_) => return wrong("true or false"),
                },
                _ => return Err(Error::UnsupportedParameter(name.into_owned())),
            }
        }
        let mut uri: AMQPUri = text.parse().map_err(|_| Error::Url)?;
        // lapin takes an IPv6 address for no host, and connects to localhost.
        if let Some(Host::Ipv6(address)) = url.host() {
            uri.authority.host = address.to_string();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        let tls = match uri.scheme {
            AMQPScheme::AMQPS => Some(files.read(&uri.authority.host)?),
            AMQPScheme::AMQP if files != Files::default() => return Err(Error::FilesWithoutTls),
            AMQPScheme::AMQP if cleartext_allowed || is_this_machine(&uri.authority.host) => None,
            AMQPScheme::AMQP => return Err(Error::Cleartext(uri.authority.host)),
        };
        Ok(Self { uri, tls })
    }

    /// The user that authenticates with a password.
    pub(super) fn user_name(self) -> Option<String> {
        let by_password = self
            .uri
            .query
            .auth_mechanism
            .is_none_or(|mechanism| mechanism != SASLMechanism::External);
        let name = self.uri.authority.userinfo.username;
        (by_password && !name.is_empty() && name.len() <= 255).then_some(name)
    }

    pub(super) fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }
}

/// The parameter that allows a password in the clear.
pub(super) const ALLOW_CLEARTEXT: &str = "allow_cleartext";

/// Whether a host names this machine without asking a name server.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The parameters that only concern TLS.
#[derive(Default, PartialEq, Eq)]
struct Files {
    authorities: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    server_name: Option<String>,
}

impl Files {
    /// Reads the files, so that a missing one is reported at start.
    fn read(self, host: &str) -> Result<Tls, Error> {
        let certificates = |name, path: &str| -> Result<Vec<CertificateDer<'static>>, Error> {
            let unreadable = |error| Error::File(name, path.to_owned(), error);
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(unreadable)?;
            if certificates.is_empty() {
                return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
            }
            Ok(certificates)
        };
        let authorities = self
            .authorities
            .map(|path| certificates("cacertfile", &path))
            .transpose()?;
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                private_key(&key)?;
                Some((certificates("certfile", &certificate)?, key))
            }
            (Some(_), None) => {
                return Err(Error::Parameter("keyfile".into(), "the key of certfile"));
            }
            (None, Some(_)) => {
                return Err(Error::Parameter(
                    "certfile".into(),
                    "the certificate of keyfile",
                ));
            }
        };
        Ok(Tls {
            server_name: self.server_name.unwrap_or_else(|| host.to_owned()),
            authorities,
            identity,
        })
    }
}

fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| Error::File("keyfile", path.to_owned(), error))
}

impl Tls {
    /// Reads the machine's authorities, unless the URL names others. Blocks.
    pub(super) fn connector(self) -> Result<RustlsConnector, Error> {
        let config = match self.authorities {
            Some(authorities) => {
                RustlsConnectorConfig::default().with_parsable_certificates(authorities)
            }
            None => RustlsConnectorConfig::new_with_native_certs().map_err(Error::Tls)?,
        };
        let connector = match self.identity {
            Some((certificate, key)) => {
                config.connector_with_single_cert(certificate, private_key(&key)?)
            }
            None => config.connector_with_no_client_auth(),
        };
        connector.map_err(Error::Tls)
    }
}
