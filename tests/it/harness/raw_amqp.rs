//! A bare AMQP 0-9-1 publisher, for messages that no client library builds.

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection with one channel, in confirm mode.
pub(crate) struct RawPublisher {
    socket: TcpStream,
    frame_max: usize,
}

/// What a message is published with.
#[derive(Clone, Default)]
pub(crate) struct RawMessage {
    pub(crate) exchange: Vec<u8>,
    pub(crate) routing_key: Vec<u8>,
    pub(crate) content_type: Vec<u8>,
    /// The entries of the header table.
    pub(crate) headers: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// The broker has closed the channel or the connection instead of taking a message.
#[derive(Debug)]
#[expect(dead_code, reason = "shown by Debug")]
pub(crate) struct Refused(String);

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// A short string.
pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// A long string, a table or an array: its length and its content.
pub(crate) fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

impl RawPublisher {
    pub(crate) async fn connect(url: &SecretString) -> Self {
        let url: url::Url = url.expose_secret().parse().unwrap();
        let address = (url.host_str().unwrap(), url.port().unwrap());
        let mut publisher = Self {
            socket: TcpStream::connect(address).await.unwrap(),
            frame_max: 0,
        };
        publisher.write(b"AMQP\0\0\x09\x01").await.unwrap();
        publisher.expect(10, 10).await.unwrap();
        let login = format!("\0{}\0{}", url.username(), url.password().unwrap());
        let start_ok = [
            long(b""),
            short(b"PLAIN"),
            long(login.as_bytes()),
            short(b"en_US"),
        ];
        publisher
            .method(0, 10, 11, &start_ok.concat())
            .await
            .unwrap();
        let tune = publisher.expect(10, 30).await.unwrap();
        publisher.frame_max =
            usize::try_from(u32::from_be_bytes(tune[2..6].try_into().unwrap())).unwrap();
        // The same, without heartbeats.
        let tune_ok = [&tune[..6], &[0, 0]].concat();
        publisher.method(0, 10, 31, &tune_ok).await.unwrap();
        let vhost = [
            short(url.path().trim_start_matches('/').as_bytes()),
            vec![0, 0],
        ];
        publisher.method(0, 10, 40, &vhost.concat()).await.unwrap();
        publisher.expect(10, 41).await.unwrap();
        publisher.method(1, 20, 10, b"\0").await.unwrap();
        publisher.expect(20, 11).await.unwrap();
        publisher.method(1, 85, 10, b"\0").await.unwrap();
        publisher.expect(85, 11).await.unwrap();
        publisher
    }

    /// Publishes a persistent message, and waits for its confirm.
    pub(crate) async fn publish(&mut self, message: &RawMessage) -> Result<(), Refused> {
        let method = [
            vec![0, 0],
            short(&message.exchange),
            short(&message.routing_key),
            vec![0],
        ];
        self.method(1, 60, 40, &method.concat()).await?;
        // Content type, headers, delivery mode.
        let content = [
            vec![0, 60, 0, 0],
            (message.body.len() as u64).to_be_bytes().to_vec(),
            vec![0b1011_0000, 0],
            short(&message.content_type),
            long(&message.headers),
            vec![2],
        ];
        self.frame(HEADER, 1, &content.concat()).await?;
        for part in message.body.chunks(self.frame_max - 8) {
            self.frame(BODY, 1, part).await?;
        }
        self.expect(60, 80).await.map(drop)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let written = self.socket.write_all(bytes).await;
        written.map_err(|error| Refused(error.to_string()))
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> Result<(), Refused> {
        let [high, low] = channel.to_be_bytes();
        let frame = [vec![kind, high, low], long(payload), vec![0xce]];
        self.write(&frame.concat()).await
    }

    async fn method(
        &mut self,
        channel: u16,
        class: u16,
        method: u16,
        arguments: &[u8],
    ) -> Result<(), Refused> {
        let method = [class.to_be_bytes(), method.to_be_bytes()].concat();
        let payload = [&method, arguments];
        self.frame(METHOD, channel, &payload.concat()).await
    }

    /// Waits for a method, and returns its arguments.
    async fn expect(&mut self, class: u16, method: u16) -> Result<Vec<u8>, Refused> {
        let failed = |error: std::io::Error| Refused(error.to_string());
        loop {
            let mut head = [0; 7];
            self.socket.read_exact(&mut head).await.map_err(failed)?;
            let size = u32::from_be_bytes(head[3..].try_into().unwrap());
            let mut payload = vec![0; usize::try_from(size).unwrap() + 1];
            self.socket.read_exact(&mut payload).await.map_err(failed)?;
            if head[0] != METHOD {
                continue;
            }
            let arguments = payload.split_off(4);
            let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
            if payload == wanted {
                return Ok(arguments);
            }
            // connection.close and channel.close.
            if payload == [0, 10, 0, 50] || payload == [0, 20, 0, 40] {
                return Err(Refused(String::from_utf8_lossy(&arguments).into_owned()));
            }
        }
    }
}
