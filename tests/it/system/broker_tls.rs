//! amqps with an authority of one's own, and passwords that don't travel in the clear.

use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use voice_otp_publisher::statuses::StatusStream;
use voice_otp_publisher::{Publisher, Settings, connection};
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::{PhoneNumber, TenantId};

use crate::harness::{Direction, Program, Proxy, Servers, number};

/// Makes `name.pem` and `name.key`: an authority, or a certificate for this machine that `issuer`
/// signs.
async fn certificate(directory: &Path, name: &str, issuer: Option<&str>) {
    let script = match issuer {
        None => {
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                 -subj /CN=$0 -keyout $0.key -out $0.pem"
                .to_owned()
        }
        Some(issuer) => format!(
            "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$0 \
             -keyout $0.key -out $0.csr && echo subjectAltName=DNS:localhost,IP:127.0.0.1 >$0.ext \
             && openssl x509 -req -in $0.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial \
             -days 2 -extfile $0.ext -out $0.pem && chmod 644 $0.key"
        ),
    };
    let made = Command::new("sh")
        .args(["-c", &script, name])
        .current_dir(directory)
        .output()
        .await
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn amqps_trusts_the_authority_that_the_url_names_and_no_other() {
    use std::os::unix::fs::PermissionsExt as _;
    drop(rustls::crypto::ring::default_provider().install_default());
    let servers = Servers::start().await;
    let folder = tempfile::tempdir().unwrap();
    // The broker may run as another account.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for (name, issuer) in [("ca", None), ("other", None), ("broker", Some("ca"))] {
        certificate(folder.path(), name, issuer).await;
    }
    let port = free_port();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let listen = format!(
        "{{ok, _}} = application:ensure_all_started(ssl), \
         ok = rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}}, \
         [{{certfile, \"{}\"}}, {{keyfile, \"{}\"}}], 2).",
        file("broker.pem"),
        file("broker.key")
    );
    servers.rabbitmqctl(&["eval", &listen]).await;
    let clear = servers.amqp_url.expose_secret();
    let (user, _) = clear.split_once('@').unwrap();
    let secure = |host: &str, parameters: &str| {
        let user = user.replace("amqp://", "amqps://");
        SecretString::from(format!("{user}@{host}:{port}/%2f{parameters}"))
    };
    let with_ca = format!("?cacertfile={}", file("ca.pem"));

    // Publisher and consumer.
    let url = secure("localhost", &with_ca);
    let publisher = Publisher::start(Settings::new(url.clone(), "/test")).unwrap();
    let to = PhoneNumber::parse(&number(1)).unwrap();
    let request: Requested =
        voice_otp_publisher::test_call::request(TenantId::parse("acme").unwrap(), to, None)
            .unwrap();
    publisher.request(&request).await.unwrap();
    drop(StatusStream::subscribe(&url, None).await.unwrap());
    publisher.close().await;
    connection::connect(&secure("127.0.0.1", &with_ca), "by address")
        .await
        .unwrap();

    // A wrong authority, no authority, a wrong name.
    let refused = async |parameters: &str| {
        let url = secure("localhost", parameters);
        let error = connection::connect(&url, "refused")
            .await
            .err()
            .expect("it is refused");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    };
    let unknown = "signed by no authority that is trusted";
    let wrong_ca = refused(&format!("?cacertfile={}", file("other.pem"))).await;
    assert!(wrong_ca.contains(unknown), "{wrong_ca}");
    assert!(wrong_ca.contains("cacertfile"), "{wrong_ca}");
    let no_ca = refused("").await;
    assert!(no_ca.contains(unknown), "{no_ca}");
    let wrong_name = refused(&format!("{with_ca}&server_name_indication=rabbit.example")).await;
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");

    // The program says the same.
    let url = secure("localhost", &format!("?cacertfile={}", file("other.pem")));
    let environment = [("VOICE_OTP_AMQP_URL", url.expose_secret().to_owned())];
    let mut watching = Program::start(&environment, &["watch"]);
    let mut lines = BufReader::new(watching.stderr.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line());
    let line = line.await.expect("it says something").unwrap().unwrap();
    assert!(line.contains(unknown), "{line}");
    watching.kill().await.unwrap();

    // A frozen connection by TLS is left too.
    let proxy = Proxy::to(format!("127.0.0.1:{port}")).await;
    let url = proxy
        .in_place_of(url.expose_secret())
        .replace("other.pem", "ca.pem");
    let connected = connection::connect(&url.into(), "frozen").await.unwrap();
    proxy.freeze(Direction::Both);
    let lost = tokio::time::timeout(Duration::from_secs(30), connected.lost()).await;
    assert!(lost.is_ok(), "heartbeats notice it");
}

#[tokio::test]
async fn a_password_in_the_clear_to_another_machine_is_refused_unless_it_is_allowed() {
    let url = "amqp://user:hunter2@broker.invalid:5672/v".to_owned();
    let broker = ("VOICE_OTP_AMQP_URL", url);
    for command in [
        &["watch"][..],
        &["publish", "--tenant", "acme", "--to", "+12125550100"],
    ] {
        let refused = Program::run(std::slice::from_ref(&broker), command).await;
        let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{printed}");
        assert!(
            printed.contains("VOICE_OTP_ALLOW_CLEARTEXT=true"),
            "{printed}"
        );
        assert!(
            printed.contains("broker.invalid is not this machine"),
            "{printed}"
        );
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    let allowed = ("VOICE_OTP_ALLOW_CLEARTEXT", "true".to_owned());
    let mut watching = Program::start(&[broker, allowed], &["watch"]);
    let mut lines = BufReader::new(watching.stderr.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line());
    let line = line.await.expect("it says something").unwrap().unwrap();
    assert!(line.contains("retrying"), "it is tried: {line}");
    watching.kill().await.unwrap();
}
