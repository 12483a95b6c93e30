//! Labels of fields in forms and in error messages.

use voice_otp::settings::field::FIELDS;

use crate::problem::Problem;

/// The label of a field: of a setting, or of a field that only a page has.
pub(super) fn label_of(name: &str) -> &str {
    match name {
        "to" => "Recipient",
        "confirm" => "Confirmation",
        "status" => "Status",
        "id" => "Delivery ID",
        "since" => "Since (UTC)",
        _ => FIELDS
            .iter()
            .find(|field| field.name == name)
            .map_or(name, |field| field.label),
    }
}

/// The problem in one line, with the labels of its fields.
pub(super) fn one_line(problem: &Problem) -> String {
    let errors = problem.errors.iter();
    let lines: Vec<String> = errors
        .map(|error| format!("{}: {}", label_of(&error.field), error.message))
        .collect();
    if lines.is_empty() {
        problem.detail().to_owned()
    } else {
        lines.join("; ")
    }
}
