//! All loops at once, until they have nothing to say.

use std::time::Duration;

use weft_types::Timestamp;

use crate::{
    allocator,
    dispatcher::{self, Acks},
    orchestrator::{self, Wakes},
    scheduler,
    store::{Draft, IdSource, Outcome, Scope, View},
};

/// Rounds after which a thought is committed as it is; the next one goes on from there.
const ROUNDS: usize = 8;

/// How often everything is looked at although nothing says so: what a scope wrongly left out is
/// found then.
const SWEEP: Duration = Duration::from_secs(60);

/// What must change so that allocator, orchestrator and scheduler all are content with `view`.
///
/// One transaction: a service created is allocated, has its tasks and their nodes in one commit.
/// Applied to its own result it answers no changes. Looks at everything; whoever asks often keeps
/// a [`Settler`].
#[must_use]
pub fn settle(view: &View, now: Timestamp, ids: &mut IdSource) -> Outcome {
    Settler::default().settle(view, now, ids)
}

/// Settles again and again, looking only at what changed since it was asked last.
///
/// What it remembers saves work and decides nothing: a fresh one, as a new leader has, comes to
/// the same result.
#[derive(Debug, Default)]
pub struct Settler {
    seen: Option<View>,
    /// What the last answer was about: it may never have been committed.
    open: Scope,
    wakes: Wakes,
    /// When the loops that serve nobody in particular want to be asked again.
    wake_at: Option<Timestamp>,
    swept: Option<Timestamp>,
}

impl Settler {
    /// What a leader writes: what the loops want, and the stops to which every live node has agreed, by the same view.
    /// Asked for one after the other, stops would wait for as long as others' writes give the loops something to do.
    pub fn decide(
        &mut self,
        view: &View,
        now: Timestamp,
        ids: &mut IdSource,
        acks: &Acks,
    ) -> Outcome {
        let settled = self.settle(view, now, ids);
        settled.beside(dispatcher::withdraw(view, now, acks))
    }

    /// As [`settle`].
    pub fn settle(&mut self, view: &View, now: Timestamp, ids: &mut IdSource) -> Outcome {
        let mut scope = self.scope(view, now);
        self.seen = Some(view.clone());
        self.open = Scope::default();
        if scope.is_empty() {
            return Outcome {
                changes: Vec::new(),
                wake_at: self.next_wake(),
            };
        }
        if scope.all {
            self.swept = Some(now);
        }
        let mut draft = Draft::new(view, now);
        let mut again = true;
        let mut left = Vec::new();
        for _ in 0..ROUNDS {
            self.merge(&scope);
            draft.take_dirty();
            allocator::run(&mut draft, ids, &scope);
            left.extend(orchestrator::run(&mut draft, ids, &scope, &mut self.wakes));
            // New tasks are allocated and placed in the same round.
            allocator::run(&mut draft, ids, &scope);
            scheduler::run(&mut draft, ids, &scope);
            scope = draft.take_dirty();
            if scope.is_empty() {
                again = false;
                break;
            }
        }
        if again || !left.is_empty() {
            draft.wake_at(now);
        }
        let outcome = draft.outcome();
        self.wake_at = outcome.wake_at;
        if outcome.changes.is_empty() {
            self.open = Scope::default();
        }
        self.open.services.extend(left);
        Outcome {
            changes: outcome.changes,
            wake_at: self.next_wake(),
        }
    }

    fn scope(&self, view: &View, now: Timestamp) -> Scope {
        let Some(seen) = &self.seen else {
            return Scope::all();
        };
        if self.swept.is_none_or(|swept| swept.after(SWEEP) <= now) {
            return Scope::all();
        }
        let mut scope = Scope::between(seen, view);
        scope.all |= self.open.all;
        scope.room |= self.open.room || self.wake_at.is_some_and(|at| at <= now);
        scope.services.extend(&self.open.services);
        scope.services.extend(self.wakes.due(now));
        scope
    }

    fn merge(&mut self, scope: &Scope) {
        self.open.all |= scope.all;
        self.open.room |= scope.room;
        self.open.services.extend(&scope.services);
    }

    fn next_wake(&self) -> Option<Timestamp> {
        let sweep = self.swept.map(|swept| swept.after(SWEEP));
        let wakes = [self.wakes.earliest(), self.wake_at, sweep];
        wakes.into_iter().flatten().min()
    }
}
