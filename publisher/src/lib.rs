//! RabbitMQ's side of voice-otp for senders: the topology, and publishing that never lies.
//!
//! A [`Publisher`] takes events from any number of tasks. One task owns the channel: confirms on a channel that is
//! shared between tasks come mixed up under load, and a returned message may be attached to the wrong one; so windows
//! of publishes are written by one hand and returned messages are matched by their `message_id`. A publish resolves
//! when a quorum of the broker's nodes has the message, or says why it isn't known to.
//!
//! # Silence lapin
//!
//! The AMQP library underneath logs messages that the broker returns, at level `warn` and with their bodies: codes and numbers.
//! Whoever logs by `tracing` must leave out what has the target `lapin`, for example by the directive `lapin=off`.
//!
//! ```no_run
//! use voice_otp_publisher::{Publisher, Settings};
//! use voice_otp_schemas::request::Requested;
//! # async fn example(request: Requested) -> Result<(), Box<dyn std::error::Error>> {
//! let publisher = Publisher::start(Settings::new("amqp://127.0.0.1:5672/%2f".into(), "/auth/login"))?;
//! publisher.request(&request).await?;
//! publisher.close().await;
//! # Ok(())
//! # }
//! ```

mod channel;
pub mod event;
pub mod link;
pub mod message;
pub mod publisher;
#[cfg(feature = "spool")]
pub mod spool;
pub mod topology;

pub use message::{Message, PublishError};
pub use publisher::{Publisher, Settings};
#[cfg(feature = "spool")]
pub use spool::{Kept, Spool};
