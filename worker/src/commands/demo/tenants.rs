//! The demo's tenants and their accounts in the simulator.

use anyhow::{Context as _, anyhow};
use secrecy::SecretString;
use voice_otp::settings::Draft;
use voice_otp::settings::policy::{RedialOutcome, RedialRule, Voicemail};
use voice_otp::speech::EVERY_LOCALE;
use voice_otp_schemas::TenantId;
use voice_otp_simulator::Account;
use voice_otp_store::settings;

use super::Servers;
use super::cases::{ACME, GLOBEX, INITECH, UMBRELLA};

struct Tenant {
    id: &'static str,
    account_sid: &'static str,
    auth_token: &'static str,
    from: &'static str,
    calls_per_second: f64,
    test_mode: bool,
}

/// The accounts and tokens are valid in the simulator only.
const TENANTS: [Tenant; 4] = [
    Tenant {
        id: ACME,
        account_sid: "ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        auth_token: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        from: "+12025550190",
        calls_per_second: 10.0,
        test_mode: false,
    },
    Tenant {
        id: GLOBEX,
        account_sid: "ACbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        auth_token: "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        from: "+34911230067",
        calls_per_second: 1.0,
        test_mode: false,
    },
    Tenant {
        id: INITECH,
        account_sid: "ACcccccccccccccccccccccccccccccccc",
        auth_token: "cccccccccccccccccccccccccccccccc",
        from: "+12025550192",
        calls_per_second: 1.0,
        test_mode: true,
    },
    Tenant {
        id: UMBRELLA,
        account_sid: "ACdddddddddddddddddddddddddddddddd",
        auth_token: "dddddddddddddddddddddddddddddddd",
        from: "+12025550193",
        calls_per_second: 10.0,
        test_mode: false,
    },
];

/// The accounts, as the simulator takes them.
pub(super) fn accounts() -> Vec<Account> {
    let account = |tenant: &Tenant| Account {
        numbers: vec![tenant.from.to_owned()],
        // Far above the workers' own rate limit: a queue at Twilio would hide a worker that exceeds
        // its limit.
        calls_per_second: 100.0,
        ..Account::new(tenant.account_sid, tenant.auth_token)
    };
    TENANTS.iter().map(account).collect()
}

pub(super) async fn save_tenants(servers: &Servers) -> anyhow::Result<()> {
    let (pool, keys) = (&servers.pool, &servers.keys);
    for tenant in &TENANTS {
        let draft = Draft {
            account_sid: tenant.account_sid.to_owned(),
            auth_token: SecretString::from(tenant.auth_token),
            from: tenant.from.to_owned(),
            enabled: true,
            test_mode: tenant.test_mode,
            ..Draft::default()
        };
        let draft = if tenant.id == UMBRELLA {
            with_policies(draft)
        } else {
            draft
        };
        let id = TenantId::parse(tenant.id).map_err(|error| anyhow!(error))?;
        let checked = draft
            .check(id)
            .map_err(|problems| anyhow!("{problems:?}"))?;
        settings::save(pool, keys, &checked, Some(tenant.calls_per_second))
            .await
            .context("save a tenant")?;
        // As after a first call: from then on the account's rate limit applies, not one of the
        // tenant's own.
        if let Some(saved) = settings::load_one(pool, keys, &checked.tenant_id)
            .await
            .context("read a tenant")?
        {
            settings::mark_credentials_verified(pool, &saved)
                .await
                .context("verify a tenant's credentials")?;
        }
    }
    Ok(())
}

/// A tenant whose calls ask for a key before they read the code, and that redials busy numbers.
fn with_policies(mut draft: Draft) -> Draft {
    draft.voicemail = Voicemail::PressKey;
    draft.redial.set(
        RedialOutcome::Busy,
        RedialRule {
            times: 1,
            after_s: 5,
        },
    );
    draft
        .speech
        .brands
        .insert(EVERY_LOCALE.to_owned(), "Umbrella Bank".to_owned());
    draft
}
