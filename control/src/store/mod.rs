//! The replicated state: tables, transactions, snapshots, and the feed of events.
//!
//! PURE. [`Store`] is what every manager applies the log to, entry by entry, and the same entries
//! give the same state everywhere. [`View`] is that state at one moment: persistent maps, so a
//! view costs nothing to take and never changes under its reader. [`Draft`] is a view that one
//! thinks aloud in: loops change it, and what is different in the end becomes a transaction.
//!
//! Invariants, held by [`Store::apply`] which refuses whole what would break them: names are
//! unique within a kind (letter case aside); an address of a network, a backend number, a VNI and
//! a port of the routing mesh have one owner each; a write replaces only the version its writer
//! saw. Beyond the objects the state remembers where the series of addresses, backends, VNIs and
//! node numbers stand and which addresses were freed a short time ago ([`Ledger`]).

mod apply;
mod draft;
mod ids;
mod ledger;
mod object;
mod scope;
mod snapshot;
#[cfg(test)]
mod tests;
mod view;

pub use apply::{ApplyError, Store};
pub use draft::{Draft, Outcome};
pub use ids::IdSource;
pub use ledger::{Holder, Ledger, REST, VNI_OPTION};
pub use object::{Change, Event, Key, Object, Transaction};
pub use scope::{Differences, Scope};
pub use snapshot::RestoreError;
pub use view::{Load, View};
