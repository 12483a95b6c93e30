//! The difference between two versions of a tenant's settings, for the audit log. Without secrets.

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::VoiceSettings;
use super::field::{FIELDS, Setting, Value};

/// The settings that changed, by name: `{"from": old, "to": new}`, or `"replaced"` for secrets and
/// for numbers that look alike when masked.
///
/// The rate limit belongs to the account, which tenants share, so it counts as changed only if this
/// change sets it; `rate` is then the new one.
pub fn diff(
    old: Option<&VoiceSettings>,
    new: &VoiceSettings,
    rate: Option<f64>,
) -> serde_json::Value {
    let mut changed = serde_json::Map::new();
    for field in FIELDS {
        let before = old.map(|old| field.read(old));
        let change = match (field.setting, before, field.read(new)) {
            (Setting::CallsPerSecond, _, _) => {
                rate.map(|rate| json!({ "from": old.map(|old| old.calls_per_second), "to": rate }))
            }
            (_, before, Value::Plain(after)) => {
                let before = match before {
                    Some(Value::Plain(before)) => before,
                    Some(Value::Secret(_) | Value::Number(_)) | None => serde_json::Value::Null,
                };
                (before != after).then(|| json!({ "from": before, "to": after }))
            }
            (_, before, Value::Secret(after)) => {
                let before = match before {
                    Some(Value::Secret(before)) => before,
                    Some(Value::Plain(_) | Value::Number(_)) | None => None,
                };
                (exposed(before.as_ref()) != exposed(after.as_ref())).then(|| json!("replaced"))
            }
            (_, Some(Value::Number(before)), Value::Number(after)) => {
                (before != after).then(|| {
                    if before.masked() == after.masked() {
                        json!("replaced")
                    } else {
                        json!({ "from": before.masked(), "to": after.masked() })
                    }
                })
            }
            (_, _, Value::Number(after)) => Some(json!({ "from": null, "to": after.masked() })),
        };
        if let Some(change) = change {
            changed.insert(field.name.to_owned(), change);
        }
    }
    changed.into()
}

fn exposed(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(ExposeSecret::expose_secret)
}

#[cfg(test)]
mod tests {
    use voice_otp_schemas::TenantId;

    use super::super::Draft;
    use super::*;

    fn settings(change: impl FnOnce(&mut Draft)) -> VoiceSettings {
        let mut draft = Draft {
            account_sid: format!("AC{}", "0a".repeat(16)),
            auth_token: SecretString::from("0123456789abcdef"),
            from: "+14155552671".to_owned(),
            enabled: true,
            ..Draft::default()
        };
        change(&mut draft);
        draft.check(TenantId::parse("acme").unwrap()).unwrap()
    }

    #[test]
    fn a_diff_names_only_changes_and_shows_no_secret_or_number() {
        let old = settings(|_| {});
        let new = settings(|draft| {
            draft.auth_token = SecretString::from("fedcba9876543210");
            draft.speech.readings = 2;
            draft.from = "+14155552771".to_owned();
        });
        let changes = diff(Some(&old), &new, Some(2.0));
        let expected = json!({
            "auth_token": "replaced",
            "from": "replaced",
            "speech.readings": { "from": 3, "to": 2 },
            "calls_per_second": { "from": 1.0, "to": 2.0 },
        });
        assert_eq!(changes, expected);
        assert_eq!(diff(Some(&old), &old, None), json!({}));
    }

    #[test]
    fn settings_survive_a_round_trip_through_a_draft() {
        let all = settings(|draft| {
            draft.secondary_auth_token = Some(SecretString::from("second-token"));
            draft.region = Some("ie1".to_owned());
            draft.default_locale = Some("de-DE".to_owned());
            draft.publishers = vec!["auth".to_owned()];
            draft.test_mode = true;
        });
        let again = Draft::from(&all).check(all.tenant_id.clone()).unwrap();
        assert_eq!(diff(Some(&all), &again, None), json!({}));
    }
}
