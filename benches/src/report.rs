//! Series of measurements, and tables of them.

/// The results of several rounds.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            values: Vec::new(),
        }
    }
}

/// The median.
pub(crate) fn median(series: &Series) -> f64 {
    share(&series.values, 0.5)
}

/// The value below which this share of the values lies.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list"
)]
pub(crate) fn share(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

/// Prints the minimum, median and maximum of each series.
pub(crate) fn table(series: &[Series], unit: &str) {
    println!(
        "  {:<28} {:>10} {:>10} {:>10}  {unit}",
        "", "min", "median", "max"
    );
    for series in series {
        let at = |place| share(&series.values, place);
        println!(
            "  {:<28} {:>10.0} {:>10.0} {:>10.0}",
            series.name,
            at(0.0),
            at(0.5),
            at(1.0)
        );
    }
}
