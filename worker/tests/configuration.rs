//! `docs/configuration.md` is generated from the flags and from the table of tenant settings.
//! `VOICE_OTP_BLESS=1 cargo test -p voice-otp-worker` writes it.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};
use voice_otp::settings::field::FIELDS;
use voice_otp_worker::args::Cli;

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from worker/src/args and src/settings/field.rs by worker/tests/configuration.rs.
     VOICE_OTP_BLESS=1 cargo test -p voice-otp-worker writes it. -->

Every setting is a flag; most are environment variables too. A flag wins over its variable. There is
no configuration file. Once the command line can be parsed, all configuration errors are reported
at once. The exit status of both kinds of error is 2.

- Durations are written with their unit: `500ms`, `30s`, `5m`, `7days`.
- A flag with `BOOL` takes `true` or `false`; without a value it means `true`.
- A file named `-` is standard input.
- An empty URL in a variable counts as unset.
- Secrets are never shown by `--help`, by the log or by an error.

What belongs to a tenant is in the database, and is changed with `voice-otp tenant set` (see
[tenant settings](#tenant-settings)), in the console, or by its API. What belongs to a Twilio
account, whichever tenants share it, is changed with `voice-otp account`.
";

/// The groups that several commands share, by their heading in the help.
const GROUPS: [(&str, &str); 5] = [
    ("Broker", "The same for workers, console and publishers."),
    (
        "Database",
        "The same for workers, console and commands that change settings.",
    ),
    (
        "Encryption keys",
        "The same for workers and console. To rotate keys, add the new one last everywhere, then\n\
         move it first everywhere. Keep the old ones: what they have encrypted stays readable.",
    ),
    (
        "Twilio",
        "The public URL is the same for all workers; the console and `tenant check` use it.",
    ),
    ("Logging", "Every command logs to standard error."),
];

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

fn table(args: &[&Arg]) -> String {
    let mut table = String::from("| flag | variable | default | meaning |\n|---|---|---|---|\n");
    for arg in args {
        let values: Vec<String> = arg
            .get_value_names()
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        let value = values.join(" ");
        let takes_value = arg.get_action().takes_values();
        let flag = match arg.get_long() {
            Some(long) if takes_value => code(&format!("--{long} {value}")),
            Some(long) => code(&format!("--{long}")),
            None => code(&value),
        };
        let variable = arg
            .get_env()
            .map_or(String::new(), |env| code(&env.to_string_lossy()));
        let defaults: Vec<String> = arg
            .get_default_values()
            .iter()
            .filter(|_| takes_value)
            .map(|value| code(&value.to_string_lossy()))
            .collect();
        let help = arg.get_help().unwrap().to_string();
        writeln!(
            table,
            "| {flag} | {variable} | {} | {} |",
            defaults.join(" "),
            cell(&help)
        )
        .unwrap();
    }
    table
}

/// The arguments of a command that people set: without `--help` and the like.
fn arguments(command: &Command) -> Vec<&Arg> {
    let is_own = |arg: &&Arg| !["help", "version"].contains(&arg.get_id().as_str());
    command.get_arguments().filter(is_own).collect()
}

/// The arguments of a shared group, as the first command that has them defines them.
fn group<'a>(command: &'a Command, heading: &str) -> Vec<&'a Arg> {
    let found: Vec<&Arg> = arguments(command)
        .into_iter()
        .filter(|arg| arg.get_help_heading() == Some(heading))
        .collect();
    if !found.is_empty() {
        return found;
    }
    command
        .get_subcommands()
        .map(|subcommand| group(subcommand, heading))
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

fn command_section(command: &Command, name: &str, page: &mut String) {
    if command.has_subcommands() {
        for subcommand in command.get_subcommands() {
            command_section(
                subcommand,
                &format!("{name} {}", subcommand.get_name()),
                page,
            );
        }
        return;
    }
    writeln!(
        page,
        "\n### `voice-otp{name}`\n\n{}.",
        command.get_about().unwrap()
    )
    .unwrap();
    let is_setting = |arg: &Arg| {
        let long = arg.get_long().unwrap_or_default();
        name == " tenant set" && FIELDS.iter().any(|field| field.long_flag() == long)
    };
    let own: Vec<&Arg> = arguments(command)
        .into_iter()
        .filter(|arg| arg.get_help_heading().is_none() && !is_setting(arg))
        .collect();
    if !own.is_empty() {
        write!(page, "\n{}", table(&own)).unwrap();
    }
    if name == " tenant set" {
        writeln!(
            page,
            "\nOne flag for each of the [tenant settings](#tenant-settings)."
        )
        .unwrap();
    }
    let shared: BTreeSet<&str> = arguments(command)
        .iter()
        .filter_map(|arg| arg.get_help_heading())
        .collect();
    let shared: Vec<String> = GROUPS
        .iter()
        .filter(|(heading, _)| shared.contains(heading))
        .map(|(heading, _)| format!("[{heading}](#{})", anchor(heading)))
        .collect();
    if !shared.is_empty() {
        writeln!(page, "\nAlso: {}.", shared.join(", ")).unwrap();
    }
}

fn tenant_settings() -> String {
    let mut table = String::from(
        "\
## Tenant settings

The flags of `voice-otp tenant set`. The names are those of the API, of the audit log and of
`voice-otp tenant show`; the labels are the console's.

| flag | name | label | meaning | accepted values | default |
|---|---|---|---|---|---|
",
    );
    for field in FIELDS {
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} |",
            code(field.flag),
            code(field.name),
            field.label,
            cell(field.summary),
            cell(field.accepts),
            cell(field.default)
        )
        .unwrap();
    }
    table
}

fn page() -> String {
    let command = Cli::command();
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n## Shared by commands\n");
    for (heading, about) in GROUPS {
        let args = group(&command, heading);
        assert!(!args.is_empty(), "{heading}");
        write!(page, "\n### {heading}\n\n{about}\n\n{}", table(&args)).unwrap();
    }
    page.push_str("\n## Commands\n");
    for subcommand in command.get_subcommands() {
        command_section(
            subcommand,
            &format!(" {}", subcommand.get_name()),
            &mut page,
        );
    }
    write!(page, "\n{}", tenant_settings()).unwrap();
    page.replace("|  |", "| |").replace("|  |", "| |")
}

#[test]
fn the_page_of_settings_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = page();
    if std::env::var_os("VOICE_OTP_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/configuration.md is out of date: VOICE_OTP_BLESS=1 cargo test -p voice-otp-worker"
    );
}
