//! Clients that send nothing, half a request, or do not read: on real sockets, with short timeouts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp_server::{Limits, serve};

/// How long a test waits for what must happen: far longer than the servers' timeouts.
const SOON: Duration = Duration::from_secs(20);
/// A timeout that doesn't pass during a test.
const NEVER: Duration = Duration::from_hours(1);

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let router = Router::new()
            .route("/", get(|| async { "hello\n" }))
            .route(
                "/length",
                post(|body: Bytes| async move { body.len().to_string() }),
            )
            .route("/large", get(|| async { vec![b'x'; 64 << 20] }))
            .route(
                "/slow",
                get(|| async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    "done\n"
                }),
            )
            .route(
                "/address",
                get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = TaskTracker::new().spawn(serve(listener, router, limits, stop.clone()));
        Self {
            address,
            stop,
            serving,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, text: &str) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(text.as_bytes()).await.unwrap();
        client
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(SOON, self.serving)
            .await
            .expect("it stops")
            .unwrap();
    }
}

fn patient() -> Limits {
    Limits {
        head_timeout: NEVER,
        body_timeout: NEVER,
        write_timeout: NEVER,
        ..Limits::default()
    }
}

/// What a client receives until the server closes the connection.
async fn read_to_end(client: &mut TcpStream) -> String {
    let mut received = Vec::new();
    // A reset closes it as well.
    drop(
        timeout(SOON, client.read_to_end(&mut received))
            .await
            .expect("the server closes the connection"),
    );
    String::from_utf8_lossy(&received).into_owned()
}

async fn read_response(client: &mut TcpStream, end: &str) -> String {
    let mut received = Vec::new();
    let reading = async {
        while !received.ends_with(end.as_bytes()) {
            assert!(
                client.read_buf(&mut received).await.unwrap() > 0,
                "it is open"
            );
        }
    };
    timeout(SOON, reading).await.expect("there is an answer");
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn a_connection_that_sends_nothing_or_half_a_head_is_closed() {
    let server = Server::start(Limits {
        head_timeout: Duration::from_millis(100),
        ..patient()
    })
    .await;
    for half in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-A: "] {
        let mut client = server.send(half).await;
        let received = read_to_end(&mut client).await;
        assert!(!received.contains("200 OK"), "{received}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_is_closed_after_its_requests_when_it_is_idle_or_sends_half_a_head() {
    let server = Server::start(Limits {
        head_timeout: Duration::from_millis(200),
        ..patient()
    })
    .await;
    for half in ["", "GET / HTTP/1.1\r\nHo"] {
        let mut client = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        read_response(&mut client, "hello\n").await;
        client.write_all(half.as_bytes()).await.unwrap();
        read_to_end(&mut client).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_sends_half_a_body_is_closed_however_slowly_it_goes_on() {
    let server = Server::start(Limits {
        body_timeout: Duration::from_millis(300),
        ..patient()
    })
    .await;
    let head = "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\ntoken=";
    let mut client = server.send(head).await;
    assert!(
        read_to_end(&mut client)
            .await
            .contains("408 Request Timeout")
    );

    let mut client = server.send(head).await;
    let trickling = async {
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, trickling)
        .await
        .expect("the server closes the connection");

    // A whole body is read as before.
    let whole = "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345";
    let mut client = server.send(whole).await;
    assert!(
        read_response(&mut client, "\r\n\r\n5")
            .await
            .contains("200 OK")
    );
    server.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_does_not_read_its_response_is_cut_off() {
    let server = Server::start(Limits {
        write_timeout: Duration::from_millis(500),
        ..patient()
    })
    .await;
    let mut client = server.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // Not read, but asked for errors: the server's end has reset the connection.
    let waiting = async {
        while client.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, waiting)
        .await
        .expect("the server closes the connection");
    server.stop().await;
}

#[tokio::test]
async fn a_request_is_answered_beside_as_many_idle_connections_as_there_may_be() {
    let server = Server::start(Limits {
        max_connections: 50,
        ..patient()
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(server.connect().await);
    }
    let mut client = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_response(&mut client, "hello\n").await;
    // The oldest were closed, the newest are open.
    read_to_end(&mut idle[0]).await;
    let newest = timeout(Duration::from_millis(50), idle[199].read_u8()).await;
    assert!(newest.is_err(), "the newest is open");
    server.stop().await;
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_it_may() {
    let server = Server::start(Limits {
        max_connections_per_address: Some(2),
        ..patient()
    })
    .await;
    let mut idle = server.connect().await;
    let mut second = server
        .send("GET /address HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let own = second.local_addr().unwrap().to_string();
    read_response(&mut second, &own).await;
    let mut third = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_response(&mut third, "hello\n").await;
    assert_eq!(read_to_end(&mut idle).await, "", "it made room");
    second
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    read_response(&mut second, "hello\n").await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_finishes_its_requests_and_closes_idle_connections() {
    let server = Server::start(patient()).await;
    let mut idle = server.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    read_response(&mut idle, "hello\n").await;
    let mut busy = server.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    // The request has arrived once the next one on another connection is answered.
    let mut next = server.send("GET / HTTP/1.0\r\n\r\n").await;
    read_to_end(&mut next).await;
    server.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(read_to_end(&mut busy).await.ends_with("done\n"));
    server.stop().await;
}
