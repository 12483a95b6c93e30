//! What the broker says about a message, before the message itself is read.

use lapin::message::Delivery;
use lapin::types::AMQPValue;
use voice_otp_publisher::topology;

/// How often a message was delivered before and came back: because its worker or the connection
/// ended, or, up to RabbitMQ 4.2, because a worker requeued it. 0 in a queue that doesn't count.
pub(super) fn earlier_deliveries(delivery: &Delivery) -> i64 {
    match header(delivery, "x-delivery-count") {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        Some(AMQPValue::LongUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortUInt(count)) => i64::from(*count),
        _ => 0,
    }
}

/// Whether this is a copy of a message, in another queue than the message itself: its header `CC`
/// names more routing keys. The first key that leads to a queue of requests names the queue of the
/// message.
pub(super) fn is_copy(delivery: &Delivery, queue: &str) -> bool {
    let Some(AMQPValue::FieldArray(copies)) = header(delivery, "CC") else {
        return false;
    };
    let copies = copies.as_slice().iter().filter_map(|key| match key {
        AMQPValue::LongString(key) => std::str::from_utf8(key.as_bytes()).ok(),
        _ => None,
    });
    std::iter::once(delivery.routing_key.as_str())
        .chain(copies)
        .find_map(|key| topology::leads_to(key, queue))
        .is_some_and(|leads_here| !leads_here)
}

fn header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a AMQPValue> {
    let headers = delivery.properties.headers().as_ref()?.inner();
    headers
        .iter()
        .find_map(|(key, value)| (key.as_str() == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::types::{FieldArray, FieldTable};

    use super::*;

    fn delivery(routing_key: &str, headers: FieldTable) -> Delivery {
        let mut delivery = Delivery::mock(
            1,
            topology::REQUESTS.into(),
            routing_key.into(),
            false,
            Vec::new(),
        );
        delivery.properties = BasicProperties::default().with_headers(headers);
        delivery
    }

    fn with_copies(routing_key: &str, copies: &[&str]) -> Delivery {
        let mut keys = FieldArray::default();
        for copy in copies {
            keys.push(AMQPValue::LongString((*copy).into()));
        }
        let mut headers = FieldTable::default();
        headers.insert("CC".into(), AMQPValue::FieldArray(keys));
        delivery(routing_key, headers)
    }

    #[test]
    fn the_copies_of_a_message_are_distinguished_from_the_message() {
        let queues = (0..topology::LANES).map(topology::lane_queue);
        let queues: Vec<String> = queues.chain([topology::REQUESTS.to_owned()]).collect();
        let lanes: Vec<String> = (0..topology::LANES)
            .map(|lane| format!("otp.requested.{lane:03}"))
            .collect();
        let copies: Vec<&str> = lanes.iter().map(String::as_str).collect();
        let kept = |message: &Delivery| {
            let kept = queues.iter().filter(|queue| !is_copy(message, queue));
            kept.map(|queue| queue.rsplit('.').next().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(&with_copies("otp.requested", &copies)), ["requests"]);
        assert_eq!(
            kept(&with_copies("otp.requested.000", &copies)),
            ["000", "requests"]
        );
        // A message of a lane may be in the lane's queue of another number of queues.
        assert_eq!(
            kept(&with_copies("otp.requested.042", &copies)),
            ["000", "002", "010", "042", "requests"]
        );
        // The routing key leads to no queue, so the first copy is the message.
        assert_eq!(
            kept(&with_copies(
                "elsewhere",
                &["also.elsewhere", "otp.requested"]
            )),
            ["requests"]
        );
        assert_eq!(
            kept(&delivery("otp.requested.042", FieldTable::default())).len(),
            129
        );
    }

    #[test]
    fn earlier_deliveries_are_counted_by_the_broker() {
        assert_eq!(earlier_deliveries(&delivery("", FieldTable::default())), 0);
        for count in [AMQPValue::LongLongInt(4), AMQPValue::LongInt(4)] {
            let mut headers = FieldTable::default();
            headers.insert("x-delivery-count".into(), count);
            assert_eq!(earlier_deliveries(&delivery("", headers)), 4);
        }
    }
}
