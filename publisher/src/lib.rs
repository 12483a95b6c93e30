//! RabbitMQ for auth services and workers: the topology, confirmed publishing, and the stream of
//! statuses.
//!
//! A [`Publisher`] accepts events from any number of tasks. A publish resolves when a quorum of the
//! broker's nodes has stored the message, or reports why that isn't known. One task owns the
//! channel (ADR 3): if several tasks share a channel, confirms get mixed up under load, and a
//! returned message may be attached to the wrong publish. So one task writes all publishes, and
//! returned messages are matched by their `message_id`.
//!
//! # Silence lapin
//!
//! The AMQP library logs messages that the broker returns at level `warn`, with their bodies: codes
//! and numbers. A program that logs with `tracing` must filter out the target `lapin`, for example
//! with the directive `lapin=off`.
//!
//! ```no_run
//! use voice_otp_publisher::{Publisher, Settings};
//! use voice_otp_schemas::request::Requested;
//! # async fn example(request: Requested) -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::new("amqp://127.0.0.1:5672/%2f".into(), "/auth/login");
//! let publisher = Publisher::start(settings)?;
//! publisher.request(&request).await?;
//! publisher.close().await;
//! # Ok(())
//! # }
//! ```

mod channel;
pub mod clock;
pub mod connection;
pub mod dead_letters;
pub mod event;
pub mod message;
mod outstanding;
pub mod publisher;
#[cfg(feature = "spool")]
pub mod spool;
pub mod statuses;
pub mod test_call;
pub mod topology;

pub use message::{Message, PublishError};
pub use publisher::{Publisher, Settings};
#[cfg(feature = "spool")]
pub use spool::{Spool, StoredIn};
