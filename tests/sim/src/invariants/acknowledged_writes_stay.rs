//! An acknowledged write is never lost: whoever applies the place of a write applies that write.

use std::collections::BTreeMap;

use weft_control::invariant::Broken;

use crate::wire::HostId;

const SENTENCE: &str = "an acknowledged write is never lost";

/// What was applied, by place.
#[derive(Debug, Default)]
pub(super) struct History {
    marks: BTreeMap<u64, u64>,
    acknowledged: u64,
}

impl History {
    /// A manager applied an entry; answers whether it is the first to.
    pub(super) fn applies(&mut self, host: HostId, index: u64, mark: u64) -> Result<bool, Broken> {
        match self.marks.get(&index) {
            Some(known) if *known == mark => Ok(false),
            Some(_) => Err(Broken::new(
                SENTENCE,
                format!("manager {host} applies another entry {index} than others did"),
            )),
            None => {
                let last = self.marks.last_key_value().map_or(0, |(last, _)| *last);
                if index != last + 1 {
                    let case = format!(
                        "manager {host} applies {index}, and nobody did {}",
                        last + 1
                    );
                    return Err(Broken::new(SENTENCE, case));
                }
                self.marks.insert(index, mark);
                Ok(true)
            }
        }
    }

    /// Somebody was told that a write is done.
    pub(super) fn acknowledges(&mut self, index: u64, mark: u64) -> Result<(), Broken> {
        self.acknowledged = self.acknowledged.max(index);
        if self.marks.get(&index) == Some(&mark) {
            Ok(())
        } else {
            Err(Broken::new(
                SENTENCE,
                format!("entry {index} is not what was acknowledged"),
            ))
        }
    }

    pub(super) fn last_acknowledged(&self) -> u64 {
        self.acknowledged
    }
}
