//! A status or a price as one line of text, for people.

use voice_otp_publisher::statuses::Received;
use voice_otp_schemas::status::StatusEvent;

/// The line of an event.
pub(super) fn received(received: &Received) -> String {
    match received {
        Received::Status(event) => status(event),
        Received::Price(event) => {
            let data = &event.data;
            format!(
                "{}  {:<13} {:<24} {:<16} {}  {} {}",
                time_of_day(&event.time),
                data.tenant_id.as_str(),
                data.delivery_id.as_str(),
                data.to_masked.as_deref().unwrap_or(""),
                console::style(format!("{:<9}", "price")).dim(),
                data.price,
                data.price_unit,
            )
        }
    }
}

/// The line of a status.
pub(super) fn status(event: &StatusEvent) -> String {
    let data = &event.data;
    let style = match (data.is_final, data.status.as_str()) {
        (true, "delivered") => console::Style::new().green(),
        (true, "busy" | "no_answer" | "hung_up" | "voicemail" | "cancelled" | "expired") => {
            console::Style::new().yellow()
        }
        (true, _) => console::Style::new().red(),
        (false, "deferred") => console::Style::new().magenta(),
        (false, _) => console::Style::new().cyan(),
    };
    let mut line = format!(
        "{}  {:<13} {:<24} {:<16} {}",
        time_of_day(&event.time),
        data.tenant_id.as_str(),
        data.delivery_id.as_str(),
        data.to_masked.as_deref().unwrap_or(""),
        style.apply_to(format!("{:<9}", data.status))
    );
    if data.attempt > 1 {
        line.push_str(&format!("  attempt {}", data.attempt));
    }
    if let Some(duration) = data.call_duration_s {
        line.push_str(&format!("  {duration} s"));
    }
    if data.test {
        line.push_str("  test");
    }
    if let Some(reason) = &data.reason {
        line.push_str(&format!("  {}: {}", reason.code.as_str(), reason.message));
    }
    line
}

/// The time of day of an RFC 3339 time, with milliseconds; the date is left out.
fn time_of_day(time: &str) -> &str {
    time.split_once('T')
        .map_or(time, |(_, time)| time.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(data: &serde_json::Value) -> String {
        let mut event = json!({
            "tenant_id": "acme", "delivery_id": "login-4711", "to_masked": "+1212*****42",
            "attempt": 1, "sequence": 1, "test": false, "final": false, "timings": {},
        });
        for (name, value) in data.as_object().unwrap() {
            event[name] = value.clone();
        }
        let event = StatusEvent::new(
            "2026-03-04T17:35:09.262Z".to_owned(),
            serde_json::from_value(event).unwrap(),
        );
        let line = status(&event);
        // The last column is padded.
        console::strip_ansi_codes(&line).trim_end().to_owned()
    }

    #[test]
    fn a_status_is_one_line_of_aligned_columns() {
        let lines = [
            line(&json!({ "status": "accepted" })),
            line(&json!({
                "status": "deferred", "attempt": 1, "call_duration_s": 0,
                "reason": {
                    "code": "redial", "class": "destination", "message": "the line was busy",
                },
            })),
            line(&json!({
                "status": "delivered", "attempt": 2, "call_duration_s": 37, "final": true,
                "test": true,
            })),
        ];
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!("status_line", lines.join("\n"));
        });
    }
}
