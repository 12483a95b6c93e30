//! The program `voice-otp`, as a process.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

/// Runs commands of the program.
pub(crate) struct Program;

/// A running worker.
pub(crate) struct Worker {
    child: Child,
    /// The host and port on which it listens.
    pub(crate) address: String,
    log: tempfile::NamedTempFile,
}

/// A running console.
pub(crate) struct Console {
    child: Child,
    address: String,
    log: tempfile::NamedTempFile,
    pub(crate) http: reqwest::Client,
}

impl Console {
    /// Starts a console of the system, and waits until it answers.
    pub(crate) async fn start(system: &super::System) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut environment = system.environment();
        environment.push(("VOICE_OTP_CONSOLE_LISTEN", address.clone()));
        environment.push(("VOICE_OTP_LOG", "trace".to_owned()));
        let log = tempfile::NamedTempFile::new().unwrap();
        let file = log.reopen().unwrap();
        let child = command(&environment)
            .arg("console")
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let console = Self {
            child,
            address,
            log,
            http: reqwest::Client::new(),
        };
        let waiting = async {
            while console
                .http
                .get(console.url("/livez"))
                .send()
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(
            in_time.is_ok(),
            "the console does not answer:\n{}",
            console.log()
        );
        console
    }

    /// The host and port on which it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the process is running")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The log so far, at level trace.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// Sends SIGTERM, and waits until it exits with 0.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().expect("the process is running").to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        assert!(
            ended
                .unwrap_or_else(|_| panic!("the process does not stop:\n{}", self.log()))
                .unwrap()
                .success()
        );
    }
}

/// The path of the program: `VOICE_OTP_TEST_BINARY`, or the one built beside the tests.
/// Measurements set the variable to an optimised build.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("VOICE_OTP_TEST_BINARY") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap();
    let path = here.parent().unwrap().parent().unwrap().join("voice-otp");
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace, or ./dev test",
        path.display()
    );
    path
}

fn command(environment: &[(&'static str, String)]) -> Command {
    command_of(&binary(), environment)
}

fn command_of(program: &Path, environment: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(program);
    let inherited = std::env::vars().filter(|(name, _)| name.starts_with("VOICE_OTP_"));
    for (name, _) in inherited {
        command.env_remove(name);
    }
    for (name, value) in environment {
        command.env(name, value);
    }
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

impl Program {
    /// Runs a command until it exits.
    pub(crate) async fn run(environment: &[(&'static str, String)], args: &[&str]) -> Output {
        Self::run_of(&binary(), environment, args).await
    }

    /// Runs a command of another build until it exits.
    pub(crate) async fn run_of(
        program: &Path,
        environment: &[(&'static str, String)],
        args: &[&str],
    ) -> Output {
        let running = command_of(program, environment).args(args).output();
        tokio::time::timeout(Duration::from_mins(1), running)
            .await
            .expect("the program exits")
            .unwrap()
    }

    /// Runs a command with `input` on standard input until it exits.
    pub(crate) async fn run_with_input(
        environment: &[(&'static str, String)],
        args: &[&str],
        input: &str,
    ) -> Output {
        use tokio::io::AsyncWriteExt as _;
        let mut command = command(environment);
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_mins(1), child.wait_with_output())
            .await
            .expect("the program exits")
            .unwrap()
    }

    /// Starts a command with piped output.
    pub(crate) fn start(environment: &[(&'static str, String)], args: &[&str]) -> Child {
        command(environment)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// The memory of a process that is in use: its resident set.
pub(crate) fn memory_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}

/// A port that is free at the moment.
pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Worker {
    pub(crate) async fn start(
        environment: Vec<(&'static str, String)>,
        callbacks: bool,
        settings: &[(&'static str, String)],
    ) -> Self {
        Self::start_of(&binary(), environment, callbacks, settings).await
    }

    /// Starts a worker of another build.
    #[expect(clippy::unused_async, reason = "spawning a process needs the runtime")]
    pub(crate) async fn start_of(
        program: &Path,
        mut environment: Vec<(&'static str, String)>,
        callbacks: bool,
        settings: &[(&'static str, String)],
    ) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        environment.push(("VOICE_OTP_LISTEN", address.clone()));
        environment.push(("VOICE_OTP_LOG", "trace".to_owned()));
        if callbacks {
            environment.push(("VOICE_OTP_PUBLIC_URL", format!("http://{address}")));
            environment.push(("VOICE_OTP_ALLOW_HTTP", "true".to_owned()));
        }
        environment.extend(settings.iter().cloned());
        let log = tempfile::NamedTempFile::new().unwrap();
        let file = log.reopen().unwrap();
        let child = command_of(program, &environment)
            .arg("worker")
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            log,
        }
    }

    /// Waits until the worker is ready.
    pub(crate) async fn ready(&self) {
        self.readiness(true).await;
    }

    /// Waits until the worker reports that it is ready, or that it isn't; returns what it says.
    pub(crate) async fn readiness(&self, wanted: bool) -> String {
        let client = reqwest::Client::new();
        let waiting = async {
            loop {
                let answer = client
                    .get(format!("http://{}/readyz", self.address))
                    .send()
                    .await;
                if let Ok(answer) = answer
                    && answer.status().is_success() == wanted
                {
                    return answer.text().await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        in_time.unwrap_or_else(|_| {
            panic!(
                "the worker did not report readiness {wanted}:\n{}",
                self.log()
            )
        })
    }

    /// The log so far, at level trace.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    /// A counter or gauge of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.address);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until the log has a text this many times.
    pub(crate) async fn until_log(&self, text: &str, times: usize) {
        let logged = async {
            while self.log().matches(text).count() < times {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), logged).await;
        assert!(in_time.is_ok(), "{text}, {times} times: {}", self.log());
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the process is running")
    }

    /// How many threads of the process have this name.
    pub(crate) fn threads(&self, name: &str) -> usize {
        let pid = self.child.id().expect("the process is running");
        std::fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok())
            .filter(|thread| thread.trim() == name)
            .count()
    }

    /// The most memory that the process has used, in MiB, since the last call of
    /// [`forget_peak_memory`](Self::forget_peak_memory).
    pub(crate) fn peak_memory_mib(&self) -> u64 {
        let pid = self.child.id().expect("the process is running");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() / 1024
    }

    /// Makes the memory that the process uses now its peak.
    pub(crate) fn forget_peak_memory(&self) {
        let pid = self.child.id().expect("the process is running");
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    }

    /// Whether the process is still the one that was started.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().expect("the process is running").to_string();
        let done = std::process::Command::new("kill")
            .args([format!("-{name}"), pid])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Sends SIGTERM, and waits until it exits.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("the process does not stop:\n{}", self.log()))
            .unwrap()
    }

    /// Sends SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}
