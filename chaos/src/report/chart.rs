//! The drawings of a report, as SVG.

use crate::{
    figures::{Slice, slices},
    record::Record,
    scenario::Harm,
};
use std::{fmt::Write as _, time::Duration};

const WIDTH: f64 = 940.0;
/// Room for the numbers of the axes, left of every drawing.
const LEFT: f64 = 56.0;
const PLOT: f64 = WIDTH - LEFT - 8.0;
/// How wide a digit of a fault's number is.
const DIGIT: f64 = 6.5;
/// More slices than this are narrower than a line.
const SLICES_MAX: u128 = 240;
/// Shorter ones hold too few operations for a percentile.
const SLICE_MIN: Duration = Duration::from_millis(100);

/// A part of a drawing: where it begins from above, and how high it is.
struct Pane {
    top: f64,
    height: f64,
}

impl Pane {
    /// Where a value between 0 and 1 is.
    fn y(&self, share: f64) -> f64 {
        self.top + self.height * (1.0 - share.clamp(0.0, 1.0))
    }
}

/// The next of 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value * 0.999_999);
    step.unwrap_or(10.0) * power
}

fn width_of_slices(length: Duration) -> Duration {
    let least = Duration::from_nanos((length.as_nanos() / SLICES_MAX) as u64);
    // Whole tenths of a second, so that slices have round names.
    let tenths = least.max(SLICE_MIN).as_millis().div_ceil(100) as u64;
    Duration::from_millis(tenths * 100)
}

/// Writes over time with what they took, and the faults behind them.
pub(super) fn timeline(record: &Record, length: Duration) -> String {
    let width = width_of_slices(length);
    let slices = slices(&record.operations, length, width);
    let rates = Pane { top: 40.0, height: 150.0 };
    let latencies = Pane { top: 244.0, height: 150.0 };
    let x = |at: f64| LEFT + PLOT * at / length.as_secs_f64().max(1e-9);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} 424\" role=\"img\" aria-label=\"Writes and their latencies over \
         time, with the faults\">\n"
    );
    bands(&mut svg, record, length, &x);
    seconds_below(&mut svg, length, &x, &[&rates, &latencies]);
    draw_rates(&mut svg, &slices, width, &x, &rates);
    draw_latencies(&mut svg, &slices, width, &x, &latencies);
    svg + "</svg>\n"
}

fn bands(svg: &mut String, record: &Record, length: Duration, x: &dyn Fn(f64) -> f64) {
    // Where a number fits in beside the last one.
    let mut free = 0.0;
    for (n, strike) in record.strikes.iter().enumerate() {
        let (from, end) = (strike.at as f64 / 1e9, length.as_secs_f64());
        let to = strike.over.map_or(end, |over| (over as f64 / 1e9).min(end));
        let class = match strike.harm {
            Harm::Kill | Harm::NodeKill => "kill",
            Harm::Pause | Harm::NodePause => "pause",
            other if other.is_of_network() => "network",
            Harm::Overload => "flood",
            Harm::CertificateEnd | Harm::Clock => "other",
            _ => "disk",
        };
        // Wide enough to be seen.
        let (left, wide) = (x(from), (x(to) - x(from)).max(2.0));
        let _ = write!(
            svg,
            "<g><title>{}: {} of {}, {from:.2}s to {to:.2}s</title><rect class=\"{class}\" \
             x=\"{left:.1}\" y=\"30\" width=\"{wide:.1}\" height=\"364\"/>",
            n + 1,
            strike.harm,
            super::escape(&strike.master),
        );
        if left >= free {
            let number = (n + 1).to_string();
            free = left + DIGIT * (number.len() + 1) as f64;
            let _ = write!(svg, "<text class=\"number\" x=\"{left:.1}\" y=\"26\">{number}</text>");
        }
        svg.push_str("</g>\n");
    }
}

/// The axis of time below each pane.
fn seconds_below(svg: &mut String, length: Duration, x: &dyn Fn(f64) -> f64, panes: &[&Pane]) {
    let step = round_up(length.as_secs_f64() / 12.0);
    let ticks = (length.as_secs_f64() / step) as usize;
    for pane in panes {
        let bottom = pane.y(0.0);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{}\" y2=\"{bottom}\"/>",
            LEFT + PLOT
        );
        for tick in 0..=ticks {
            let at = tick as f64 * step;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x(at),
                bottom + 16.0,
                short(at)
            );
        }
    }
}

/// A number without what it does not need.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line_at(svg: &mut String, y: f64, label: &str) {
    let _ = writeln!(
        svg,
        "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\"/><text x=\"{}\" \
         y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
        LEFT + PLOT,
        LEFT - 6.0,
        y + 4.0
    );
}

fn draw_rates(
    svg: &mut String,
    slices: &[Slice],
    width: Duration,
    x: &dyn Fn(f64) -> f64,
    pane: &Pane,
) {
    let seconds = width.as_secs_f64();
    let most = slices.iter().map(|it| it.writes.iter().sum::<usize>()).max().unwrap_or(0);
    let top = round_up((most as f64 / seconds).max(1.0));
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{LEFT}\" y=\"12\">Writes in a second: blue acknowledged, grey \
         refused, red unknown</text>"
    );
    for part in [0.5, 1.0] {
        line_at(svg, pane.y(part), &short(top * part));
    }
    for (n, slice) in slices.iter().enumerate() {
        let (left, right) = (x(n as f64 * seconds), x((n + 1) as f64 * seconds));
        let wide = (right.min(LEFT + PLOT) - left - 0.4).max(0.4);
        let mut below = 0.0;
        for (count, class) in slice.writes.iter().zip(["area", "refused", "unknown"]) {
            let share = *count as f64 / seconds / top;
            if *count > 0 {
                let (high, low) = (pane.y(below + share), pane.y(below));
                let _ = writeln!(
                    svg,
                    "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{high:.1}\" width=\"{wide:.1}\" \
                     height=\"{:.1}\"/>",
                    low - high
                );
            }
            below += share;
        }
    }
}

/// Milliseconds on a scale where each step is ten times the one before, from 1 to 10,000.
fn share_of_decades(ms: f64) -> f64 {
    ms.max(1.0).log10() / 4.0
}

fn draw_latencies(
    svg: &mut String,
    slices: &[Slice],
    width: Duration,
    x: &dyn Fn(f64) -> f64,
    pane: &Pane,
) {
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{LEFT}\" y=\"{}\">What acknowledged writes took: blue p50, violet \
         p99</text>",
        pane.top - 14.0
    );
    for (ms, label) in [(1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1e3, "1 s")] {
        line_at(svg, pane.y(share_of_decades(ms)), label);
    }
    line_at(svg, pane.y(1.0), "10 s");
    let seconds = width.as_secs_f64();
    let middle = |n: usize| x((n as f64 + 0.5) * seconds).min(LEFT + PLOT);
    let point = |n: usize, ms: Option<f64>| (middle(n), ms.map(|ms| pane.y(share_of_decades(ms))));
    let points = slices.iter().enumerate();
    draw_line(svg, "p99", points.clone().map(|(n, slice)| point(n, slice.p99_ms)));
    draw_line(svg, "p50", points.map(|(n, slice)| point(n, slice.p50_ms)));
}

/// A line that is broken where there is no value.
fn draw_line(svg: &mut String, class: &str, points: impl Iterator<Item = (f64, Option<f64>)>) {
    let (mut path, mut pen_down) = (String::new(), false);
    for (x, y) in points {
        if let Some(y) = y {
            let command = if pen_down { 'L' } else { 'M' };
            // A lone point is drawn as a short line.
            let dot = if pen_down { "" } else { "h1.5" };
            let _ = write!(path, "{command}{x:.1} {y:.1}{dot}");
        }
        pen_down = y.is_some();
    }
    let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
}

/// How many gaps were how long: bars of equal width in time.
pub(super) fn histogram(gaps: &[Duration]) -> String {
    let longest = gaps.iter().max().map_or(0.0, |gap| gap.as_secs_f64() * 1e3);
    let step = round_up((longest / 12.0).max(10.0));
    let bars = (longest / step) as usize + 1;
    let mut counts = vec![0_usize; bars];
    for gap in gaps {
        counts[((gap.as_secs_f64() * 1e3 / step) as usize).min(bars - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let pane = Pane { top: 36.0, height: 110.0 };
    let wide = PLOT / bars as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} 180\" role=\"img\" aria-label=\"Histogram of these times\">\n<text class=\"title\" x=\"{LEFT}\" y=\"12\">How often it was how \
         long, in milliseconds</text>\n"
    );
    for (bar, count) in counts.iter().enumerate() {
        let (left, high) = (LEFT + bar as f64 * wide, pane.y(*count as f64 / most as f64));
        let bottom = pane.y(0.0);
        if *count > 0 {
            let _ = writeln!(
                svg,
                "<rect class=\"area\" x=\"{:.1}\" y=\"{high:.1}\" width=\"{:.1}\" \
                 height=\"{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{count}</text>",
                left + 1.0,
                wide - 2.0,
                bottom - high,
                left + wide / 2.0,
                high - 4.0,
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{left:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            short(bar as f64 * step)
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{0}\" x2=\"{1}\" y2=\"{0}\"/>",
        pane.y(0.0),
        LEFT + PLOT
    );
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let rounded: Vec<f64> = [0.3, 1.0, 1.1, 37.0, 50.0, 999.0].map(round_up).into();
        assert_eq!(rounded, [0.5, 1.0, 2.0, 50.0, 50.0, 1000.0]);
        assert_eq!(width_of_slices(Duration::from_secs(10)), Duration::from_millis(100));
        assert_eq!(width_of_slices(Duration::from_secs(60)), Duration::from_millis(300));
        assert_eq!(width_of_slices(Duration::from_secs(3600)), Duration::from_secs(15));
    }
}
