//! `voice-otp token`.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::ExposeSecret as _;
use serde_json::json;
use uuid::Uuid;
use voice_otp_publisher::clock;
use voice_otp_schemas::TenantId;
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::access::{self, Role};

use super::CommandError;
use super::database::{open, open_only, write_audit};
use crate::args::{Database, Token};
use crate::config::ArgumentChecker;
use crate::output::{print_json, print_line};

const MAX_NAME_CHARS: usize = 100;

pub(super) async fn run(command: Token) -> Result<(), CommandError> {
    match command {
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
) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let role = parse_role(&mut checker, role, tenant);
    let validity = checker.duration(
        "--expires",
        expires,
        Duration::from_mins(1),
        access::LONGEST,
    );
    let length = name.chars().count();
    if !(1..=MAX_NAME_CHARS).contains(&length) || name.chars().any(char::is_control) {
        checker.reject("--name: 1 to 100 characters");
    }
    let url = checker.database(database);
    let (role, validity, url) = checker.finish(|| Some((role?, validity?, url?)))?;
    let pool = open(&url).await?;
    let (id, text) = access::create(&pool, name, &role, validity)
        .await
        .context("create the token")?;
    let detail = json!({ "id": id, "name": name, "role": role.as_str() });
    write_audit(&pool, tenant_of(&role), "token.created", &detail).await?;
    print_line(text.expose_secret())?;
    Ok(())
}

fn parse_role(checker: &mut ArgumentChecker, role: &str, tenant: Option<&str>) -> Option<Role> {
    match (role, tenant) {
        ("operator", None) => Some(Role::Operator),
        ("operator", Some(_)) => {
            checker.reject("--tenant: an operator's token is valid for every tenant");
            None
        }
        ("tenant-admin", Some(tenant)) => checker
            .parse("--tenant", tenant, TenantId::parse)
            .map(Role::TenantAdmin),
        ("tenant-admin", None) => {
            checker.reject("--tenant is missing: a tenant-admin administers one tenant");
            None
        }
        _ => {
            checker.reject("--role: operator or tenant-admin");
            None
        }
    }
}

fn tenant_of(role: &Role) -> Option<&TenantId> {
    match role {
        Role::Operator => None,
        Role::TenantAdmin(tenant) => Some(tenant),
    }
}

async fn list(as_json: bool, database: &Database) -> Result<(), CommandError> {
    let pool = open_only(database).await?;
    let tokens = access::list(&pool).await.context("list the tokens")?;
    if as_json {
        let shown = |token: &access::Token| {
            json!({
                "id": token.id, "name": token.name, "role": token.role.as_str(),
                "tenant_id": tenant_of(&token.role),
                "created_at": rfc3339(token.created_at), "expires_at": rfc3339(token.expires_at),
                "revoked_at": token.revoked_at.map(rfc3339), "used_at": token.used_at.map(rfc3339),
            })
        };
        print_json(&tokens.iter().map(shown).collect::<Vec<_>>())?;
        return Ok(());
    }
    let now = clock::now();
    for token in &tokens {
        let state = match token.revoked_at {
            Some(_) => "revoked",
            None if token.expires_at <= now => "expired",
            None => "valid",
        };
        print_line(&format!(
            "{}  {:<8} {:<12} {:<20} until {}  {}",
            token.id,
            state,
            token.role.as_str(),
            tenant_of(&token.role).map_or("", TenantId::as_str),
            rfc3339(token.expires_at),
            token.name
        ))?;
    }
    Ok(())
}

async fn revoke(id: &str, database: &Database) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let id = Uuid::try_parse(id).ok();
    if id.is_none() {
        checker.reject("the token's id: as voice-otp token list prints it");
    }
    let url = checker.database(database);
    let (id, url) = checker.finish(|| Some((id?, url?)))?;
    let pool = open(&url).await?;
    if !access::revoke(&pool, id)
        .await
        .context("revoke the token")?
    {
        return Err(CommandError::Failed(anyhow!(
            "there is no token {id}, or it is revoked already"
        )));
    }
    write_audit(&pool, None, "token.revoked", &json!({ "id": id })).await?;
    print_line(&format!("revoked {id}"))?;
    Ok(())
}
