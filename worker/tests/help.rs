//! The `--help` of every command, so that its wording is reviewed in a diff. After a change:
//! `INSTA_UPDATE=always cargo test -p voice-otp-worker`.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use clap::{Command, CommandFactory as _};
use voice_otp_worker::args::Cli;

/// The values of environment variables would be shown otherwise.
fn without_values(command: Command) -> Command {
    command
        .mut_args(|arg| arg.hide_env_values(true))
        .mut_subcommands(without_values)
}

fn render(command: &mut Command, name: &str, help: &mut Vec<(String, String)>) {
    let subcommands: Vec<String> = command
        .get_subcommands()
        .map(|subcommand| subcommand.get_name().to_owned())
        .filter(|subcommand| subcommand != "help")
        .collect();
    // clap indents empty lines.
    let text = command.render_long_help().to_string();
    let text = text
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n");
    help.push((name.replace(' ', "-"), text));
    for subcommand in subcommands {
        let child = command.find_subcommand_mut(&subcommand).unwrap();
        render(child, &format!("{name} {subcommand}"), help);
    }
}

fn all() -> Vec<(String, String)> {
    let mut command = without_values(Cli::command()).term_width(100);
    command.build();
    let mut help = Vec::new();
    render(&mut command, "voice-otp", &mut help);
    help
}

#[test]
fn the_help_of_every_command_is_as_reviewed() {
    let help = all();
    assert!(help.len() > 25);
    for (name, text) in help {
        insta::with_settings!({
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(format!("help-{name}"), text);
        });
    }
}

#[test]
fn the_first_line_of_each_text_has_no_full_stop() {
    fn check(command: &Command) {
        let about = command.get_about().unwrap().to_string();
        assert!(!about.ends_with('.'), "{about}");
        for arg in command.get_arguments().filter(|arg| !arg.is_global_set()) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                !help.is_empty() && !help.ends_with('.'),
                "{}: {help}",
                arg.get_id()
            );
        }
        for subcommand in command.get_subcommands() {
            check(subcommand);
        }
    }
    check(&Cli::command());
}
