//! The request of a test call: a real call with a random code.

use std::time::Duration;

use rand::RngExt as _;
use serde_json::json;
use uuid::Uuid;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::{Context, DeliveryId, Locale, OtpCode, PhoneNumber, Refused, TenantId};

use crate::clock;

/// How long the code of a test call is valid.
const VALIDITY: Duration = Duration::from_mins(3);

/// A request with a random code of six digits. Its context marks it as a test call, so that
/// consumers can leave it out of their statistics.
///
/// # Errors
/// [`Refused`] never occurs in practice: the generated id, code and context are valid, but their
/// types are only made by parsing.
pub fn request(
    tenant_id: TenantId,
    to: PhoneNumber,
    locale: Option<Locale>,
) -> Result<Requested, Refused> {
    let code = format!("{:06}", rand::rng().random_range(0..1_000_000));
    let now = clock::now();
    Ok(Requested {
        tenant_id,
        delivery_id: DeliveryId::parse(&format!("test-call-{}", Uuid::new_v4()))?,
        to,
        code: OtpCode::parse(&code)?,
        expires_at: now + VALIDITY,
        locale,
        user_ref: None,
        extension: None,
        context: Context::from_json(&json!({ "test_call": "true" }))?,
        time: Some(now),
        trace: Trace::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_call_is_marked_and_has_a_code_of_six_digits_that_is_valid_for_three_minutes() {
        let tenant = TenantId::parse("acme").unwrap();
        let to = PhoneNumber::parse("+12125550142").unwrap();
        let request = request(tenant, to, None).unwrap();
        assert!(request.context.is_test_call());
        let code = request.code.expose();
        assert!(code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(
            request.expires_at,
            request.time.unwrap() + Duration::from_mins(3)
        );
    }

    #[test]
    fn two_test_calls_are_two_deliveries() {
        let one = || {
            let tenant = TenantId::parse("acme").unwrap();
            let to = PhoneNumber::parse("+12125550142").unwrap();
            request(tenant, to, None).unwrap()
        };
        assert_ne!(one().key(), one().key());
    }
}
