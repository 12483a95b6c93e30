//! Database URLs, read as libpq reads them, except that a password doesn't travel in the clear to
//! another machine.
//!
//! [`DatabaseUrl::connect`] tries the servers in order, and each with TLS or without as `sslmode`
//! says. A parameter that isn't supported is an error that names it; no error shows a value, since
//! any part of a URL may hold a password.

mod parameters;
mod passwords;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode as Step, TargetSessionAttrs};

use crate::tls;
use parameters::Parameters;
use passwords::{Environment, Passwords};

/// How to connect to Postgres: the servers of a URL, and what to ask of each.
#[derive(Clone)]
pub struct DatabaseUrl {
    pub(crate) servers: Vec<Server>,
    pub(crate) tls: tls::Connector,
    /// How long one address of a server may take to accept a session.
    pub(crate) connect_timeout: Duration,
    /// Whether the servers are tried in random order.
    pub(crate) shuffle: bool,
}

/// One server of a URL.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) place: Place,
    pub(crate) port: u16,
    /// What to send to this server: user, password, database, session settings.
    pub(crate) config: Config,
    /// Whether to use TLS, try by try.
    pub(crate) steps: &'static [Step],
    /// TLS is demanded, because the password would otherwise travel in the clear.
    pub(crate) guards_password: bool,
}

/// Where a server is.
#[derive(Clone)]
pub(crate) enum Place {
    /// The directory of a Unix socket.
    Socket(PathBuf),
    /// A host by its name, which its certificate must have, and its address if the URL gives one.
    Host(String, Option<IpAddr>),
}

/// Why a database URL can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL can't be parsed. Its text may hold a password and isn't shown.
    #[error(
        "the database URL is not a Postgres URL (postgres://user:password@host:port/database); \
         in a password, encode / ? # @ : and % as %2F %3F %23 %40 %3A %25"
    )]
    Url,
    /// A parameter that libpq may know, and this program doesn't.
    #[error("the database URL's parameter {0} is not supported")]
    Unsupported(String),
    /// A parameter with a value that it can't have, or that isn't supported.
    #[error("the database URL's parameter {0} has a value that is not supported")]
    Value(&'static str),
    /// The lists of hosts, addresses and ports have different lengths.
    #[error("the database URL has {0} hosts and {1} values of {2}")]
    Lengths(usize, usize, &'static str),
    /// `sslrootcert=system` with a mode that would not check the server's name.
    #[error("the database URL has sslrootcert=system, which needs sslmode=verify-full")]
    SystemRoots,
    /// A password, a host that isn't this machine, and no TLS.
    #[error(
        "the database URL has sslmode=disable, and its password would travel in the clear: {ways}",
        ways = WAYS_OUT
    )]
    Cleartext,
    /// A file that a parameter names can't be read.
    #[error("the database URL's parameter {0}: read {path}", path = .1.display())]
    File(&'static str, PathBuf, #[source] io::Error),
    /// TLS can't be set up.
    #[error("set up TLS for Postgres")]
    Tls(#[source] tls::Error),
}

/// What to do where a password would travel in the clear.
pub(crate) const WAYS_OUT: &str = "give the server TLS and name its CA file \
    (sslmode=verify-full&sslrootcert=FILE), or accept it with VOICE_OTP_ALLOW_CLEARTEXT=true";

/// The parameter of ours that carries `VOICE_OTP_ALLOW_CLEARTEXT` to where the URL is read.
const ALLOW_CLEARTEXT: &str = "allow_cleartext";

/// Parameters that are accepted where their value asks for what happens anyway.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    (
        "client_encoding",
        &["utf8", "UTF8", "utf-8", "UTF-8", "auto"],
    ),
    ("gssencmode", &["disable", "prefer"]),
    ("sslcertmode", &["allow"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
];

/// How long to wait for a server that is the only one, and for each of several: the next must get
/// its turn while the caller still waits.
const TIMEOUT_OF_ONE: Duration = Duration::from_secs(5);
const TIMEOUT_OF_MANY: Duration = Duration::from_secs(2);

/// libpq's `sslmode`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Lets the password of this URL travel in the clear, also to another machine.
#[must_use]
pub fn allow_cleartext(url: &SecretString) -> SecretString {
    let text = url.expose_secret();
    let separator = if text.contains('?') { '&' } else { '?' };
    format!("{text}{separator}{ALLOW_CLEARTEXT}=true").into()
}

impl DatabaseUrl {
    /// Reads a URL, and the files that it names. Of the environment only `PGPASSWORD` and
    /// `PGPASSFILE` count, where the URL has no password.
    ///
    /// # Errors
    /// [`Error`] names the parameter that can't be used.
    pub fn parse(url: &SecretString) -> Result<Self, Error> {
        Self::parse_in(url, &Environment::of_process())
    }

    fn parse_in(url: &SecretString, environment: &Environment) -> Result<Self, Error> {
        let mut parameters = parameters::read(url.expose_secret())?;
        let mut take = |name: &str| parameters.remove(name);
        let places = read_places(take("host"), take("hostaddr"))?;
        let ports = read_ports(take("port"), places.len())?;
        let secrets = Secrets {
            user: take("user"),
            database: take("dbname"),
            password: take("password"),
            passfile: take("passfile"),
        };
        let allow_cleartext = take(ALLOW_CLEARTEXT).as_deref() == Some("true");
        let load_balance = take("load_balance_hosts");
        let ssl_mode = read_ssl_mode(&mut parameters)?;
        let (verification, ssl_mode) = read_verification(&mut parameters, ssl_mode)?;
        let client = read_client_certificate(&mut parameters)?;
        let several = places.len() > 1;
        let (config, connect_timeout) = read_session(&mut parameters, several)?;
        refuse_others(&parameters)?;

        let passwords = match &secrets.password {
            Some(password) => Passwords::Fixed(password.clone()),
            None => Passwords::find(secrets.passfile.as_deref(), environment)?,
        };
        let mut servers = Vec::new();
        for (place, port) in places.into_iter().zip(ports) {
            let config = secrets.configure(&config, &passwords, &place, port);
            let has_password = config.get_password().is_some();
            let guards_password = has_password && !allow_cleartext && !place.is_this_machine();
            let steps = place.steps(ssl_mode, guards_password, allow_cleartext)?;
            servers.push(Server {
                place,
                port,
                config,
                steps,
                guards_password,
            });
        }
        Ok(Self {
            servers,
            tls: tls::connector(verification, client).map_err(Error::Tls)?,
            connect_timeout,
            shuffle: match load_balance.as_deref() {
                None | Some("disable") => false,
                Some("random") => true,
                Some(_) => return Err(Error::Value("load_balance_hosts")),
            },
        })
    }
}

impl Place {
    fn is_this_machine(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Host(_, Some(address)) => is_loopback(*address),
            Self::Host(name, None) => name == "localhost" || name.parse().is_ok_and(is_loopback),
        }
    }

    /// With TLS or without, try by try, as `sslmode` says. libpq ignores it for Unix sockets.
    fn steps(
        &self,
        ssl_mode: Option<SslMode>,
        guards_password: bool,
        allow_cleartext: bool,
    ) -> Result<&'static [Step], Error> {
        if matches!(self, Self::Socket(_)) {
            return Ok(&[Step::Disable]);
        }
        let default = if self.is_this_machine() || allow_cleartext {
            SslMode::Prefer
        } else {
            SslMode::Require
        };
        Ok(match ssl_mode.unwrap_or(default) {
            SslMode::Disable if guards_password => return Err(Error::Cleartext),
            SslMode::Allow | SslMode::Prefer if guards_password => &[Step::Require],
            SslMode::Disable => &[Step::Disable],
            SslMode::Allow => &[Step::Disable, Step::Require],
            // The server may have no TLS, or TLS that this program can't use.
            SslMode::Prefer => &[Step::Prefer, Step::Disable],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Step::Require],
        })
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Who connects to which database.
struct Secrets {
    user: Option<String>,
    database: Option<String>,
    password: Option<String>,
    passfile: Option<String>,
}

impl Secrets {
    fn configure(&self, common: &Config, from: &Passwords, place: &Place, port: u16) -> Config {
        let mut config = common.clone();
        let user = self.user.as_deref();
        let database = self.database.as_deref().or(user);
        if let Some(user) = user {
            config.user(user);
        }
        if let Some(database) = database {
            config.dbname(database);
        }
        let host = match place {
            Place::Socket(directory) if directory == Path::new(SOCKET_DIRECTORY) => "localhost",
            Place::Socket(directory) => directory.to_str().unwrap_or_default(),
            Place::Host(name, _) => name,
        };
        let (user, database) = (user.unwrap_or_default(), database.unwrap_or_default());
        if let Some(password) = from.of(host, port, database, user) {
            config.password(password);
        }
        config
    }
}

/// Where Debian's libpq looks for a server that the URL doesn't name.
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";

fn read_places(hosts: Option<String>, addresses: Option<String>) -> Result<Vec<Place>, Error> {
    let addresses: Vec<IpAddr> = match addresses {
        None => Vec::new(),
        Some(list) => list
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| Error::Value("hostaddr"))?,
    };
    let Some(hosts) = hosts else {
        if addresses.is_empty() {
            return Ok(vec![default_place()]);
        }
        let by_address = |address: &IpAddr| Place::Host(address.to_string(), Some(*address));
        return Ok(addresses.iter().map(by_address).collect());
    };
    let hosts: Vec<&str> = hosts.split(',').collect();
    if !addresses.is_empty() && addresses.len() != hosts.len() {
        return Err(Error::Lengths(hosts.len(), addresses.len(), "hostaddr"));
    }
    let mut addresses = addresses.into_iter();
    let place = |host: &str| match addresses.next() {
        Some(address) => Place::Host(host.to_owned(), Some(address)),
        None if host.is_empty() => default_place(),
        None if host.starts_with('/') => Place::Socket(host.into()),
        None => Place::Host(host.to_owned(), None),
    };
    Ok(hosts.into_iter().map(place).collect())
}

fn default_place() -> Place {
    if Path::new(SOCKET_DIRECTORY).exists() {
        Place::Socket(SOCKET_DIRECTORY.into())
    } else {
        Place::Host("localhost".to_owned(), None)
    }
}

fn read_ports(list: Option<String>, servers: usize) -> Result<Vec<u16>, Error> {
    let read = |text: &str| match text {
        "" => Ok(5432),
        text => text.parse().map_err(|_| Error::Value("port")),
    };
    let ports: Vec<u16> = list
        .unwrap_or_default()
        .split(',')
        .map(read)
        .collect::<Result<_, _>>()?;
    match ports.as_slice() {
        [port] => Ok(vec![*port; servers]),
        ports if ports.len() == servers => Ok(ports.to_vec()),
        ports => Err(Error::Lengths(servers, ports.len(), "port")),
    }
}

fn read_ssl_mode(parameters: &mut Parameters) -> Result<Option<SslMode>, Error> {
    // JDBC's way to write it, which libpq understands too.
    let jdbc = match parameters.remove("ssl").as_deref() {
        None => None,
        Some("true") => Some(SslMode::Require),
        Some(_) => return Err(Error::Value("ssl")),
    };
    Ok(match parameters.remove("sslmode").as_deref() {
        None => jdbc,
        Some("disable") => Some(SslMode::Disable),
        Some("allow") => Some(SslMode::Allow),
        Some("prefer") => Some(SslMode::Prefer),
        Some("require") => Some(SslMode::Require),
        Some("verify-ca") => Some(SslMode::VerifyCa),
        Some("verify-full") => Some(SslMode::VerifyFull),
        Some(_) => return Err(Error::Value("sslmode")),
    })
}

/// What the server's certificate must prove. A CA file is used whatever the mode, as in libpq.
fn read_verification(
    parameters: &mut Parameters,
    mode: Option<SslMode>,
) -> Result<(tls::Verification, Option<SslMode>), Error> {
    let roots = match parameters.remove("sslrootcert") {
        Some(system) if system == "system" => {
            if mode.is_some_and(|mode| mode != SslMode::VerifyFull) {
                return Err(Error::SystemRoots);
            }
            let verification = tls::Verification::Name(tls::system_roots());
            return Ok((verification, Some(SslMode::VerifyFull)));
        }
        Some(file) => Some(
            tls::read_roots(Path::new(&file))
                .map_err(|error| Error::File("sslrootcert", file.into(), error))?,
        ),
        None if mode >= Some(SslMode::VerifyCa) => Some(tls::system_roots()),
        None => None,
    };
    let verification = match (roots, mode) {
        (Some(roots), Some(SslMode::VerifyFull)) => tls::Verification::Name(roots),
        (Some(roots), _) => tls::Verification::Authority(roots),
        (None, _) => tls::Verification::None,
    };
    Ok((verification, mode))
}

fn read_client_certificate(
    parameters: &mut Parameters,
) -> Result<Option<tls::ClientCertificate>, Error> {
    let (certificate, key) = (parameters.remove("sslcert"), parameters.remove("sslkey"));
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (None, Some(_)) => return Err(Error::Value("sslkey without sslcert")),
        (Some(_), None) => return Err(Error::Value("sslcert without sslkey")),
    };
    let chain = tls::read_certificates(Path::new(&certificate))
        .map_err(|error| Error::File("sslcert", certificate.into(), error))?;
    let key =
        tls::read_key(Path::new(&key)).map_err(|error| Error::File("sslkey", key.into(), error))?;
    Ok(Some(tls::ClientCertificate { chain, key }))
}

/// The settings of the session and of its socket, and how long connecting may take.
fn read_session(parameters: &mut Parameters, several: bool) -> Result<(Config, Duration), Error> {
    let mut config = Config::new();
    let fallback = parameters.remove("fallback_application_name");
    let name = parameters.remove("application_name").or(fallback);
    config.application_name(name.as_deref().unwrap_or("voice-otp"));
    if let Some(options) = parameters.remove("options") {
        config.options(options);
    }
    config.target_session_attrs(match parameters.remove("target_session_attrs").as_deref() {
        // Every statement needs a server that can write, so of several it is looked for.
        None if several => TargetSessionAttrs::ReadWrite,
        None | Some("any") => TargetSessionAttrs::Any,
        Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
        Some(_) => return Err(Error::Value("target_session_attrs")),
    });
    config.channel_binding(match parameters.remove("channel_binding").as_deref() {
        None | Some("prefer") => ChannelBinding::Prefer,
        Some("disable") => ChannelBinding::Disable,
        // Not `require`: tokio-postgres-rustls 0.13 reads the certificate wrongly and never binds.
        Some(_) => return Err(Error::Value("channel_binding")),
    });
    let mut number = |name: &'static str, default: u32| match parameters.remove(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| Error::Value(name)),
    };
    let seconds = |number: u32| Duration::from_secs(number.into());
    config
        .keepalives(number("keepalives", 1)? != 0)
        .keepalives_idle(seconds(number("keepalives_idle", 10)?))
        .keepalives_interval(seconds(number("keepalives_interval", 5)?))
        .keepalives_retries(number("keepalives_count", 3)?);
    // A peer that is silent for so long is gone: statements hold locks, and codes expire.
    let tcp_user_timeout = number("tcp_user_timeout", 10_000)?;
    if tcp_user_timeout > 0 {
        config.tcp_user_timeout(Duration::from_millis(tcp_user_timeout.into()));
    }
    let timeout = match number("connect_timeout", 0)? {
        0 if several => TIMEOUT_OF_MANY,
        0 => TIMEOUT_OF_ONE,
        given => seconds(given),
    };
    Ok((config, timeout))
}

fn refuse_others(parameters: &Parameters) -> Result<(), Error> {
    for (name, value) in parameters {
        let is_harmless = WITHOUT_EFFECT
            .iter()
            .any(|(known, harmless)| known == name && harmless.contains(&value.as_str()));
        if !is_harmless {
            return Err(Error::Unsupported(name.clone()));
        }
    }
    Ok(())
}

impl FromStr for DatabaseUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        Self::parse(&SecretString::from(url))
    }
}
