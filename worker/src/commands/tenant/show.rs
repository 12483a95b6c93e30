//! `voice-otp tenant show`: every field of [`FIELDS`], and the tenant's state.

use serde_json::{Map, Value as Json, json};
use voice_otp::settings::field::{FIELDS, Value};
use voice_otp::settings::{Paused, VoiceSettings};

use crate::args::{Database, EncryptionKeys};
use crate::commands::CommandError;
use crate::commands::database::{load_tenant, open};
use crate::commands::input::tenant_id;
use crate::config::ArgumentChecker;
use crate::output::{print_json, print_line};

pub(super) async fn run(
    id: &str,
    as_json: bool,
    database: &Database,
    keys: &EncryptionKeys,
) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let id = tenant_id(&mut checker, id);
    let (keys, url) = (checker.keys(keys), checker.database(database));
    let (id, keys, url) = checker.finish(|| Some((id?, keys?, url?)))?;
    let settings = load_tenant(&open(&url).await?, &keys, &id).await?;
    let members = members(&settings);
    if as_json {
        print_json(&nested(members))?;
        return Ok(());
    }
    for (name, value) in members {
        print_line(&format!("{name:<28} {}", text(&value)))?;
    }
    Ok(())
}

/// Names and values in the order in which they are shown. A dot in a name separates nested members.
fn members(settings: &VoiceSettings) -> Vec<(String, Json)> {
    let identity = [
        ("tenant_id".to_owned(), json!(settings.tenant_id)),
        ("version".to_owned(), settings.version.into()),
    ];
    let fields = FIELDS.iter().map(|field| match field.read(settings) {
        Value::Plain(value) => (field.name.to_owned(), value),
        Value::Number(number) => (field.name.to_owned(), number.expose().into()),
        Value::Secret(secret) => (format!("{}_set", field.name), secret.is_some().into()),
    });
    let paused = settings.paused.map(|paused| match paused {
        Paused::Tenant => "tenant",
        Paused::Account => "account",
    });
    // The rate limit moves to the account's own key once Twilio has accepted the credentials.
    let verified = settings.pace_key == settings.account_sid.as_str();
    let state = [
        ("paused".to_owned(), json!(paused)),
        ("offered".to_owned(), settings.offered.into()),
        ("credentials_verified".to_owned(), verified.into()),
        (
            "credentials_rejected".to_owned(),
            settings.credentials_rejected.into(),
        ),
    ];
    identity.into_iter().chain(fields).chain(state).collect()
}

/// One JSON object, in which `a.b` is the member `b` of the member `a`.
fn nested(members: Vec<(String, Json)>) -> Json {
    let mut object = Map::new();
    for (name, value) in members {
        match name.split_once('.') {
            None => drop(object.insert(name, value)),
            Some((outer, inner)) => {
                let outer = object.entry(outer).or_insert_with(|| json!({}));
                if let Some(outer) = outer.as_object_mut() {
                    outer.insert(inner.to_owned(), value);
                }
            }
        }
    }
    Json::Object(object)
}

fn text(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(items) if items.is_empty() => "-".to_owned(),
        Json::Object(members) if members.is_empty() => "-".to_owned(),
        Json::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use voice_otp::settings::Draft;
    use voice_otp_schemas::TenantId;

    use super::*;

    #[test]
    fn every_field_is_shown_nested_and_no_secret_is() {
        let draft = Draft {
            account_sid: format!("AC{}", "0a".repeat(16)),
            auth_token: SecretString::from("s3cr3t-t0ken"),
            from: "+14155552671".to_owned(),
            enabled: true,
            ..Draft::default()
        };
        let settings = draft.check(TenantId::parse("acme").unwrap()).unwrap();
        let shown = nested(members(&settings));
        for field in FIELDS {
            let pointer = format!("/{}", field.name.replace('.', "/"));
            let shown = shown
                .pointer(&pointer)
                .or_else(|| shown.pointer(&format!("{pointer}_set")));
            assert!(shown.is_some(), "{}", field.name);
        }
        assert_eq!(shown["from"], "+14155552671");
        assert_eq!(shown["auth_token_set"], true);
        assert_eq!(shown["secondary_auth_token_set"], false);
        assert_eq!(shown["speech"]["readings"], 3);
        assert_eq!(shown["credentials_verified"], false);
        assert!(!shown.to_string().contains("s3cr3t"));
    }
}
