//! Whether memory stays where it is.

/// How much more than early memory may be late and still count as the same: it goes up and down by requests.
const SLACK: f64 = 1.15;

/// Bytes in use that may be left by a write and still count as none.
pub(crate) const LEFT: f64 = 50.0;

/// Writes in a third of the load, at least, for what one leaves to be told: the log's cache fills and is emptied with
/// every 10,000.
const ENOUGH: f64 = 25_000.0;

/// Whether memory stays where it is: the middle of the first third of the looks and of the last; and all of them.
pub(crate) fn memory_told(memory: &[f64]) -> (String, String) {
    let middle = |looks: &[f64]| {
        let mut looks = looks.to_vec();
        looks.sort_by(f64::total_cmp);
        looks.get(looks.len() / 2).copied().unwrap_or(0.0)
    };
    let third = memory.len().div_ceil(3);
    let early = middle(&memory[..third]);
    let late = middle(&memory[memory.len() - third..]);
    let most = memory.iter().copied().fold(0.0, f64::max);
    // The word that `cargo xtask bench door` looks for.
    let verdict = if late > early * SLACK {
        "grows"
    } else {
        "flat"
    };
    let figure = format!(
        "**{verdict}**: **{early:.0} MiB** in the first third, **{late:.0} MiB** in the last (medians), {most:.0} at most"
    );
    let looks: Vec<String> = memory.iter().map(|look| format!("{look:.0}")).collect();
    (figure, looks.join(" "))
}

/// What a write leaves behind: the least bytes in use, in MiB, in the first third of the looks and in the last, against
/// the writes of a third.
pub(crate) fn left_told(in_use: &[f64], writes: f64) -> (String, String) {
    let least = |looks: &[f64]| looks.iter().copied().fold(f64::INFINITY, f64::min);
    let third = in_use.len().div_ceil(3);
    let early = least(&in_use[..third]);
    let late = least(&in_use[in_use.len() - third..]);
    let left = (late - early) * f64::from(1 << 20) / (2.0 * writes);
    let verdict = match left {
        _ if writes < ENOUGH => "too few writes to tell",
        left if left > LEFT => "grows",
        _ => "flat",
    };
    let figure = format!(
        "**{verdict}**: {early:.1} MiB in the first third, {late:.1} MiB in the last (the least of each), **{left:.0} bytes** a write"
    );
    let looks: Vec<String> = in_use.iter().map(|look| format!("{look:.0}")).collect();
    (figure, looks.join(" "))
}
