//! A proxy in front of RabbitMQ that withholds the confirms of one routing key, as a queue without
//! a majority does.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// The proxy.
pub(crate) struct SilentQueue {
    address: String,
    connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

/// The publishes of one channel that are not confirmed.
#[derive(Default)]
struct Publishes {
    last_tag: u64,
    answered: BTreeSet<u64>,
    silent: BTreeSet<u64>,
}

/// The publishes of a connection's channels.
type Channels = Arc<Mutex<HashMap<u16, Publishes>>>;

const METHOD: u8 = 1;
const FRAME_END: u8 = 0xce;
const BASIC_PUBLISH: [u8; 4] = [0, 60, 0, 40];
const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];
const BASIC_NACK: [u8; 4] = [0, 60, 0, 120];
/// The bytes of a frame before its payload: type, channel, length.
const HEADER_BYTES: usize = 7;

impl SilentQueue {
    /// A proxy to a broker that withholds the confirms of messages with this routing key.
    pub(crate) async fn before(server: String, routing_key: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (tasks, counted) = (TaskTracker::new(), Arc::clone(&connections));
        let accepting = async move {
            let forwards = TaskTracker::new();
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(&server).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let channels = Channels::default();
                forwards.spawn(forward_publishes(
                    from_client,
                    to_server,
                    Arc::clone(&channels),
                    routing_key,
                ));
                forwards.spawn(forward_confirms(from_server, to_client, channels));
            }
        };
        Self {
            address,
            connections,
            _task: AbortOnDropHandle::new(tasks.spawn(accepting)),
        }
    }

    /// A broker's URL, with the proxy's address in place of the broker's.
    pub(crate) fn in_place_of(&self, url: &str) -> String {
        let (before, after) = url.split_once('@').unwrap();
        let rest = after.split_once('/').map_or("", |(_, rest)| rest);
        format!("{before}@{}/{rest}", self.address)
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads a frame; `None` at the end of the stream.
async fn frame(stream: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    stream.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame[3..HEADER_BYTES].try_into().unwrap());
    let payload_end = HEADER_BYTES + usize::try_from(length).unwrap();
    frame.resize(payload_end + 1, 0);
    stream.read_exact(&mut frame[HEADER_BYTES..]).await.ok()?;
    assert_eq!(frame[payload_end], FRAME_END);
    Some(frame)
}

fn channel_of(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[1], frame[2]])
}

/// The routing key of a `basic.publish`, after its exchange.
fn routing_key_of(payload: &[u8]) -> &[u8] {
    // The method's number and a reserved field come before the exchange.
    let exchange = 6;
    let key = exchange + 1 + usize::from(payload[exchange]);
    &payload[key + 1..key + 1 + usize::from(payload[key])]
}

async fn forward_publishes(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    channels: Channels,
    silent_key: &'static str,
) {
    // The protocol header isn't a frame.
    let mut header = [0; 8];
    if from.read_exact(&mut header).await.is_err() || to.write_all(&header).await.is_err() {
        return;
    }
    while let Some(frame) = frame(&mut from).await {
        let payload = &frame[HEADER_BYTES..];
        if frame[0] == METHOD && payload.starts_with(&BASIC_PUBLISH) {
            let mut channels = channels.lock().unwrap();
            let publishes = channels.entry(channel_of(&frame)).or_default();
            publishes.last_tag += 1;
            let tags = if routing_key_of(payload) == silent_key.as_bytes() {
                &mut publishes.silent
            } else {
                &mut publishes.answered
            };
            tags.insert(publishes.last_tag);
        }
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn forward_confirms(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, channels: Channels) {
    while let Some(frame) = frame(&mut from).await {
        let payload = &frame[HEADER_BYTES..];
        let is_confirm = payload.starts_with(&BASIC_ACK) || payload.starts_with(&BASIC_NACK);
        let forwarded = if frame[0] == METHOD && is_confirm {
            let mut channels = channels.lock().unwrap();
            let publishes = channels.entry(channel_of(&frame)).or_default();
            audible(&frame, publishes)
        } else {
            frame
        };
        if to.write_all(&forwarded).await.is_err() {
            return;
        }
    }
}

/// The confirms in this frame that the client may see, one frame for each.
fn audible(frame: &[u8], publishes: &mut Publishes) -> Vec<u8> {
    let payload = &frame[HEADER_BYTES..];
    let tag = u64::from_be_bytes(payload[4..12].try_into().unwrap());
    let is_multiple = payload[12] & 1 == 1;
    let first = if is_multiple { 1 } else { tag };
    let confirmed: Vec<u64> = publishes.answered.range(first..=tag).copied().collect();
    let mut frames = Vec::new();
    for tag in confirmed {
        publishes.answered.remove(&tag);
        let start = frames.len();
        frames.extend_from_slice(frame);
        frames[start + HEADER_BYTES + 4..start + HEADER_BYTES + 12]
            .copy_from_slice(&tag.to_be_bytes());
        frames[start + HEADER_BYTES + 12] &= !1;
    }
    frames
}
