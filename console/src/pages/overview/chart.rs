//! Deliveries by hour as a bar chart, and as a table for those who can't see it.

use maud::{Markup, html};

use crate::services::deliveries::{Figures, HourFigures};

/// Size of the bars' area, in SVG units.
const WIDTH: i64 = 720;
const HEIGHT: i64 = 160;
/// Space below the bars for the hours' names.
const LABEL_HEIGHT: i64 = 24;
/// The hours of every fourth bar are written below it.
const LABEL_EVERY: i64 = 4;

pub(super) fn deliveries_by_hour(figures: &Figures) -> Markup {
    if figures.deliveries == 0 {
        return html! { p.empty { "No deliveries yet." } };
    }
    html! {
        (bars(figures))
        details {
            summary { "Show as table" }
            table {
                thead { tr {
                    th scope="col" { "Hour (UTC)" }
                    th scope="col" { "Deliveries" }
                    th scope="col" { "Delivered" }
                } }
                tbody {
                    @for hour in &figures.by_hour {
                        tr {
                            td { (hour.hour.get(..16).unwrap_or_default().replace('T', " ")) }
                            td { (hour.deliveries) }
                            td { (hour.delivered) }
                        }
                    }
                }
            }
        }
    }
}

fn bars(figures: &Figures) -> Markup {
    let most = figures
        .by_hour
        .iter()
        .map(|hour| hour.deliveries)
        .max()
        .unwrap_or(1)
        .max(1);
    let hours = figures.by_hour.len();
    let step = WIDTH / i64::try_from(hours).unwrap_or(1).clamp(1, 200);
    let width = (step - 4).clamp(3, 60);
    let summary = format!(
        "{} deliveries in {hours} hours, at most {most} per hour",
        figures.deliveries
    );
    let height = |count: i64| count * (HEIGHT - 8) / most;
    let bar = |n: i64, hour: &HourFigures| {
        let (left, all, delivered) = (
            n * step + 2,
            height(hour.deliveries),
            height(hour.delivered),
        );
        html! {
            rect.all x=(left) y=(HEIGHT - all) width=(width) height=(all) rx="2" {}
            rect.good x=(left) y=(HEIGHT - delivered) width=(width) height=(delivered) rx="2" {}
            @if n % LABEL_EVERY == 0 {
                text x=(left) y=(HEIGHT + 16) { (hour.hour.get(11..16).unwrap_or_default()) }
            }
        }
    };
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT + LABEL_HEIGHT) } role="img"
            aria-label=(summary) {
            line x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            @for (n, hour) in (0_i64..).zip(&figures.by_hour) { (bar(n, hour)) }
        }
    }
}
