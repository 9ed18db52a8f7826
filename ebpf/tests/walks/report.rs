//! What failed, with what the nodes counted.

use anyhow::Result;

use super::lab::Lab;
use super::talk::Said;

/// Runs every case, then tells all that failed, with what the nodes counted.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// Notes the case when it failed, or its answer is not good.
    pub(crate) fn case(
        &mut self,
        name: &str,
        outcome: Result<Said>,
        good: impl FnOnce(&Said) -> bool,
    ) {
        match outcome {
            Ok(said) if good(&said) => {}
            Ok(said) => self.failures.push(format!("{name}: {said:?}")),
            Err(error) => self.failures.push(format!("{name}: {error:#}")),
        }
    }

    /// Fails when a case did.
    pub(crate) fn done(self, lab: &mut Lab) -> Result<()> {
        if self.failures.is_empty() {
            return Ok(());
        }
        for node in &mut lab.nodes {
            let counts = node.counts()?;
            println!("node {}: {counts:#?}", node.id);
        }
        anyhow::bail!(
            "{} walks failed:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        )
    }
}
