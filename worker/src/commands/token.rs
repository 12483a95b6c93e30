//! `voice-otp token`.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;
use voice_otp_schemas::TenantId;
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::access::{self, Role, Token as Known};
use voice_otp_store::audit::{self, COMMAND_LINE};

use crate::cli::{Database, Token};
use crate::config::Checks;
use crate::telemetry::say;
use crate::verb::{Failed, publish_clock, tenant::open};

const LONGEST_NAME: usize = 100;

pub(super) async fn run(verb: Token) -> Result<(), Failed> {
    match verb {
        Token::Create {
            role,
            tenant,
            expires,
            name,
            database,
        } => create(&role, tenant.as_deref(), &expires, name.trim(), &database).await,
        Token::List { json, database } => list(json, &database).await,
        Token::Revoke { id, database } => revoke(&id, &database).await,
    }
}

async fn create(
    role: &str,
    tenant: Option<&str>,
    expires: &str,
    name: &str,
    database: &Database,
) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let role = match (role, tenant) {
        ("operator", None) => Some(Role::Operator),
        ("operator", Some(_)) => {
            checks.wrong("--tenant: an operator's token is for every tenant");
            None
        }
        ("tenant-admin", Some(tenant)) => TenantId::parse(tenant)
            .map(Role::TenantAdmin)
            .map_err(|error| checks.wrong(format!("--tenant: {error}")))
            .ok(),
        ("tenant-admin", None) => {
            checks.wrong("--tenant is missing: whose administrator?");
            None
        }
        _ => {
            checks.wrong("--role: operator or tenant-admin");
            None
        }
    };
    let life = checks.duration(
        "--expires",
        expires,
        Duration::from_mins(1),
        access::LONGEST,
    );
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control)
    {
        checks.wrong("--name: 1 to 100 characters");
    }
    let url = checks.database(database);
    let (role, life, url) = checks.done(
        role.zip(life)
            .zip(url)
            .map(|((role, life), url)| (role, life, url)),
    )?;
    let pool = open(Checks::default(), Some(url)).await?;
    let (id, text) = access::create(&pool, name, &role, life)
        .await
        .context("make the token")?;
    let of = match &role {
        Role::Operator => None,
        Role::TenantAdmin(tenant) => Some(tenant),
    };
    let detail = json!({ "id": id, "name": name, "role": role.as_str() });
    audit::write(&pool, COMMAND_LINE, of, "token.created", &detail)
        .await
        .context("write the audit log")?;
    say(text.expose_secret())?;
    Ok(())
}

async fn list(as_json: bool, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let url = checks.database(database);
    let pool = open(checks, url).await?;
    let tokens = access::list(&pool).await.context("list the tokens")?;
    let of = |token: &Known| match &token.role {
        Role::Operator => None,
        Role::TenantAdmin(tenant) => Some(tenant.to_string()),
    };
    if as_json {
        let shown = |token: &Known| {
            json!({
                "id": token.id, "name": token.name, "role": token.role.as_str(), "tenant_id": of(token),
                "created_at": rfc3339(token.created_at), "expires_at": rfc3339(token.expires_at),
                "revoked_at": token.revoked_at.map(rfc3339), "used_at": token.used_at.map(rfc3339),
            })
        };
        let all: Vec<_> = tokens.iter().map(shown).collect();
        say(&serde_json::to_string_pretty(&all).context("write JSON")?)?;
        return Ok(());
    }
    let now = publish_clock();
    for token in &tokens {
        let state = match token.revoked_at {
            Some(_) => "revoked",
            None if token.expires_at <= now => "expired",
            None => "good",
        };
        say(&format!(
            "{}  {:<8} {:<12} {:<20} until {}  {}",
            token.id,
            state,
            token.role.as_str(),
            of(token).unwrap_or_default(),
            rfc3339(token.expires_at),
            token.name
        ))?;
    }
    Ok(())
}

async fn revoke(id: &str, database: &Database) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let id = Uuid::try_parse(id)
        .map_err(|_| checks.wrong("the token's id: as voice-otp token list shows it"))
        .ok();
    let url = checks.database(database);
    let (id, url) = checks.done(id.zip(url))?;
    let pool = open(Checks::default(), Some(url)).await?;
    if !access::revoke(&pool, id)
        .await
        .context("revoke the token")?
    {
        return Err(Failed::Error(anyhow!("there is no good token {id}")));
    }
    audit::write(
        &pool,
        COMMAND_LINE,
        None,
        "token.revoked",
        &json!({ "id": id }),
    )
    .await
    .context("write the audit log")?;
    say(&format!("revoked {id}"))?;
    Ok(())
}
