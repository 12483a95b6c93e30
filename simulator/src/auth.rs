//! Authentication of requests: HTTP Basic with an account's SID and auth token, or with an API key.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::account::{Account, Accounts};
use crate::api_error::ApiError;

/// Authorizes a request to `/Accounts/{sid}/…`, and returns the account.
///
/// # Errors
/// 401 with 20003 for wrong credentials and for a suspended account; 404 with 20404 if the
/// credentials are another account's.
pub(crate) fn authorize(
    accounts: &Accounts,
    sid: &str,
    headers: &HeaderMap,
) -> Result<Arc<Account>, ApiError> {
    let account = authenticate(accounts, headers)?;
    if account.suspended {
        return Err(ApiError::unauthenticated());
    }
    check_sid(account, sid)
}

/// Authorizes a request to read the account itself, which works while it is suspended.
///
/// # Errors
/// 401 with 20003 for wrong credentials; 404 with 20404 if the credentials are another account's.
pub(crate) fn authorize_even_suspended(
    accounts: &Accounts,
    sid: &str,
    headers: &HeaderMap,
) -> Result<Arc<Account>, ApiError> {
    check_sid(authenticate(accounts, headers)?, sid)
}

/// Authenticates a request whose path names no account. A suspended account passes.
///
/// # Errors
/// 401 with 20003 for wrong credentials, and for those of another region.
pub(crate) fn authenticate(
    accounts: &Accounts,
    headers: &HeaderMap,
) -> Result<Arc<Account>, ApiError> {
    let (user, password) = credentials(headers).ok_or_else(ApiError::unauthenticated)?;
    let account = accounts
        .authenticate(&user, &password)
        .ok_or_else(ApiError::unauthenticated)?;
    let right_region = region(headers).is_none_or(|region| region == account.region);
    right_region
        .then_some(account)
        .ok_or_else(ApiError::unauthenticated)
}

/// The region that the request is for, by the Twilio host that the client meant: `api.twilio.com`
/// is us1, `api.dublin.ie1.twilio.com` is ie1. `None` where the client names no host.
fn region(headers: &HeaderMap) -> Option<String> {
    let host = headers.get("x-forwarded-host")?.to_str().ok()?;
    let mut labels = host.strip_suffix(".twilio.com")?.split('.').skip(1);
    Some(match (labels.next(), labels.next()) {
        (Some(_edge), Some(region)) => region.to_owned(),
        _ => "us1".to_owned(),
    })
}

fn check_sid(account: Arc<Account>, sid: &str) -> Result<Arc<Account>, ApiError> {
    if account.sid != sid {
        return Err(ApiError::not_found(&format!("/2010-04-01/Accounts/{sid}")));
    }
    Ok(account)
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};

    use super::*;

    const SID: &str = "AC00000000000000000000000000000001";

    fn authorized_sid(
        credentials: &str,
        path: &str,
        suspended: bool,
    ) -> Result<String, (StatusCode, Option<u32>)> {
        let mut accounts = Accounts::default();
        let mut account = Account::new(SID, "token");
        account.suspended = suspended;
        accounts.put(account);
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(credentials));
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_str(&value).unwrap(),
        );
        authorize(&accounts, path, &headers)
            .map(|account| account.sid.clone())
            .map_err(|error| (error.status, error.code))
    }

    #[test]
    fn the_right_token_authorizes_its_own_account_only() {
        let right = format!("{SID}:token");
        assert_eq!(authorized_sid(&right, SID, false), Ok(SID.to_owned()));
        assert_eq!(
            authorized_sid(&right, "AC9", false),
            Err((StatusCode::NOT_FOUND, Some(20404)))
        );
    }

    #[test]
    fn credentials_work_in_their_own_region_only() {
        let mut accounts = Accounts::default();
        accounts.put(Account {
            region: "ie1".to_owned(),
            ..Account::new(SID, "token")
        });
        let authorized = |host: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", STANDARD.encode(format!("{SID}:token")));
            headers.insert(
                header::AUTHORIZATION,
                HeaderValue::from_str(&value).unwrap(),
            );
            headers.extend(host.map(|host| {
                (
                    header::HeaderName::from_static("x-forwarded-host"),
                    HeaderValue::from_static(host),
                )
            }));
            authorize(&accounts, SID, &headers).is_ok()
        };
        assert!(authorized(None) && authorized(Some("api.dublin.ie1.twilio.com")));
        for other in ["api.twilio.com", "api.sydney.au1.twilio.com"] {
            assert!(!authorized(Some(other)), "{other}");
        }
    }

    #[test]
    fn a_suspended_account_can_be_read_and_nothing_else() {
        let mut accounts = Accounts::default();
        accounts.put(Account {
            suspended: true,
            ..Account::new(SID, "token")
        });
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(format!("{SID}:token")));
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_str(&value).unwrap(),
        );
        assert!(authorize_even_suspended(&accounts, SID, &headers).is_ok());
        assert!(authorize(&accounts, SID, &headers).is_err());
    }

    #[test]
    fn wrong_credentials_and_suspended_accounts_are_refused_alike() {
        let unauthenticated = Err((StatusCode::UNAUTHORIZED, Some(20003)));
        assert_eq!(
            authorized_sid(&format!("{SID}:wrong"), SID, false),
            unauthenticated
        );
        assert_eq!(
            authorized_sid(&format!("{SID}:token"), SID, true),
            unauthenticated
        );
        assert_eq!(authorized_sid("no colon", SID, false), unauthenticated);
        let none = authorize(&Accounts::default(), SID, &HeaderMap::new());
        assert_eq!(none.unwrap_err(), ApiError::unauthenticated());
    }
}
