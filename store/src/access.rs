//! Who may use the console: tokens, and what browsers have after signing in with one. Only hashes are stored.

use std::time::Duration;

use deadpool_postgres::PoolError;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;
use voice_otp_schemas::{TenantId, Timestamp};

use crate::pool::Pool;

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything, for every tenant.
    Operator,
    /// Everything that is this tenant's, and nothing else.
    TenantAdmin(TenantId),
}

/// Somebody whose token, or session, is good.
#[derive(Debug, Clone)]
pub struct Who {
    /// Of the token.
    pub token_id: Uuid,
    /// The token's name.
    pub name: String,
    /// What it lets do.
    pub role: Role,
}

/// A token, as lists show it: not its text, which nobody knows but its owner.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// What its maker called it.
    pub name: String,
    /// What it lets do.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is good for nothing.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub used_at: Option<Timestamp>,
}

/// Why access can't be looked up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database can't be reached.
    #[error("connect to Postgres")]
    Connect(#[source] PoolError),
    /// A statement failed.
    #[error("{0}")]
    Query(&'static str, #[source] tokio_postgres::Error),
}

/// What every token begins with, so that scanners of leaked secrets find it.
pub const PREFIX: &str = "vot_";
/// How long somebody stays signed in.
pub const SESSION: Duration = Duration::from_hours(12);
/// How long a link signs somebody in.
pub const SIGN_IN_CODE: Duration = Duration::from_mins(1);
/// The longest life of a token.
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

/// What a form must send back, so that no other site's form passes for one of ours: known to who knows the session.
pub fn csrf(session: &str) -> String {
    let digest = Sha256::digest(format!("voice-otp csrf\0{session}").as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a token. Its text is told this once.
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
    let sql = "insert into access_tokens (id, hash, name, role, tenant_id, expires_at) \
               values ($1, $2, $3, $4, $5, clock_timestamp() + $6::double precision * interval '1 second')";
    let params: [&(dyn ToSql + Sync); 6] = [
        &id,
        &hash(text.expose_secret()),
        &name,
        &word,
        &tenant,
        &life.as_secs_f64(),
    ];
    query(pool, sql, &params, "make a token").await?;
    Ok((id, text))
}

/// Lists tokens, the newest first.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn list(pool: &Pool) -> Result<Vec<Token>, Error> {
    let sql = "select id, name, role, tenant_id, created_at, expires_at, revoked_at, used_at from access_tokens \
               order by created_at desc, id";
    let rows = query(pool, sql, &[], "list the tokens").await?;
    let token = |row: &Row| {
        Some(Token {
            id: row.get("id"),
            name: row.get("name"),
            role: role(row)?,
            created_at: row.get("created_at"),
            expires_at: row.get("expires_at"),
            revoked_at: row.get("revoked_at"),
            used_at: row.get("used_at"),
        })
    };
    Ok(rows.iter().filter_map(token).collect())
}

/// Revokes a token, and with it the sessions of who signed in with it. False if there is none, or it was revoked before.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn revoke(pool: &Pool, id: Uuid) -> Result<bool, Error> {
    let sql = "update access_tokens set revoked_at = clock_timestamp() where id = $1 and revoked_at is null returning 1";
    Ok(!query(pool, sql, &[&id], "revoke a token").await?.is_empty())
}

/// Whose token this is, if it is good.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn by_token(pool: &Pool, text: &str) -> Result<Option<Who>, Error> {
    let sql = "with good as (select id, name, role, tenant_id, used_at from access_tokens \
                 where hash = $1 and revoked_at is null and expires_at > clock_timestamp()), \
               used as (update access_tokens t set used_at = clock_timestamp() from good \
                 where t.id = good.id and (good.used_at is null or good.used_at < clock_timestamp() - interval '1 minute')) \
               select id, name, role, tenant_id from good";
    let rows = query(pool, sql, &[&hash(text)], "look a token up").await?;
    Ok(rows.first().and_then(who))
}

/// Signs somebody in: the text of the session's cookie.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn sign_in(pool: &Pool, token: Uuid) -> Result<SecretString, Error> {
    let text = random();
    let sql = "with old as (delete from sessions where expires_at < clock_timestamp()) \
               insert into sessions (hash, token_id, expires_at) \
               values ($1, $2, clock_timestamp() + $3::double precision * interval '1 second')";
    query(
        pool,
        sql,
        &[&hash(text.expose_secret()), &token, &SESSION.as_secs_f64()],
        "sign in",
    )
    .await?;
    Ok(text)
}

/// Whose session this is, if it and its token are good.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn by_session(pool: &Pool, text: &str) -> Result<Option<Who>, Error> {
    let sql = "select t.id, t.name, t.role, t.tenant_id from sessions s join access_tokens t on t.id = s.token_id \
               where s.hash = $1 and s.expires_at > clock_timestamp() and t.revoked_at is null and t.expires_at > clock_timestamp()";
    let rows = query(pool, sql, &[&hash(text)], "look a session up").await?;
    Ok(rows.first().and_then(who))
}

/// Ends a session.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn sign_out(pool: &Pool, text: &str) -> Result<(), Error> {
    query(
        pool,
        "delete from sessions where hash = $1",
        &[&hash(text)],
        "sign out",
    )
    .await
    .map(drop)
}

/// Makes a code that signs in once, within a minute, as who has this token.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn sign_in_code(pool: &Pool, token: Uuid) -> Result<SecretString, Error> {
    let text = random();
    let sql = "with old as (delete from sign_in_codes where expires_at < clock_timestamp()) \
               insert into sign_in_codes (hash, token_id, expires_at) \
               values ($1, $2, clock_timestamp() + $3::double precision * interval '1 second')";
    query(
        pool,
        sql,
        &[
            &hash(text.expose_secret()),
            &token,
            &SIGN_IN_CODE.as_secs_f64(),
        ],
        "make a sign-in code",
    )
    .await?;
    Ok(text)
}

/// Whose code this is, if it is good; it is used up by that.
///
/// # Errors
/// [`Error`] when the database can't be asked.
pub async fn by_code(pool: &Pool, text: &str) -> Result<Option<Who>, Error> {
    let sql = "with taken as (delete from sign_in_codes where hash = $1 returning token_id, expires_at) \
               select t.id, t.name, t.role, t.tenant_id from taken c join access_tokens t on t.id = c.token_id \
               where c.expires_at > clock_timestamp() and t.revoked_at is null and t.expires_at > clock_timestamp()";
    let rows = query(pool, sql, &[&hash(text)], "look a sign-in code up").await?;
    Ok(rows.first().and_then(who))
}

fn words(role: &Role) -> (&'static str, Option<&str>) {
    match role {
        Role::Operator => ("operator", None),
        Role::TenantAdmin(tenant) => ("tenant_admin", Some(tenant.as_str())),
    }
}

fn role(row: &Row) -> Option<Role> {
    match (row.get("role"), row.get::<_, Option<&str>>("tenant_id")) {
        ("operator", None) => Some(Role::Operator),
        ("tenant_admin", Some(tenant)) => TenantId::parse(tenant).ok().map(Role::TenantAdmin),
        _ => None,
    }
}

fn who(row: &Row) -> Option<Who> {
    Some(Who {
        token_id: row.get("id"),
        name: row.get("name"),
        role: role(row)?,
    })
}

async fn query(
    pool: &Pool,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
    what: &'static str,
) -> Result<Vec<Row>, Error> {
    let client = pool.get().await.map_err(Error::Connect)?;
    let statement = client
        .prepare_cached(sql)
        .await
        .map_err(|error| Error::Query(what, error))?;
    client
        .query(&statement, params)
        .await
        .map_err(|error| Error::Query(what, error))
}

impl Role {
    /// Whether it covers a tenant.
    pub fn covers(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Operator => true,
            Self::TenantAdmin(own) => own == tenant,
        }
    }

    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        words(self).0
    }
}
