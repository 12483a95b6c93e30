//! `To` and `From`.

use crate::account::Account;
use crate::api_error::ApiError;
use crate::number::is_e164;
use crate::params::Params;

/// Reads and checks `To` and `From`. Refuses the magic numbers of Twilio's test credentials with
/// their codes (<https://www.twilio.com/docs/iam/test-credentials#test-calls>).
pub(super) fn parse<'a>(
    params: &'a Params,
    account: &Account,
) -> Result<(&'a str, &'a str), ApiError> {
    let to = params.single("To")?.filter(|to| !to.is_empty());
    let to = to.ok_or_else(|| ApiError::bad_request(21201, "No 'To' number is specified"))?;
    let from = params.single("From")?.filter(|from| !from.is_empty());
    let from =
        from.ok_or_else(|| ApiError::bad_request(21213, "A 'From' phone number is required"))?;
    if !is_e164(to) {
        return Err(ApiError::bad_request(
            21211,
            format!("The phone number you are attempting to call, {to}, is not valid."),
        ));
    }
    if !is_e164(from) || from == "+15005550001" {
        return Err(ApiError::bad_request(
            21212,
            format!("The source phone number provided, {from}, is not valid."),
        ));
    }
    if !account.may_call_from(from) {
        let message = format!(
            "The source phone number provided, {from}, is not yet verified for your account. You \
             may only make calls from phone numbers that you've verified or purchased from Twilio."
        );
        return Err(ApiError::bad_request(21210, message));
    }
    if to == from {
        return Err(ApiError::bad_request(
            21211,
            format!("{to} cannot call itself"),
        ));
    }
    if !account.may_call(to) {
        return Err(not_authorized(to));
    }
    match to {
        "+15005550001" => Err(ApiError::bad_request(
            21217,
            format!("Phone number {to} does not appear to be valid"),
        )),
        "+15005550002" => Err(ApiError::bad_request(
            21214,
            format!("The phone number {to} cannot be reached"),
        )),
        "+15005550003" => Err(not_authorized(to)),
        "+15005550004" => Err(ApiError::bad_request(
            21216,
            format!("Call to {to} was blocked by Twilio"),
        )),
        _ => Ok((to, from)),
    }
}

fn not_authorized(to: &str) -> ApiError {
    ApiError::bad_request(21215, format!("Account not authorized to call {to}"))
}
