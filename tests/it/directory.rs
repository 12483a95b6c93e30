//! The tenants' settings, as workers see them.

use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::ports::{Directory as _, DirectoryError};
use voice_otp::settings::Draft;
use voice_otp_schemas::TenantId;
use voice_otp_store::Directory;

use crate::database::{Database, keys};

fn draft(locale: &str) -> Draft {
    Draft {
        account_sid: format!("AC{}", "1".repeat(32)),
        auth_token: SecretString::from("0123456789abcdef"),
        from: "+14155552671".to_owned(),
        default_locale: Some(locale.to_owned()),
        enabled: true,
        ..Draft::default()
    }
}

#[tokio::test]
async fn a_change_counts_within_a_second_and_a_tenant_asked_for_twice_is_found_twice() {
    let (database, keys) = (Database::fresh().await, keys());
    database.save_tenant(&keys, "acme", &draft("en-US")).await;
    let directory = Directory::new(database.pool.clone(), keys.clone());
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(directory.clone().listen(database.url.clone(), stop.clone()));
    let acme = TenantId::parse("acme").unwrap();
    let nobody = TenantId::parse("nobody").unwrap();
    let asked = [acme.clone(), acme.clone(), nobody.clone(), acme.clone()];
    let locale = async || {
        let found = directory.settings(&asked).await.unwrap();
        assert!(!found.contains_key(&nobody));
        found[&acme].as_ref().unwrap().default_locale.as_ref().unwrap().as_str().to_owned()
    };
    // Asked again and again, so that the cache is in use once it may be.
    for _ in 0..20 {
        assert_eq!(locale().await, "en-US");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    database.save_tenant(&keys, "acme", &draft("es-ES")).await;
    let changed = async {
        while locale().await != "es-ES" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), changed).await.expect("the change counts within a second");
    stop.cancel();
    database.drop_schema().await;
}

#[tokio::test]
async fn secrets_under_a_key_that_is_not_here_are_told_from_no_settings() {
    let (database, keys) = (Database::fresh().await, keys());
    database.save_tenant(&keys, "acme", &draft("en-US")).await;
    let others = voice_otp_store::Keyring::parse(&voice_otp_store::Keyring::generate("other")).unwrap();
    let directory = Directory::new(database.pool.clone(), others);
    let acme = TenantId::parse("acme").unwrap();
    let found = directory.settings(std::slice::from_ref(&acme)).await.unwrap();
    assert!(matches!(&found[&acme], Err(DirectoryError::UnknownKey(key)) if key == "test"));
    database.drop_schema().await;
}
