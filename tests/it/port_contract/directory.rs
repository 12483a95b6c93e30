//! The tenants' settings, as workers read them.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::ports::{Directory, DirectoryError};
use voice_otp::settings::{Draft, VoiceSettings};
use voice_otp_schemas::TenantId;
use voice_otp_store::{Directory as PgDirectory, Health, Keyring, settings};

use crate::database::{Database, keys};
use crate::memory::clock::ManualClock;
use crate::memory::sample::{account, draft, limits};
use crate::memory::{MemoryDirectory, MemoryLedger};

/// A directory under test, and the store behind it, to which an administrator writes.
trait Stage {
    type Directory: Directory;

    fn directory(&self) -> &Self::Directory;

    async fn save(&self, tenant: &str, draft: &Draft);

    async fn delete(&self, tenant: &str);
}

struct MemoryStage {
    directory: MemoryDirectory,
}

impl MemoryStage {
    fn new() -> Self {
        Self {
            directory: MemoryLedger::new(ManualClock::new().reader(), limits()).directory(),
        }
    }
}

impl Stage for MemoryStage {
    type Directory = MemoryDirectory;

    fn directory(&self) -> &MemoryDirectory {
        &self.directory
    }

    async fn save(&self, tenant: &str, draft: &Draft) {
        self.directory.save(tenant, draft);
    }

    async fn delete(&self, tenant: &str) {
        self.directory.delete(&id(tenant));
    }
}

/// The directory on Postgres, notified of changes as a worker's is.
struct PgStage {
    database: Database,
    keys: Keyring,
    directory: PgDirectory,
    stop: CancellationToken,
}

impl PgStage {
    async fn new() -> Self {
        let (database, keys, stop) = (Database::fresh().await, keys(), CancellationToken::new());
        let directory = PgDirectory::new(database.pool.clone(), keys.clone(), Health::default());
        TaskTracker::new().spawn(directory.clone().listen(database.url.clone(), stop.clone()));
        Self {
            database,
            keys,
            directory,
            stop,
        }
    }

    async fn close(self) {
        self.stop.cancel();
        self.database.drop_schema().await;
    }
}

impl Stage for PgStage {
    type Directory = PgDirectory;

    fn directory(&self) -> &PgDirectory {
        &self.directory
    }

    async fn save(&self, tenant: &str, draft: &Draft) {
        self.database.save_tenant(&self.keys, tenant, draft).await;
    }

    async fn delete(&self, tenant: &str) {
        assert!(
            settings::delete(&self.database.pool, &id(tenant))
                .await
                .expect("the settings can be deleted"),
            "the settings existed"
        );
    }
}

on_both!(super::MemoryStage, super::PgStage:
    a_tenant_without_settings_is_missing_and_one_requested_twice_is_found_twice,
    a_change_takes_effect_within_a_second,
    a_deletion_takes_effect_within_a_second_and_versions_continue_after_it,
    a_changed_rate_applies_to_every_tenant_of_the_account,
    a_tenant_shares_its_accounts_rate_once_its_credentials_are_verified,
    verifying_older_settings_does_not_verify_the_present_ones,
    new_credentials_are_unverified_and_a_new_locale_keeps_them_verified,
);

fn id(tenant: &str) -> TenantId {
    TenantId::parse(tenant).unwrap()
}

async fn find<S: Stage>(stage: &S, tenant: &str) -> Option<Arc<VoiceSettings>> {
    let found = stage
        .directory()
        .settings(&[id(tenant)])
        .await
        .expect("the directory can be read")
        .remove(&id(tenant));
    found.map(|settings| settings.expect("the settings can be read"))
}

/// Waits for up to a second until the directory returns the wanted settings.
async fn eventually<S: Stage>(
    stage: &S,
    tenant: &str,
    wanted: impl Fn(Option<&VoiceSettings>) -> bool,
) {
    let found = async {
        while !wanted(find(stage, tenant).await.as_deref()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), found)
        .await
        .expect("a change takes effect within a second");
}

/// Reads the settings often enough that they are cached, if there is a cache.
async fn warm<S: Stage>(stage: &S, tenant: &str) {
    for _ in 0..20 {
        assert!(find(stage, tenant).await.is_some());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn in_locale(locale: &str) -> Draft {
    Draft {
        default_locale: Some(locale.to_owned()),
        ..draft(1, 1.0)
    }
}

fn speaks(settings: Option<&VoiceSettings>, locale: &str) -> bool {
    settings
        .and_then(|settings| settings.default_locale.as_ref())
        .is_some_and(|found| found.as_str() == locale)
}

async fn a_tenant_without_settings_is_missing_and_one_requested_twice_is_found_twice<S: Stage>(
    stage: &mut S,
) {
    stage.save("acme", &draft(1, 1.0)).await;
    for _ in 0..3 {
        let ids = [id("acme"), id("acme"), id("unknown"), id("acme")];
        let found = stage.directory().settings(&ids).await.unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&id("acme")]);
        assert_eq!(found[&id("acme")].as_ref().unwrap().account_sid, account(1));
    }
    assert!(stage.directory().settings(&[]).await.unwrap().is_empty());
}

async fn a_change_takes_effect_within_a_second<S: Stage>(stage: &mut S) {
    stage.save("acme", &in_locale("en-US")).await;
    warm(stage, "acme").await;
    let before = find(stage, "acme").await.unwrap().version;
    stage.save("acme", &in_locale("es-ES")).await;
    eventually(stage, "acme", |settings| speaks(settings, "es-ES")).await;
    assert!(
        find(stage, "acme").await.unwrap().version > before,
        "a change is a newer version"
    );
}

async fn a_deletion_takes_effect_within_a_second_and_versions_continue_after_it<S: Stage>(
    stage: &mut S,
) {
    stage.save("acme", &draft(1, 1.0)).await;
    warm(stage, "acme").await;
    let before = find(stage, "acme").await.unwrap().version;
    stage.delete("acme").await;
    eventually(stage, "acme", |settings| settings.is_none()).await;
    stage.save("acme", &draft(1, 1.0)).await;
    eventually(stage, "acme", |settings| {
        settings.is_some_and(|settings| settings.version > before)
    })
    .await;
}

async fn a_changed_rate_applies_to_every_tenant_of_the_account<S: Stage>(stage: &mut S) {
    stage.save("acme", &draft(1, 1.0)).await;
    stage.save("bell", &draft(1, 1.0)).await;
    stage.save("coop", &draft(2, 1.0)).await;
    warm(stage, "bell").await;
    stage.save("acme", &draft(1, 7.5)).await;
    let pace = |settings: Option<&VoiceSettings>, pace: f64| {
        settings.is_some_and(|found| (found.calls_per_second - pace * 1.01).abs() < 1e-9)
    };
    eventually(stage, "bell", |settings| pace(settings, 7.5)).await;
    eventually(stage, "acme", |settings| pace(settings, 7.5)).await;
    assert!(
        pace(find(stage, "coop").await.as_deref(), 1.0),
        "another account's rate stays"
    );
}

async fn a_tenant_shares_its_accounts_rate_once_its_credentials_are_verified<S: Stage>(
    stage: &mut S,
) {
    stage.save("acme", &draft(1, 1.0)).await;
    stage.save("bell", &draft(1, 1.0)).await;
    let acme = find(stage, "acme").await.unwrap();
    let shared = account(1).as_str().to_owned();
    assert_ne!(
        acme.pace_key, shared,
        "an account's SID is no secret, so claiming one must not slow its owner"
    );
    assert_ne!(acme.pace_key, find(stage, "bell").await.unwrap().pace_key);
    stage
        .directory()
        .mark_credentials_verified(&acme)
        .await
        .unwrap();
    eventually(stage, "acme", |settings| {
        settings.is_some_and(|settings| settings.pace_key == shared)
    })
    .await;
    assert!(
        find(stage, "acme").await.unwrap().version > acme.version,
        "a plan made with the older version is stale"
    );
    assert_ne!(
        find(stage, "bell").await.unwrap().pace_key,
        shared,
        "another tenant's credentials stay unverified"
    );
}

async fn verifying_older_settings_does_not_verify_the_present_ones<S: Stage>(stage: &mut S) {
    stage.save("acme", &draft(1, 1.0)).await;
    let older = find(stage, "acme").await.unwrap();
    stage.save("acme", &draft(2, 1.0)).await;
    eventually(stage, "acme", |settings| {
        settings.is_some_and(|settings| settings.account_sid == account(2))
    })
    .await;
    stage
        .directory()
        .mark_credentials_verified(&older)
        .await
        .unwrap();
    let present = find(stage, "acme").await.unwrap();
    assert!(
        ![account(1).as_str(), account(2).as_str()].contains(&present.pace_key.as_str()),
        "{}",
        present.pace_key
    );
}

async fn new_credentials_are_unverified_and_a_new_locale_keeps_them_verified<S: Stage>(
    stage: &mut S,
) {
    stage.save("acme", &in_locale("en-US")).await;
    let acme = find(stage, "acme").await.unwrap();
    stage
        .directory()
        .mark_credentials_verified(&acme)
        .await
        .unwrap();
    stage.save("acme", &in_locale("es-ES")).await;
    eventually(stage, "acme", |settings| speaks(settings, "es-ES")).await;
    assert_eq!(
        find(stage, "acme").await.unwrap().pace_key,
        account(1).as_str()
    );
    let other = Draft {
        auth_token: SecretString::from("another-token-altogether"),
        ..in_locale("en-US")
    };
    stage.save("acme", &other).await;
    eventually(stage, "acme", |settings| speaks(settings, "en-US")).await;
    assert_ne!(
        find(stage, "acme").await.unwrap().pace_key,
        account(1).as_str()
    );
}

#[tokio::test]
async fn secrets_under_a_missing_key_are_distinguished_from_missing_settings() {
    let (database, keys) = (Database::fresh().await, keys());
    database.save_tenant(&keys, "acme", &draft(1, 1.0)).await;
    let others = Keyring::parse(&Keyring::generate("other")).unwrap();
    let directory = PgDirectory::new(database.pool.clone(), others, Health::default());
    let found = directory.settings(&[id("acme")]).await.unwrap();
    assert!(matches!(&found[&id("acme")], Err(DirectoryError::UnknownKey(key)) if key == "test"));
    database.drop_schema().await;
}
