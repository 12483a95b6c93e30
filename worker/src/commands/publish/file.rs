//! `voice-otp publish --file`: events as they are, one per line.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::SecretString;
use voice_otp_publisher::{Publisher, Settings, event};
use zeroize::Zeroizing;

use super::SOURCE;
use crate::commands::CommandError;
use crate::output::{print_error, print_line};

/// The maximum number of events that wait for the broker's confirmation at once.
const MAX_UNCONFIRMED: usize = 512;

/// Counts the results and reports each failed line.
struct Progress {
    bar: ProgressBar,
    published: u64,
    failed: u64,
}

pub(super) async fn publish(url: &SecretString, file: &Path) -> Result<(), CommandError> {
    let lines = read_lines(file)?;
    let publisher =
        Publisher::start(Settings::new(url.clone(), SOURCE)).context("use the broker URL")?;
    let mut progress = Progress {
        bar: progress_bar(lines.len()),
        published: 0,
        failed: 0,
    };
    let mut unconfirmed = FuturesOrdered::new();
    for (number, text) in (1..).zip(lines) {
        if text.trim().is_empty() {
            progress.bar.inc(1);
            continue;
        }
        if unconfirmed.len() >= MAX_UNCONFIRMED
            && let Some((number, result)) = unconfirmed.next().await
        {
            progress.record(number, result);
        }
        let publisher = &publisher;
        match event::message(Zeroizing::new(text.as_bytes().to_vec())) {
            Ok(message) => unconfirmed.push_back(async move {
                (number, publisher.publish(message).await.map_err(Into::into))
            }),
            Err(error) => progress.record(number, Err(error)),
        }
    }
    while let Some((number, result)) = unconfirmed.next().await {
        progress.record(number, result);
    }
    progress.bar.finish_and_clear();
    publisher.close().await;
    print_line(&format!(
        "{} published, {} failed",
        progress.published, progress.failed
    ))?;
    if progress.failed > 0 {
        Err(CommandError::Reported)
    } else {
        Ok(())
    }
}

impl Progress {
    fn record(&mut self, line: usize, result: Result<(), event::EventError>) {
        self.bar.inc(1);
        match result {
            Ok(()) => self.published += 1,
            Err(error) => {
                self.failed += 1;
                self.bar
                    .suspend(|| print_error(&format!("line {line}: {error}")));
            }
        }
    }
}

/// The lines of a file, or of standard input for `-`. They contain codes.
fn read_lines(file: &Path) -> anyhow::Result<Vec<Zeroizing<String>>> {
    let reader: Box<dyn std::io::BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let opened =
            std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
        Box::new(std::io::BufReader::new(opened))
    };
    let lines = reader.lines().map(|line| line.map(Zeroizing::new));
    lines.collect::<Result<_, _>>().context("read the events")
}

fn progress_bar(lines: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(lines).unwrap_or(0));
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}
