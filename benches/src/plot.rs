//! The chart of the throughput.

use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::{
    BLACK, ChartBuilder, Color as _, IntoDrawingArea as _, IntoFont as _, IntoSegmentedCoord as _,
    RGBColor, Rectangle, SVGBackend, SegmentValue, Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Series, median, share};

const OURS: RGBColor = RGBColor(32, 96, 160);
const OTHERS: RGBColor = RGBColor(150, 150, 150);

/// Draws one bar per series: its median, with a box from minimum to maximum.
pub(crate) fn bars(series: &[Series], title: &str, file: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(file.parent().context("the chart's path has a folder")?)?;
    let most = series
        .iter()
        .flat_map(|series| series.values.iter().copied())
        .fold(1.0, f64::max)
        * 1.15;
    let rows = series.len();
    let root =
        SVGBackend::new(file, (860, 60 + 46 * u32::try_from(series.len())?)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(210)
        .build_cartesian_2d(0.0..most, (0..rows).into_segmented())?;
    let name = |row: &SegmentValue<usize>| match row {
        SegmentValue::CenterOf(row) => series
            .iter()
            .rev()
            .nth(*row)
            .map(|series| series.name.clone())
            .unwrap_or_default(),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_labels(8)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_labels(rows)
        .y_label_formatter(&name)
        .y_label_style(("sans-serif", 13))
        .draw()?;
    for (row, series) in (0..).zip(series.iter().rev()) {
        let color = if series.name.starts_with("voice-otp") {
            OURS
        } else {
            OTHERS
        };
        let middle = median(series);
        let (least, most) = (share(&series.values, 0.0), share(&series.values, 1.0));
        let mut bar = Rectangle::new(
            [
                (0.0, SegmentValue::Exact(row)),
                (middle, SegmentValue::Exact(row + 1)),
            ],
            color.mix(0.85).filled(),
        );
        bar.set_margin(6, 6, 0, 0);
        let mut spread = Rectangle::new(
            [
                (least, SegmentValue::Exact(row)),
                (most, SegmentValue::Exact(row + 1)),
            ],
            BLACK.stroke_width(1),
        );
        spread.set_margin(12, 12, 0, 0);
        chart.draw_series([bar, spread])?;
        let label = ("sans-serif", 13)
            .into_font()
            .color(&BLACK)
            .pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series([Text::new(
            format!("  {middle:.0}/s"),
            (most, SegmentValue::CenterOf(row)),
            label,
        )])?;
    }
    root.present()?;
    Ok(())
}
