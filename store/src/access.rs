//! Access to the console and its API: tokens, browser sessions and sign-in codes. Only hashes are
//! stored.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::query::query_prepared as query;
use crate::{Error, Pool};

/// What the owner of a token may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything, for every tenant, and what belongs to no single one.
    Operator,
    /// Everything of this tenant, and nothing else.
    TenantAdmin(TenantId),
}

/// The owner of a valid token or session.
#[derive(Debug, Clone)]
pub struct Who {
    /// The token's id.
    pub token_id: Uuid,
    /// The token's name.
    pub name: String,
    /// What the owner may do.
    pub role: Role,
}

/// A token as lists show it, without its text, which only its owner has.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token's id.
    pub id: Uuid,
    /// The name that it was created with.
    pub name: String,
    /// What its owner may do.
    pub role: Role,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, exact to the minute.
    pub used_at: Option<Timestamp>,
}

/// The prefix of every token, so that scanners for leaked secrets find it.
pub const PREFIX: &str = "vot_";
/// How long a browser session is valid.
pub const SESSION: Duration = Duration::from_hours(12);
/// How long a sign-in code is valid.
pub const SIGN_IN_CODE: Duration = Duration::from_mins(1);
/// The longest time to live of a token.
pub const LONGEST: Duration = Duration::from_hours(24 * 366);

/// 244 random bits.
fn random() -> SecretString {
    SecretString::from(format!(
        "{}{}",
        Uuid::new_v4().simple(),
        Uuid::new_v4().simple()
    ))
}

fn hash(text: &str) -> Vec<u8> {
    Sha256::digest(text.as_bytes()).to_vec()
}

/// The CSRF token of a session, which every form of ours sends back. Only the session's browser
/// knows it, so that a form of another site can't pass for one of ours.
pub fn csrf(session: &str) -> String {
    let digest = Sha256::digest(format!("voice-otp csrf\0{session}").as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

const CREATE_TOKEN: &str = include_str!("../sql/statements/create_token.sql");
const USE_TOKEN: &str = include_str!("../sql/statements/use_token.sql");
const CREATE_SESSION: &str = include_str!("../sql/statements/create_session.sql");
const FIND_SESSION: &str = include_str!("../sql/statements/find_session.sql");
const CREATE_SIGN_IN_CODE: &str = include_str!("../sql/statements/create_sign_in_code.sql");
const USE_SIGN_IN_CODE: &str = include_str!("../sql/statements/use_sign_in_code.sql");

/// Creates a token and returns its id and text. The text can't be read again.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn create(
    pool: &Pool,
    name: &str,
    role: &Role,
    life: Duration,
) -> Result<(Uuid, SecretString), Error> {
    let id = Uuid::new_v4();
    let text = SecretString::from(format!("{PREFIX}{}", random().expose_secret()));
    let (word, tenant) = words(role);
    let params: [&(dyn ToSql + Sync); 6] = [
        &id,
        &hash(text.expose_secret()),
        &name,
        &word,
        &tenant,
        &life.as_secs_f64(),
    ];
    query(pool, "create a token", CREATE_TOKEN, &params).await?;
    Ok((id, text))
}

/// Lists tokens, the newest first.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn list(pool: &Pool) -> Result<Vec<Token>, Error> {
    let sql = "select id, name, role, tenant_id, created_at, expires_at, revoked_at, used_at \
               from access_tokens order by created_at desc, id";
    let rows = query(pool, "list the tokens", sql, &[]).await?;
    let token = |row: &Row| {
        Ok(Token {
            id: row.get("id"),
            name: row.get("name"),
            role: role(row)?,
            created_at: row.get("created_at"),
            expires_at: row.get("expires_at"),
            revoked_at: row.get("revoked_at"),
            used_at: row.get("used_at"),
        })
    };
    rows.iter().map(token).collect()
}

/// Revokes a token, and with it every session that was begun with it. Returns false if there is no
/// such token, or it is revoked already.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn revoke(pool: &Pool, id: Uuid) -> Result<bool, Error> {
    let sql = "update access_tokens set revoked_at = clock_timestamp() \
               where id = $1 and revoked_at is null returning 1";
    Ok(!query(pool, "revoke a token", sql, &[&id]).await?.is_empty())
}

/// The owner of a token, if it is valid.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn by_token(pool: &Pool, text: &str) -> Result<Option<Who>, Error> {
    let rows = query(pool, "look up a token", USE_TOKEN, &[&hash(text)]).await?;
    rows.first().map(who).transpose()
}

/// Begins a session and returns the text of its cookie.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn sign_in(pool: &Pool, token: Uuid) -> Result<SecretString, Error> {
    let text = random();
    let params: [&(dyn ToSql + Sync); 3] =
        [&hash(text.expose_secret()), &token, &SESSION.as_secs_f64()];
    query(pool, "sign in", CREATE_SESSION, &params).await?;
    Ok(text)
}

/// The owner of a session, if the session and its token are valid.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn by_session(pool: &Pool, text: &str) -> Result<Option<Who>, Error> {
    let rows = query(pool, "look up a session", FIND_SESSION, &[&hash(text)]).await?;
    rows.first().map(who).transpose()
}

/// Ends a session.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn sign_out(pool: &Pool, text: &str) -> Result<(), Error> {
    let sql = "delete from sessions where hash = $1";
    query(pool, "sign out", sql, &[&hash(text)]).await.map(drop)
}

/// Creates a code that signs in once, within [`SIGN_IN_CODE`], as the token's owner.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn sign_in_code(pool: &Pool, token: Uuid) -> Result<SecretString, Error> {
    let text = random();
    let hash = hash(text.expose_secret());
    let params: [&(dyn ToSql + Sync); 3] = [&hash, &token, &SIGN_IN_CODE.as_secs_f64()];
    query(pool, "create a sign-in code", CREATE_SIGN_IN_CODE, &params).await?;
    Ok(text)
}

/// The owner of a sign-in code, if the code and its token are valid. The code is used up.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn by_code(pool: &Pool, text: &str) -> Result<Option<Who>, Error> {
    let params: [&(dyn ToSql + Sync); 1] = [&hash(text)];
    let rows = query(pool, "look up a sign-in code", USE_SIGN_IN_CODE, &params).await?;
    rows.first().map(who).transpose()
}

fn words(role: &Role) -> (&'static str, Option<&str>) {
    match role {
        Role::Operator => ("operator", None),
        Role::TenantAdmin(tenant) => ("tenant_admin", Some(tenant.as_str())),
    }
}

fn role(row: &Row) -> Result<Role, Error> {
    match (row.get("role"), row.get::<_, Option<&str>>("tenant_id")) {
        ("operator", None) => Ok(Role::Operator),
        ("tenant_admin", Some(tenant)) => TenantId::parse(tenant)
            .map(Role::TenantAdmin)
            .map_err(|_| Error::InvalidRow("access_tokens.tenant_id")),
        _ => Err(Error::InvalidRow("access_tokens.role")),
    }
}

fn who(row: &Row) -> Result<Who, Error> {
    Ok(Who {
        token_id: row.get("id"),
        name: row.get("name"),
        role: role(row)?,
    })
}

impl Role {
    /// Whether the role covers a tenant.
    pub fn covers(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Operator => true,
            Self::TenantAdmin(own) => own == tenant,
        }
    }

    /// The role's name in the database and the API.
    pub fn as_str(&self) -> &'static str {
        words(self).0
    }
}
