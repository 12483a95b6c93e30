//! A Postgres of a test's own, with the settings, certificates and standbys that the test wants.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use secrecy::SecretString;

/// The password of its superuser `voice_otp`.
pub(crate) const PASSWORD: &str = "not-a-real-password";

/// A server, which is stopped on drop.
pub(crate) struct Postgres {
    /// Its port, on 127.0.0.1 and in the name of its socket.
    pub(crate) port: u16,
    /// Its data, its certificates, and its socket.
    pub(crate) home: tempfile::TempDir,
    process: Option<Child>,
}

impl Postgres {
    /// Makes an empty database and starts a server, with settings like `fsync=off`.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let home = directory();
        let path = home.path();
        let password = path.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o644)).unwrap();
        let made = server_command("initdb")
            .args(["-U", "voice_otp", "-A", "scram-sha-256", "--no-sync"])
            .args(["-E", "UTF8", "--locale=C", "-D"])
            .arg(path.join("data"))
            .arg(format!("--pwfile={}", password.display()))
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {made:?}");
        Self::run(home, settings).await
    }

    /// Starts an asynchronous standby of this server.
    pub(crate) async fn standby(&self) -> Self {
        let home = directory();
        let copied = server_command("pg_basebackup")
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-d"])
            .arg(self.url("postgres", "").replace("/postgres", "/"))
            .arg("-D")
            .arg(home.path().join("data"))
            .output()
            .unwrap();
        assert!(copied.status.success(), "pg_basebackup: {copied:?}");
        Self::run(home, &[]).await
    }

    async fn run(home: tempfile::TempDir, settings: &[&str]) -> Self {
        let port = super::program::free_port();
        let mut command = server_command("postgres");
        command.arg("-D").arg(home.path().join("data"));
        let socket = format!("unix_socket_directories={}", home.path().display());
        for setting in [
            &socket,
            "listen_addresses=127.0.0.1",
            &format!("port={port}"),
        ] {
            command.args(["-c", setting]);
        }
        for setting in settings {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let server = Self {
            port,
            home,
            process: Some(process),
        };
        server.until_ready().await;
        server
    }

    /// Waits until it accepts connections: the eighth line of this file says so.
    async fn until_ready(&self) {
        let state = self.home.path().join("data/postmaster.pid");
        for _ in 0..600 {
            let text = std::fs::read_to_string(&state).unwrap_or_default();
            let is_ready = |line: &str| line.starts_with("ready") || line.starts_with("standby");
            if text.lines().nth(7).is_some_and(is_ready) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.home.path().join("log"));
        panic!("Postgres is not ready: {log:?}");
    }

    /// A URL of the superuser on the address 127.0.0.1; the query without its question mark.
    pub(crate) fn url(&self, database: &str, query: &str) -> String {
        self.url_at("127.0.0.1", database, query)
    }

    /// The same on another host that leads here.
    pub(crate) fn url_at(&self, host: &str, database: &str, query: &str) -> String {
        let port = self.port;
        format!("postgres://voice_otp:{PASSWORD}@{host}:{port}/{database}?{query}")
    }

    /// Runs SQL as the superuser, over the socket.
    pub(crate) async fn execute(&self, sql: &str) {
        let host = self.home.path().display();
        let url = format!(
            "postgres://voice_otp:{PASSWORD}@/postgres?host={host}&port={}",
            self.port
        );
        let pool = voice_otp_store::connect(&SecretString::from(url), 1).unwrap();
        let client = pool.get().await.unwrap();
        client.batch_execute(sql).await.unwrap();
    }

    /// Writes a file into its directory, readable by the server only.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        give_to_server(&path);
        path
    }

    /// Stops the server at once.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = process.id().to_string();
            // SIGQUIT ends its children too. It may have ended by itself.
            drop(Command::new("kill").args(["-QUIT", &pid]).status());
            drop(process.wait());
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A directory that the server's account owns.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new()
        .prefix("voice-otp-postgres.")
        .tempdir_in("/var/tmp")
        .unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    give_to_server(directory.path());
    directory
}

/// A program of a server, run by an account that isn't root: servers refuse root.
pub(crate) fn server_command(program: &str) -> Command {
    let mut command = Command::new(find(program));
    command.current_dir("/").stdin(Stdio::null());
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C");
    if let Some((user, group)) = server_account() {
        command.uid(user).gid(group);
    }
    command
}

/// Lets the server's account own a file.
pub(crate) fn give_to_server(path: &Path) {
    if let Some((user, group)) = server_account() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

/// As root: the account that servers run as, by its numbers.
fn server_account() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = line.expect("Postgres is installed").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// The newest Postgres' program, or one of the system's.
fn find(program: &str) -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(program)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    let elsewhere = || {
        ["/usr/sbin", "/usr/bin", "/usr/local/bin"]
            .iter()
            .map(|folder| Path::new(folder).join(program))
            .find(|path| path.exists())
    };
    found
        .pop()
        .map(|(_, path)| path)
        .or_else(elsewhere)
        .unwrap_or_else(|| panic!("{program} is not installed; `./dev test` installs it"))
}
