//! Which network revision each node's kernel holds.

/// What one node has acknowledged in its session.
///
/// Revisions are commit indexes of the store. A node whose picture of the network did not change
/// by a commit is sent nothing for it, so what it holds counts as every later commit that left its
/// picture as it is.
#[derive(Debug, Clone, Default)]
pub struct Acked {
    /// What the node reported, in this session.
    applied: u64,
    /// The revision of the last picture sent.
    sent: u64,
    /// The last commit for which that picture still holds.
    holds_until: u64,
}

impl Acked {
    /// A picture with `revision` was sent.
    pub fn sent(&mut self, revision: u64) {
        self.sent = revision;
        self.holds_until = revision;
    }

    /// The picture of commit `index` is the one that was sent last. Whether that is news.
    pub fn still(&mut self, index: u64) -> bool {
        let news = self.is_settled() && index > self.holds_until;
        self.holds_until = self.holds_until.max(index);
        news
    }

    /// The node reported `revision`. Whether that is news.
    pub fn report(&mut self, revision: u64) -> bool {
        // Numbers never sent in this session say nothing.
        let news = revision <= self.sent && revision > self.applied;
        if news {
            self.applied = revision;
        }
        news
    }

    fn is_settled(&self) -> bool {
        self.sent > 0 && self.applied == self.sent
    }

    /// The last commit that the node's kernel is known to agree with; 0 is none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        if self.is_settled() {
            self.holds_until
        } else {
            self.applied
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_picture_counts_for_later_commits() {
        let mut acked = Acked::default();
        acked.sent(5);
        acked.still(7);
        assert_eq!(acked.revision(), 0);
        assert!(acked.report(5));
        assert_eq!(acked.revision(), 7);
        assert!(acked.still(9));
        assert_eq!(acked.revision(), 9);
        acked.sent(10);
        assert_eq!(acked.revision(), 5);
        assert!(acked.report(10));
        assert_eq!(acked.revision(), 10);
    }

    #[test]
    fn a_number_never_sent_says_nothing() {
        let mut acked = Acked::default();
        acked.sent(5);
        assert!(!acked.report(6));
        assert_eq!(acked.revision(), 0);
    }
}
