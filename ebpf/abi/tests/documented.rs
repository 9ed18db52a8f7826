//! Every reason of a drop stands where operators look it up, in its own words.

use weft_abi::Drop;

#[test]
fn the_page_of_troubles_has_every_reason() {
    let page = include_str!("../../../docs/trouble.md");
    let rows: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .collect();
    for reason in Drop::ALL {
        let row = format!("{} | ", reason.text());
        assert!(
            rows.iter().any(|line| line.starts_with(&row)),
            "docs/trouble.md has no row for {reason:?}: {:?}",
            reason.text()
        );
    }
}
