//! Twilio stand-ins: nginx with a static answer for throughput, a server that records the arrival
//! of POSTs for latency, and the simulator for complete calls.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, RawForm, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use voice_otp_schemas::Timestamp;
use voice_otp_schemas::envelope::parse_time;

use crate::database::{AUTH_TOKEN, Account, FROM};
use crate::process::{free_port, program, terminate};

/// nginx, which answers every POST with 201 and a new SID.
pub(crate) struct Static {
    pub(crate) url: String,
    child: Child,
    _directory: tempfile::TempDir,
}

/// One worker process, no access log, connections kept alive.
fn nginx_configuration(directory: &std::path::Path, port: u16) -> String {
    let at = directory.display();
    format!(
        "worker_processes 1; pid {at}/pid; error_log {at}/log crit; daemon off;
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 3600;
    client_body_in_single_buffer on; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
    default_type application/json;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ \"/Calls/(CA[0-9a-f]+).json$\" {{
            return 200 '{{\"sid\":\"$1\",\"status\":\"ringing\",\"direction\":\"outbound-api\"}}';
        }}
        location / {{
            return 201 '{{\"sid\":\"CA$request_id\",\"status\":\"queued\",\
\"direction\":\"outbound-api\",\"queue_time\":\"0\"}}';
        }}
    }}
}}
"
    )
}

impl Static {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let configuration = directory.path().join("nginx.conf");
        std::fs::write(&configuration, nginx_configuration(directory.path(), port))?;
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"]
            .iter()
            .find(|path| PathBuf::from(path).exists());
        let child = Command::new(program.unwrap_or(&"nginx"))
            .args(["-e", "stderr", "-c"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start nginx: ./dev bench installs it")?;
        let url = format!("http://127.0.0.1:{port}");
        let client = reqwest::Client::new();
        for _ in 0..100 {
            if client.get(&url).send().await.is_ok() {
                return Ok(Self {
                    url,
                    child,
                    _directory: directory,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("nginx does not answer")
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        // SIGTERM, so that nginx also stops its worker process.
        terminate(&mut self.child).await
    }
}

/// The simulator, at a hundred times real time.
pub(crate) struct Simulated {
    pub(crate) url: String,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Simulated {
    pub(crate) async fn start(accounts: &[Account]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("accounts.json");
        let accounts: Vec<_> = accounts
            .iter()
            .map(|account| {
                serde_json::json!({
                    "sid": account.sid(), "auth_token": AUTH_TOKEN, "numbers": [FROM],
                    "calls_per_second": account.calls_per_second,
                })
            })
            .collect();
        std::fs::write(&file, serde_json::to_vec(&accounts)?)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let child = Command::new(program()?)
            .args([
                "simulate",
                "--speed",
                "100",
                "--listen",
                &address,
                "--accounts",
            ])
            .arg(&file)
            .env("VOICE_OTP_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start the simulator")?;
        let url = format!("http://{address}");
        let client = reqwest::Client::new();
        for _ in 0..200 {
            if client
                .get(format!("{url}/simulator/calls"))
                .send()
                .await
                .is_ok()
            {
                return Ok(Self {
                    url,
                    child,
                    _directory: directory,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("the simulator does not answer")
    }

    /// How many calls were created.
    pub(crate) async fn calls_created(&self) -> anyhow::Result<u64> {
        let stats = self.report("stats").await?;
        stats
            .get("calls_created")
            .and_then(serde_json::Value::as_u64)
            .context("calls_created")
    }

    /// Every call that was created.
    pub(crate) async fn calls(&self) -> anyhow::Result<Vec<CreatedCall>> {
        let calls = self.report("calls").await?;
        calls
            .as_array()
            .context("a list of calls")?
            .iter()
            .map(|call| {
                let text = |name| call.get(name).and_then(serde_json::Value::as_str);
                Ok(CreatedCall {
                    to: text("to").context("to")?.to_owned(),
                    created: text("created").and_then(parse_time).context("created")?,
                })
            })
            .collect()
    }

    async fn report(&self, name: &str) -> anyhow::Result<serde_json::Value> {
        let url = format!("{}/simulator/{name}", self.url);
        Ok(reqwest::get(url).await?.json().await?)
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        terminate(&mut self.child).await
    }
}

/// A call at the simulator.
#[derive(Debug, Clone)]
pub(crate) struct CreatedCall {
    /// The number called.
    pub(crate) to: String,
    pub(crate) created: Timestamp,
}

/// A Twilio that records the arrival of each POST. Accounts may answer slowly, or with an error.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(crate) url: String,
    inner: Arc<Inner>,
    shutdown: CancellationToken,
}

struct Inner {
    posts: Mutex<Vec<Post>>,
    behaviours: HashMap<String, Behaviour>,
}

/// A received POST.
pub(crate) struct Post {
    /// The number called.
    pub(crate) to: String,
    /// When it arrived.
    pub(crate) at: Instant,
}

/// How an account answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Behaviour {
    /// With 201, after a delay.
    Slow(Duration),
    /// With 401.
    WrongCredentials,
}

impl Recorder {
    /// Starts a Twilio in which some accounts, by SID, have a special behaviour.
    pub(crate) async fn start(behaviours: HashMap<String, Behaviour>) -> anyhow::Result<Self> {
        let listener = voice_otp_server::listen("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let inner = Arc::new(Inner {
            posts: Mutex::default(),
            behaviours,
        });
        let shutdown = CancellationToken::new();
        let router = Router::new()
            .route("/2010-04-01/Accounts/{account}/Calls.json", post(place))
            .with_state(Arc::clone(&inner));
        let stop = shutdown.clone();
        tokio_util::task::TaskTracker::new().spawn(async move {
            drop(
                axum::serve(listener, router)
                    .with_graceful_shutdown(stop.cancelled_owned())
                    .await,
            );
        });
        Ok(Self {
            url,
            inner,
            shutdown,
        })
    }

    /// Takes the POSTs that have arrived since the last call.
    pub(crate) fn take_posts(&self) -> Vec<Post> {
        std::mem::take(&mut *self.lock())
    }

    /// The number of POSTs that have arrived since they were last taken.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn stop(self) {
        self.shutdown.cancel();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Post>> {
        self.inner
            .posts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn place(
    State(inner): State<Arc<Inner>>,
    Path(account): Path<String>,
    RawForm(form): RawForm,
) -> Response {
    let at = Instant::now();
    let to = form_urlencoded::parse(&form)
        .find(|(name, _)| name == "To")
        .map(|(_, value)| value.into_owned());
    inner
        .posts
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Post {
            to: to.unwrap_or_default(),
            at,
        });
    match inner.behaviours.get(&account) {
        Some(Behaviour::WrongCredentials) => {
            let body = r#"{"code":20003,"message":"Authenticate","more_info":"","status":401}"#;
            return (StatusCode::UNAUTHORIZED, body).into_response();
        }
        Some(Behaviour::Slow(wait)) => tokio::time::sleep(*wait).await,
        None => {}
    }
    let sid = uuid::Uuid::new_v4().simple();
    let body = format!(
        r#"{{"sid":"CA{sid}","status":"queued","direction":"outbound-api","queue_time":"0"}}"#
    );
    (StatusCode::CREATED, body).into_response()
}
