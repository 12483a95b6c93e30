//! A PgBouncer in front of the tests' Postgres.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::postgres::{give_to_server, server_command};

/// A pooler, which is stopped on drop.
pub(crate) struct PgBouncer {
    port: u16,
    process: Child,
    _home: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts a pooler in a mode, with this many server connections, to the server of a URL like
    /// `postgres://user:password@host:port/database`. It accepts any client as that user.
    pub(crate) async fn start(mode: &str, size: usize, server: &str) -> Self {
        let home = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let rest = server.strip_prefix("postgres://").unwrap();
        let (user, rest) = rest.split_once('@').unwrap();
        let (user, password) = user.split_once(':').unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        let (host, port) = address.split_once(':').unwrap();
        let own_port = super::program::free_port();
        let settings = home.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n\
             pooled = host={host} port={port} dbname={database} user={user} password={password}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {own_port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n"
        );
        std::fs::write(&settings, text).unwrap();
        give_to_server(&settings);
        let process = server_command("pgbouncer")
            .arg("-q")
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pooler = Self {
            port: own_port,
            process,
            _home: home,
        };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", own_port))
                .await
                .is_ok()
            {
                return pooler;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PgBouncer does not listen");
    }

    /// A URL through the pooler.
    pub(crate) fn url(&self) -> String {
        format!("postgres://any:any@127.0.0.1:{}/pooled", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
