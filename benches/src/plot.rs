//! The throughput as a picture.

use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::{BLACK, ChartBuilder, Color as _, IntoDrawingArea as _, RGBColor, Rectangle, SVGBackend, Text, WHITE};

use crate::report::{Series, median, share};

const OURS: RGBColor = RGBColor(32, 96, 160);
const OTHERS: RGBColor = RGBColor(150, 150, 150);

/// Draws a bar for each, its median, with a line from the least to the most.
pub(crate) fn bars(series: &[Series], title: &str, file: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(file.parent().context("the picture has a folder")?)?;
    let most = series.iter().flat_map(|series| series.values.iter().copied()).fold(1.0, f64::max) * 1.15;
    let rows = i32::try_from(series.len())?;
    let root = SVGBackend::new(file, (860, 60 + 46 * u32::try_from(series.len())?)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .margin_left(210)
        .x_label_area_size(28)
        .build_cartesian_2d(0.0..most, 0..rows)?;
    chart
        .configure_mesh()
        .disable_y_axis()
        .disable_y_mesh()
        .x_labels(8)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for (row, series) in (0..).zip(series.iter().rev()) {
        let color = if series.name.starts_with("voice-otp") { OURS } else { OTHERS };
        let middle = median(series);
        chart.draw_series([Rectangle::new([(0.0, row), (middle, row + 1)], color.mix(0.85).filled())])?;
        let (least, most) = (share(&series.values, 0.0), share(&series.values, 1.0));
        chart.draw_series([Rectangle::new([(least, row), (most, row + 1)], BLACK.stroke_width(1))])?;
        chart.draw_series([Text::new(format!(" {middle:.0}/s"), (middle, row), ("sans-serif", 13))])?;
    }
    let names = root.margin(44, 30, 12, 10);
    for (row, series) in (0..).zip(series) {
        names.draw(&Text::new(series.name.clone(), (0, row * 40 + 12), ("sans-serif", 13)))?;
    }
    root.present()?;
    Ok(())
}
