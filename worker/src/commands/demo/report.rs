//! The summary at the end of a demo.

use std::collections::{BTreeMap, HashMap};

use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::status::{Status, StatusEvent};
use voice_otp_simulator::CallReport;

use super::cases::{Action, Case, DEAD_LETTERS, MACHINE};
use crate::output::print_line;

/// The statuses of each request, by delivery id, in the order of arrival.
pub(super) type StatusesById = HashMap<String, Vec<StatusEvent>>;

type Outcome = (Status, Option<ReasonCode>);

/// A line of the table: the requests with one expected outcome.
#[derive(Default)]
struct Row {
    requests: u32,
    /// Those of them that had it.
    as_expected: u32,
}

/// Prints what became of every request. Returns whether it is what was expected.
pub(super) fn report(
    cases: &[Case],
    statuses: &StatusesById,
    calls: &[CallReport],
    dead_letters: u32,
    all_final: bool,
) -> anyhow::Result<bool> {
    let mut rows: BTreeMap<Outcome, Row> = BTreeMap::new();
    let mut problems = Vec::new();
    for case in cases {
        let problem = check(case, statuses.get(case.id()).map_or(&[], Vec::as_slice));
        let row = rows.entry(case.expected).or_default();
        row.requests += 1;
        row.as_expected += u32::from(problem.is_none());
        problems.extend(problem);
    }
    print_table(&rows, dead_letters)?;
    let heard_code = print_transcript(cases, calls)?;
    let heard_nothing = print_machine(calls)?;
    let repeated = called_too_often(calls, cases);
    if !repeated.is_empty() {
        problems.push(format!("  called more often than allowed: {repeated:?}"));
    }
    let is_right = problems.is_empty()
        && all_final
        && heard_code
        && heard_nothing
        && dead_letters == DEAD_LETTERS;
    if is_right {
        print_line(&format!(
            "\nall {} requests ended as they should, each once",
            cases.len()
        ))?;
    } else {
        print_line("\nunexpected:")?;
        for problem in problems {
            print_line(&problem)?;
        }
    }
    Ok(is_right)
}

/// What is wrong with the statuses of a request: it must have one final status, the expected one,
/// and its statuses must be in order.
fn check(case: &Case, statuses: &[StatusEvent]) -> Option<String> {
    let outcome = |event: &StatusEvent| {
        let data = &event.data;
        (data.status, data.reason.as_ref().map(|reason| reason.code))
    };
    let finals: Vec<Outcome> = statuses
        .iter()
        .filter(|event| event.data.is_final)
        .map(outcome)
        .collect();
    let in_order = (1..)
        .zip(statuses)
        .all(|(sequence, event): (u32, _)| event.data.sequence == sequence);
    (finals != [case.expected] || !in_order).then(|| {
        format!(
            "  {} {}: final statuses {finals:?} instead of {:?}, in order: {in_order}",
            case.id(),
            case.description,
            case.expected
        )
    })
}

fn print_table(rows: &BTreeMap<Outcome, Row>, dead_letters: u32) -> anyhow::Result<()> {
    print_line(&format!(
        "\n{:<12} {:<24} {:>8} {:>8}",
        "outcome", "reason", "requests", "expected"
    ))?;
    for ((status, reason), row) in rows {
        print_line(&format!(
            "{status:<12} {:<24} {:>8} {:>8}",
            reason.map_or("", ReasonCode::as_str),
            row.requests,
            row.as_expected
        ))?;
    }
    print_line(&format!(
        "{:<37} {DEAD_LETTERS:>8} {dead_letters:>8}",
        "dead letters"
    ))
}

/// Prints what one callee heard. Returns whether that was the code.
fn print_transcript(cases: &[Case], calls: &[CallReport]) -> anyhow::Result<bool> {
    let delivered = cases
        .iter()
        .find(|case| case.expected.0 == Status::Delivered && matches!(case.action, Action::None));
    let call_of = |case: &Case| {
        calls
            .iter()
            .find(|call| call.to == case.request.to.expose())
    };
    let Some((case, call)) = delivered.and_then(|case| Some((case, call_of(case)?))) else {
        return Ok(false);
    };
    print_line(&format!(
        "\nWhat {} heard ({} s, picked up by {}):",
        case.request.to,
        call.duration_s.unwrap_or(0),
        call.picked_up_by.as_deref().unwrap_or("no one")
    ))?;
    print_line(&format!("  {}", call.transcript))?;
    Ok(call.digits_heard == case.request.code.expose())
}

/// Prints what a machine heard that was asked for a key. Returns whether the code was not among it.
fn print_machine(calls: &[CallReport]) -> anyhow::Result<bool> {
    let Some(call) = calls.iter().find(|call| call.to == MACHINE) else {
        return Ok(false);
    };
    print_line(&format!(
        "\nWhat an answering machine heard that was asked to press a key ({} s):\n  {}",
        call.duration_s.unwrap_or(0),
        call.transcript
    ))?;
    Ok(call.readings_heard == 0)
}

/// The requests whose number was called more often than they allow. Each number of the demo belongs
/// to one request.
fn called_too_often<'a>(calls: &[CallReport], cases: &'a [Case]) -> Vec<&'a str> {
    let is_over = |case: &&Case| {
        let to = case.request.to.expose();
        calls.iter().filter(|call| call.to == to).count() > case.max_calls()
    };
    cases.iter().filter(is_over).map(Case::id).collect()
}
