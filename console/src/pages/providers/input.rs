//! Labelled inputs with their hints and errors.

use maud::{Markup, html};
use voice_otp::settings::Setting;

use crate::pages::labels::label_of;
use crate::problem::FieldError;

/// A labelled input.
pub(super) struct Input<'a> {
    /// The name in the form and in errors.
    name: &'a str,
    label: &'a str,
    hint: String,
    pub(super) value: &'a str,
    pub(super) kind: &'a str,
    pub(super) required: bool,
    pub(super) disabled: bool,
}

impl<'a> Input<'a> {
    /// An input for a setting, with the setting's label and hint.
    pub(super) fn of(setting: Setting, value: &'a str) -> Self {
        let field = setting.field();
        Self::new(field.name, value, field.hint())
    }

    pub(super) fn new(name: &'a str, value: &'a str, hint: impl Into<String>) -> Self {
        Self {
            name,
            label: label_of(name),
            hint: hint.into(),
            value,
            kind: "text",
            required: false,
            disabled: false,
        }
    }

    pub(super) fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    pub(super) fn kind(self, kind: &'a str) -> Self {
        Self { kind, ..self }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: hint.into(),
            ..self
        }
    }

    pub(super) fn render(&self, errors: &[FieldError]) -> Markup {
        let id = id_of(self.name);
        let error = error_of(self.name, errors);
        let described_by = match (self.hint.is_empty(), error.is_some()) {
            (true, false) => None,
            (true, true) => Some(format!("{id}-error")),
            (false, false) => Some(format!("{id}-hint")),
            (false, true) => Some(format!("{id}-error {id}-hint")),
        };
        html! {
            div.field {
                label for=(id) {
                    (self.label)
                    @if self.required { span aria-hidden="true" { " *" } }
                }
                input id=(id) type=(self.kind) name=(self.name) value=(self.value)
                    required[self.required] disabled[self.disabled]
                    aria-describedby=[described_by] aria-invalid=[error.map(|_| "true")]
                    autocomplete="off" spellcheck="false";
                @if let Some(error) = error { p.error id={ (id) "-error" } { (error) } }
                @if !self.hint.is_empty() { p.hint id={ (id) "-hint" } { (self.hint) } }
            }
        }
    }
}

/// The id of a field's input.
pub(super) fn id_of(name: &str) -> String {
    name.replace('.', "-")
}

/// The error of a field.
pub(super) fn error_of<'a>(name: &str, errors: &'a [FieldError]) -> Option<&'a str> {
    errors
        .iter()
        .find(|error| error.field == name)
        .map(|error| error.message.as_str())
}
