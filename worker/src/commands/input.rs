//! Reading arguments that several commands share.

use std::io::Read as _;
use std::path::Path;

use secrecy::SecretString;
use voice_otp_schemas::TenantId;

use crate::config::ArgumentChecker;

/// The tenant that a command is about, from its positional argument.
pub(super) fn tenant_id(checker: &mut ArgumentChecker, text: &str) -> Option<TenantId> {
    checker.parse("the tenant's id", text, TenantId::parse)
}

/// A secret from a file, or from standard input for `-`: one line, without its line ending.
pub(super) fn read_secret(
    checker: &mut ArgumentChecker,
    flag: &str,
    file: Option<&Path>,
) -> Option<SecretString> {
    let file = file?;
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|content| text = content)
    };
    match read {
        Ok(()) => Some(SecretString::from(text.trim_end_matches(['\r', '\n']))),
        Err(error) => {
            checker.reject(format!(
                "{flag}: failed to read {}: {error}",
                file.display()
            ));
            None
        }
    }
}
