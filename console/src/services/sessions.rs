//! Signing in with a token or a sign-in link, and out.

use secrecy::{ExposeSecret as _, SecretString};
use voice_otp_store::access;

use crate::problem::Problem;
use crate::state::Console;

/// What a browser signs in with.
pub(crate) enum Credential<'a> {
    /// The text of a token.
    Token(&'a str),
    /// The code of a sign-in link; using it makes it invalid.
    Code(&'a str),
}

/// Opens a session. `None` if the credential is not valid.
pub(crate) async fn sign_in(
    console: &Console,
    credential: Credential<'_>,
) -> Result<Option<SecretString>, Problem> {
    let owner = match credential {
        Credential::Token(text) => access::by_token(&console.pool, text).await?,
        Credential::Code(text) => access::by_code(&console.pool, text).await?,
    };
    match owner {
        Some(owner) => Ok(Some(access::sign_in(&console.pool, owner.token_id).await?)),
        None => Ok(None),
    }
}

/// Ends a session.
pub(crate) async fn sign_out(console: &Console, session: &SecretString) -> Result<(), Problem> {
    Ok(access::sign_out(&console.pool, session.expose_secret()).await?)
}
