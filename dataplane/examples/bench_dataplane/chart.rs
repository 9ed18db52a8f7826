//! The chart of a run.

use std::fmt::Write as _;

use crate::{gauge::Kind, record::Record};

/// Throughput and connections of every way, as an SVG picture.
pub(crate) fn svg(record: &Record) -> String {
    let ways = record.ways();
    let row = 22;
    let height = 60 + row * ways.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1000\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"360\" y=\"24\" font-weight=\"bold\">Gbit/s up</text>\
         <text x=\"690\" y=\"24\" font-weight=\"bold\">connections/s</text>\n"
    );
    for (left, kind) in [(360.0, Kind::Up), (690.0, Kind::Connect)] {
        let rate = |name: &str| record.middle(name, kind).rate;
        let most = ways
            .iter()
            .map(|name| rate(name))
            .fold(f64::MIN_POSITIVE, f64::max);
        for (place, name) in ways.iter().enumerate() {
            let rate = rate(name);
            let (y, width) = (40 + row * place, 250.0 * rate / most);
            let colour = if name.starts_with("weft") {
                "#2b6cb0"
            } else {
                "#a0aec0"
            };
            let label = if kind == Kind::Up {
                format!("{rate:.1}")
            } else {
                format!("{rate:.0}")
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.0}\" height=\"14\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"{}\">{label}</text>",
                left + width + 5.0,
                y + 12
            );
        }
    }
    for (place, name) in ways.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{name}</text>",
            52 + row * place
        );
    }
    svg + "</svg>\n"
}
