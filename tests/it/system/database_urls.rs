//! Database URLs: TLS, certificates, sockets, several hosts, and passwords that stay here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use voice_otp_store::DatabaseUrl;

use crate::harness::Program;
use crate::harness::postgres::{PASSWORD, Postgres};

/// Leads to this machine, and isn't known to: passwords are guarded.
const ELSEWHERE: &str = "0.0.0.0";

/// Connects, and says whether the session is encrypted.
async fn is_encrypted(url: &str) -> Result<bool, String> {
    let in_words = |error: &dyn std::error::Error| {
        let source = error.source().map(ToString::to_string);
        format!("{error} {}", source.unwrap_or_default())
    };
    let url = DatabaseUrl::parse(&SecretString::from(url)).map_err(|error| in_words(&error))?;
    let (client, connection) = url.connect().await.map_err(|error| in_words(&error))?;
    let _io = AbortOnDropHandle::new(TaskTracker::new().spawn(connection));
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let row = client.query_one(sql, &[]).await.unwrap();
    Ok(row.get(0))
}

fn openssl(folder: &Path, args: &str) {
    let done = Command::new("openssl")
        .current_dir(folder)
        .args(args.split(' '))
        .output()
        .expect("openssl is installed, as Debian's postgresql needs it");
    assert!(done.status.success(), "openssl {args}: {done:?}");
}

/// Certificates: a self-signed one for localhost, as Debian's; an authority, and what it signed for
/// localhost and 127.0.0.1, and for the user `certified`.
fn make_certificates(folder: &Path) {
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let signed = "-days 2 -CA ca.crt -CAkey ca.key -CAcreateserial";
    std::fs::write(
        folder.join("san"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    )
    .unwrap();
    for args in [
        format!(
            "req -x509 {new_key} -keyout self.key -out self.crt -days 2 -subj /CN=localhost \
             -addext subjectAltName=DNS:localhost"
        ),
        format!("req -x509 {new_key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"),
        format!("req {new_key} -keyout server.key -out server.csr -subj /CN=localhost"),
        format!("x509 -req -in server.csr -out server.crt {signed} -extfile san"),
        format!("req {new_key} -keyout user.key -out user.csr -subj /CN=certified"),
        // Without an extension it would be of version 1, which rustls doesn't know.
        format!("x509 -req -in user.csr -out user.crt {signed} -extfile san"),
    ] {
        openssl(folder, &args);
    }
}

/// Lets a server present a certificate from now on.
async fn present(server: &Postgres, folder: &Path, name: &str) {
    for kind in ["crt", "key"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.{kind}"))).unwrap();
        server.write(&format!("data/server.{kind}"), &text);
    }
    server.execute("alter system set ssl = on").await;
    reload(server).await;
}

async fn reload(server: &Postgres) {
    server.execute("select pg_reload_conf()").await;
    // The postmaster reads its files when it gets to it.
    tokio::time::sleep(Duration::from_millis(500)).await;
}

struct Certified {
    server: Postgres,
    folder: tempfile::TempDir,
}

impl Certified {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path());
        let server = Postgres::start(&["fsync=off"]).await;
        present(&server, folder.path(), "self").await;
        Self { server, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Checks each line: host, query, and whether the session is encrypted, or what is refused.
    async fn check(&self, table: &[(&str, String, Result<bool, &str>)]) {
        for (host, query, expected) in table {
            let url = self.server.url_at(host, "postgres", query);
            match (is_encrypted(&url).await, expected) {
                (Ok(encrypted), Ok(expected)) => assert_eq!(encrypted, *expected, "{url}"),
                (Err(error), Err(expected)) => {
                    assert!(error.contains(expected), "{url}: {error}");
                    assert!(!error.contains(PASSWORD), "{error}");
                }
                (found, _) => panic!("{host} ?{query}: {found:?}, expected {expected:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_self_signed_server_is_reached_as_libpq_reaches_it() {
    let certified = Certified::start().await;
    let own = certified.file("self.crt").display().to_string();
    let other = certified.file("ca.crt").display().to_string();
    let socket = certified.server.home.path().display().to_string();
    certified
        .check(&[
            ("localhost", String::new(), Ok(true)),
            ("127.0.0.1", "sslmode=prefer".to_owned(), Ok(true)),
            ("127.0.0.1", "sslmode=allow".to_owned(), Ok(false)),
            ("127.0.0.1", "sslmode=disable".to_owned(), Ok(false)),
            ("127.0.0.1", "sslmode=require".to_owned(), Ok(true)),
            (ELSEWHERE, String::new(), Ok(true)),
            (ELSEWHERE, "sslmode=allow".to_owned(), Ok(true)),
            (
                "127.0.0.1",
                format!("sslmode=verify-ca&sslrootcert={own}"),
                Ok(true),
            ),
            (
                "localhost",
                format!("sslmode=verify-full&sslrootcert={own}"),
                Ok(true),
            ),
            (
                "127.0.0.1",
                format!("sslmode=verify-full&sslrootcert={own}"),
                Err("not valid for name"),
            ),
            (
                "localhost",
                format!("sslmode=require&sslrootcert={other}"),
                Err("invalid peer certificate"),
            ),
            // The fallback of prefer: the certificate isn't the one that was asked for.
            ("localhost", format!("sslrootcert={other}"), Ok(false)),
            (
                "localhost",
                "sslmode=verify-full".to_owned(),
                Err("invalid peer certificate"),
            ),
            (
                "nowhere",
                format!("host={socket}&sslmode=verify-full"),
                Ok(false),
            ),
        ])
        .await;
}

#[tokio::test]
async fn an_authority_of_ones_own_signs_servers_and_clients() {
    let certified = Certified::start().await;
    present(&certified.server, certified.folder.path(), "server").await;
    let authority = certified.file("ca.crt").display().to_string();
    let full = format!("sslmode=verify-full&sslrootcert={authority}");
    certified
        .check(&[
            ("localhost", full.clone(), Ok(true)),
            ("127.0.0.1", full.clone(), Ok(true)),
            (ELSEWHERE, full.clone(), Err("not valid for name")),
            (
                ELSEWHERE,
                format!("sslmode=verify-ca&sslrootcert={authority}"),
                Ok(true),
            ),
            (ELSEWHERE, format!("sslrootcert={authority}"), Ok(true)),
        ])
        .await;

    let server = &certified.server;
    let text = std::fs::read_to_string(&authority).unwrap();
    server.write("data/ca.crt", &text);
    server.execute("create role certified login").await;
    server
        .execute("alter system set ssl_ca_file = 'ca.crt'")
        .await;
    server.write(
        "data/pg_hba.conf",
        "local all all scram-sha-256\nhostssl all certified all cert\n\
         host all all all scram-sha-256\n",
    );
    reload(server).await;
    let url = format!(
        "postgres://certified@localhost:{}/postgres?{full}&sslcert={}&sslkey={}",
        server.port,
        certified.file("user.crt").display(),
        certified.file("user.key").display()
    );
    assert_eq!(is_encrypted(&url).await, Ok(true));
}

#[tokio::test]
async fn a_server_without_tls_gets_no_password_from_another_machine() {
    let server = Postgres::start(&["fsync=off"]).await;
    let folder = tempfile::tempdir().unwrap();
    let query = |host: &str, query: &str| server.url_at(host, "postgres", query);
    assert_eq!(is_encrypted(&query("127.0.0.1", "")).await, Ok(false));
    for (mode, said) in [
        ("", "VOICE_OTP_ALLOW_CLEARTEXT"),
        ("sslmode=prefer", "verify-full"),
        ("sslmode=disable", "VOICE_OTP_ALLOW_CLEARTEXT"),
    ] {
        let refused = is_encrypted(&query(ELSEWHERE, mode)).await.unwrap_err();
        assert!(
            refused.contains(said) && !refused.contains(PASSWORD),
            "{refused}"
        );
    }
    let url = query(ELSEWHERE, "").replace('?', "");
    let variables = |allow: &str| {
        [
            ("VOICE_OTP_DATABASE_URL", url.clone()),
            ("VOICE_OTP_ALLOW_CLEARTEXT", allow.to_owned()),
        ]
    };
    let refused = Program::run(&variables("false"), &["migrate"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("sslmode=verify-full") && said.contains("ALLOW_CLEARTEXT"),
        "{said}"
    );
    let allowed = Program::run(&variables("true"), &["migrate"]).await;
    assert!(allowed.status.success(), "{allowed:?}");

    let passfile = folder.path().join("pgpass");
    std::fs::write(
        &passfile,
        format!("*:{}:*:voice_otp:{PASSWORD}", server.port),
    )
    .unwrap();
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&passfile, own).unwrap();
    let socket = server.home.path().display();
    let url = format!(
        "postgres://voice_otp@/postgres?host={socket}&port={}&passfile={}",
        server.port,
        passfile.display()
    );
    assert_eq!(is_encrypted(&url).await, Ok(false));
}

/// Says that it has no TLS, then asks for the password in the clear. Counts the bytes it gets.
async fn interceptor() -> (u16, AbortOnDropHandle<usize>) {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = TaskTracker::new().spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        client.read_exact(&mut request).await.unwrap();
        client.write_all(b"N").await.unwrap();
        client.write_all(b"R\0\0\0\x08\0\0\0\x03").await.unwrap();
        let mut rest = Vec::new();
        // It may end with a reset, since what was sent is not read.
        drop(client.read_to_end(&mut rest).await);
        rest.len()
    });
    (port, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn whoever_says_that_there_is_no_tls_gets_nothing_more() {
    let (port, task) = interceptor().await;
    let url = format!("postgres://u:{PASSWORD}@{ELSEWHERE}:{port}/db");
    let refused = is_encrypted(&url).await.unwrap_err();
    assert!(refused.contains("in the clear"), "{refused}");
    assert_eq!(task.await.unwrap(), 0, "bytes after the refusal of TLS");
}

#[tokio::test]
async fn a_silent_host_does_not_use_up_the_time_of_the_next() {
    let server = Postgres::start(&["fsync=off"]).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!(
        "postgres://voice_otp:{PASSWORD}@127.0.0.1:{port},127.0.0.1:{}/postgres",
        server.port
    );
    let started = Instant::now();
    assert_eq!(is_encrypted(&url).await, Ok(false));
    let took = started.elapsed();
    assert!((1..5).contains(&took.as_secs()), "{took:?}");
    // A pool waits for as long as the hosts may take.
    let pool = voice_otp_store::connect(&SecretString::from(url), 1).unwrap();
    drop(pool.get().await.unwrap());
    let silent_only = format!("postgres://u:{PASSWORD}@127.0.0.1:{port}/db?connect_timeout=1");
    let error = is_encrypted(&silent_only).await.unwrap_err();
    assert!(error.contains("no answer within 1s"), "{error}");
}
