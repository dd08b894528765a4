//! Draws a run as a timeline.

use plotters::prelude::*;

use crate::record::{Lane, Run};
use crate::trouble::Trouble;

const SIZE: (u32, u32) = (1_000, 260);
/// Maximum of marks on one lane; more would overlap, and are left out.
const MAX_LABELS: usize = 24;
/// Number of lines over which the labels of neighbouring marks are distributed.
const LINES: usize = 3;
/// The lanes from the lowest up.
const LANES: [Lane; 4] = [Lane::Keepalive, Lane::Client, Lane::Gateway, Lane::Fault];

/// Draws the timeline of a run as an SVG document.
///
/// # Errors
/// The drawing library failed.
pub fn timeline(run: &Run) -> Result<String, Trouble> {
    let mut svg = String::new();
    draw(run, &mut svg).map_err(|error| Trouble::new(format!("drawing a timeline: {error}")))?;
    Ok(svg)
}

fn draw(run: &Run, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let first = run.marks.first().map_or(0, |mark| mark.at_ms).min(-200);
    let last = run.marks.last().map_or(1_000, |mark| mark.at_ms).max(1_000);
    let bound = run.findings.iter().find(|finding| finding.first).map(|finding| finding.bound_ms);
    // A margin of a tenth of the width is for the names on the left and the last labels on the
    // right.
    let tenth = seconds(last - first) / 10.0;
    let title = format!("{}, observed by the {}: {}", run.fault, run.role.name(), run.score.name());
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(36)
        .build_cartesian_2d(seconds(first) - tenth..seconds(last) + tenth, 0.0..4.0)?;
    chart.configure_mesh().disable_mesh().x_desc("seconds since the fault").draw()?;
    for (row, lane) in LANES.into_iter().enumerate() {
        let height = row as f64 + 0.2;
        let name = [(seconds(first) - tenth, height)];
        chart.draw_series(name.map(|at| Text::new(lane.name(), at, ("sans-serif", 12))))?;
        let here = run.marks.iter().filter(|mark| mark.lane == lane);
        for (at, mark) in here.take(MAX_LABELS).enumerate() {
            let (x, color) = (seconds(mark.at_ms), lane.color());
            let text_height = height + 0.2 + 0.2 * (at % LINES) as f64;
            chart.draw_series([Circle::new((x, height), 3, color.filled())])?;
            let style = ("sans-serif", 11).into_font().color(&color);
            chart.draw_series([Text::new(mark.what.clone(), (x, text_height), style)])?;
        }
    }
    if let Some(bound) = bound {
        let x = seconds(i64::try_from(bound)?);
        chart.draw_series(LineSeries::new([(x, 0.0), (x, 4.0)], RED.mix(0.5)))?;
    }
    root.present()?;
    Ok(())
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

impl Lane {
    fn name(self) -> &'static str {
        match self {
            Lane::Fault => "fault",
            Lane::Gateway => "gateway",
            Lane::Client => "client",
            Lane::Keepalive => "keepalive",
        }
    }

    fn color(self) -> RGBColor {
        match self {
            Lane::Fault => RED,
            Lane::Gateway => BLUE,
            Lane::Client => RGBColor(0, 128, 0),
            Lane::Keepalive => RGBColor(96, 96, 96),
        }
    }
}
