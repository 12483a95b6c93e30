//! Who a request comes from: HTTP Basic with an account's SID and token, or with an API key.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::account::{Account, Directory};
use super::refusal::Refusal;

/// The account that a request to `/Accounts/{sid}/…` may act for.
///
/// # Errors
/// 401 with 20003 for wrong credentials and for a suspended account; 404 with 20404 when the credentials are good for
/// another account than the path's.
pub(crate) fn account(
    directory: &Directory,
    sid: &str,
    headers: &HeaderMap,
) -> Result<Arc<Account>, Refusal> {
    let account = anybody(directory, headers)?;
    if account.suspended {
        return Err(Refusal::unauthenticated());
    }
    own(account, sid)
}

/// The account itself, which may be read while it is suspended.
///
/// # Errors
/// As for [`account`].
pub(crate) fn even_suspended(
    directory: &Directory,
    sid: &str,
    headers: &HeaderMap,
) -> Result<Arc<Account>, Refusal> {
    own(anybody(directory, headers)?, sid)
}

/// Whoever signs in, where no account stands in the path.
///
/// # Errors
/// 401 with 20003 for wrong credentials, and for right ones of another region.
pub(crate) fn anybody(directory: &Directory, headers: &HeaderMap) -> Result<Arc<Account>, Refusal> {
    let (user, password) = credentials(headers).ok_or_else(Refusal::unauthenticated)?;
    let account = directory
        .sign_in(&user, &password)
        .ok_or_else(Refusal::unauthenticated)?;
    let here = region(headers).is_none_or(|region| region == account.region);
    here.then_some(account).ok_or_else(Refusal::unauthenticated)
}

/// The region that was meant: `api.twilio.com` is us1, `api.dublin.ie1.twilio.com` is ie1.
fn region(headers: &HeaderMap) -> Option<String> {
    let host = headers.get("x-forwarded-host")?.to_str().ok()?;
    let mut labels = host.strip_suffix(".twilio.com")?.split('.').skip(1);
    Some(match (labels.next(), labels.next()) {
        (Some(_edge), Some(region)) => region.to_owned(),
        _ => "us1".to_owned(),
    })
}

fn own(account: Arc<Account>, sid: &str) -> Result<Arc<Account>, Refusal> {
    if account.sid != sid {
        return Err(Refusal::not_found(&format!("/2010-04-01/Accounts/{sid}")));
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

    fn ask(
        credentials: &str,
        path: &str,
        suspended: bool,
    ) -> Result<String, (StatusCode, Option<u32>)> {
        let mut directory = Directory::default();
        let mut account = Account::new(SID, "token");
        account.suspended = suspended;
        directory.put(account);
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(credentials));
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_str(&value).unwrap(),
        );
        super::account(&directory, path, &headers)
            .map(|account| account.sid.clone())
            .map_err(|refusal| (refusal.status, refusal.code))
    }

    #[test]
    fn the_right_token_opens_its_own_account_only() {
        let good = format!("{SID}:token");
        assert_eq!(ask(&good, SID, false), Ok(SID.to_owned()));
        assert_eq!(
            ask(&good, "AC9", false),
            Err((StatusCode::NOT_FOUND, Some(20404)))
        );
    }

    #[test]
    fn credentials_are_good_in_their_own_region_alone() {
        let mut directory = Directory::default();
        directory.put(Account {
            region: "ie1".to_owned(),
            ..Account::new(SID, "token")
        });
        let ask = |host: Option<&'static str>| {
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
            super::account(&directory, SID, &headers).is_ok()
        };
        assert!(ask(None) && ask(Some("api.dublin.ie1.twilio.com")));
        assert!(!ask(Some("api.twilio.com")) && !ask(Some("api.sydney.au1.twilio.com")));
    }

    #[test]
    fn a_suspended_account_can_be_read_and_does_nothing() {
        let mut directory = Directory::default();
        directory.put(Account {
            suspended: true,
            ..Account::new(SID, "token")
        });
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(format!("{SID}:token")));
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_str(&value).unwrap(),
        );
        assert!(even_suspended(&directory, SID, &headers).is_ok());
        assert!(super::account(&directory, SID, &headers).is_err());
    }

    #[test]
    fn wrong_credentials_and_suspended_accounts_are_refused_alike() {
        let unauthenticated = Err((StatusCode::UNAUTHORIZED, Some(20003)));
        assert_eq!(ask(&format!("{SID}:wrong"), SID, false), unauthenticated);
        assert_eq!(ask(&format!("{SID}:token"), SID, true), unauthenticated);
        assert_eq!(ask("no colon", SID, false), unauthenticated);
        let none = super::account(&Directory::default(), SID, &HeaderMap::new());
        assert_eq!(none.unwrap_err(), Refusal::unauthenticated());
    }
}
