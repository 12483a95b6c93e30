//! A RabbitMQ and a Postgres for one test, which it may kill.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use secrecy::SecretString;
use tokio::process::Command;

/// A RabbitMQ and a Postgres, which are stopped on drop.
pub(crate) struct Servers {
    /// The URL of the broker's default vhost.
    pub(crate) amqp_url: SecretString,
    /// The URL of the database.
    pub(crate) database_url: SecretString,
    directory: tempfile::TempDir,
}

impl Servers {
    /// Starts both servers.
    pub(crate) async fn start() -> Self {
        let mut servers = Self {
            amqp_url: SecretString::default(),
            database_url: SecretString::default(),
            directory: tempfile::tempdir().unwrap(),
        };
        servers.dev(&["up"]).await;
        let exports = servers.dev(&["env"]).await;
        let value = |name: &str| {
            let line = exports
                .lines()
                .find_map(|line| line.strip_prefix(&format!("export {name}='")));
            line.and_then(|rest| rest.strip_suffix('\''))
                .unwrap_or_else(|| panic!("{name} is not in: {exports}"))
                .to_owned()
        };
        servers.amqp_url = value("VOICE_OTP_AMQP_URL").into();
        servers.database_url = value("VOICE_OTP_DATABASE_URL").into();
        servers
    }

    /// Restarts the servers that were killed.
    pub(crate) async fn restart(&self) {
        self.dev(&["up"]).await;
    }

    /// Kills RabbitMQ.
    pub(crate) async fn kill_rabbitmq(&self) {
        self.dev(&["break", "rabbitmq"]).await;
    }

    /// Kills Postgres.
    pub(crate) async fn kill_postgres(&self) {
        self.dev(&["break", "postgres"]).await;
    }

    /// Raises RabbitMQ's memory alarm, or clears it.
    pub(crate) async fn memory_alarm(&self, on: bool) {
        self.dev(&["alarm", if on { "on" } else { "off" }]).await;
    }

    /// Runs `rabbitmqctl` on RabbitMQ.
    pub(crate) async fn rabbitmqctl(&self, args: &[&str]) -> String {
        self.dev(&[&["rabbitmqctl"], args].concat()).await
    }

    async fn dev(&self, args: &[&str]) -> String {
        let running = self.command(args).stderr(Stdio::piped()).output();
        let output = tokio::time::timeout(Duration::from_mins(3), running)
            .await
            .expect("./dev exits")
            .unwrap();
        assert!(
            output.status.success(),
            "./dev {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VOICE_OTP_")) {
            command.env_remove(name);
        }
        command.env(
            "VOICE_OTP_DEV_SERVICES_DIR",
            self.directory.path().join("services"),
        );
        command.args(args).stdin(Stdio::null());
        command
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // Also if the test has failed.
        let stopped = self
            .command(&["down"])
            .as_std_mut()
            .stderr(Stdio::null())
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!(
                "the servers in {} could not be stopped",
                self.directory.path().display()
            );
        }
    }
}
