//! Forgets flows that are over, while packets go on.
//!
//! A flow has two entries, and the programs may begin another one under the same keys at any moment: a client's port
//! that is used again needs no more than a handshake. Looking and removing are two steps, and this thread may rest
//! between them for as long as the scheduler likes, so no look says what a removal removes. Hence:
//!
//! - An entry is taken, not removed: the kernel tells in one step what went. What turns out to live is put back,
//!   unless the programs began anew meanwhile. By then they have missed it for as long as some calls take, and only
//!   if it came to life between a look and the call right after it.
//! - The client's entry goes first. Without it nothing is lost: any packet of the client's writes it again, and
//!   answers have theirs. The other way round an answer would leave as if nobody had asked, and nothing that the
//!   client sends but a SYN would mend that.
//! - The answers' entry is looked at again before it is taken, and only one of the same wire tuple is: another's flow
//!   may have got the task's port for the client. A client that has spoken since, and so has its entry again, keeps it.
//! - When this process ends between any two steps, at worst one entry is left. The programs serve a client that
//!   opens anew in spite of either (see `weft_ebpf::conntrack`), and a later round forgets it.

use weft_abi::{Flow, FlowKey, flow, tcp};

use crate::{DataplaneError, flows::Pair};

type Result<T> = std::result::Result<T, DataplaneError>;

/// The two tables of flows.
pub(crate) trait FlowTables {
    /// An entry of the table that never evicts.
    fn established(&self, key: &FlowKey) -> Result<Option<Flow>>;
    /// An entry of the table of new flows.
    fn young(&self, key: &FlowKey) -> Result<Option<Flow>>;
    /// Removes an established entry and tells, in the same step, what it was.
    fn take(&self, key: &FlowKey) -> Result<Option<Flow>>;
    /// Writes an entry that was taken, unless there is one again; where there is no room for it, among the new ones.
    fn put_back(&self, key: &FlowKey, flow: &Flow) -> Result<()>;
}

/// Forgets a flow that looked as if it was over, if it still does.
pub(crate) fn forget(
    tables: &impl FlowTables,
    seen: &Pair,
    is_over: impl Fn(&Pair) -> Result<bool>,
) -> Result<()> {
    // What was read along with all the others is old.
    let mut pair = Pair::default();
    if let Some(key) = seen.wire_key() {
        let wire = tables.established(&key)?;
        let known = match wire {
            // The client's entry may be new again where the answers' is established.
            None => tables.young(&key)?,
            known => known,
        };
        pair.wire = known.map(|flow| (key, flow));
    }
    if let Some((key, _)) = seen.reply {
        pair.reply = own(seen, tables.established(&key)?).map(|flow| (key, flow));
    }
    if pair.is_empty() || !is_over(&pair)? {
        return Ok(());
    }
    if let Some((key, _)) = pair.wire
        && let Some(taken) = tables.take(&key)?
    {
        pair.wire = Some((key, taken));
        if !is_over(&pair)? {
            return put_back(tables, &key, &taken);
        }
    }
    let Some((key, _)) = pair.reply else {
        return Ok(());
    };
    written_again(tables, &mut pair)?;
    pair.reply = own(seen, tables.established(&key)?).map(|flow| (key, flow));
    if pair.reply.is_none() || !is_over(&pair)? {
        return Ok(());
    }
    if let Some(taken) = tables.take(&key)? {
        pair.reply = Some((key, taken));
        written_again(tables, &mut pair)?;
        if !is_over(&pair)? {
            return put_back(tables, &key, &taken);
        }
    }
    Ok(())
}

/// A client that spoke since its entry was taken has one again, and counts on the answers'.
fn written_again(tables: &impl FlowTables, pair: &mut Pair) -> Result<()> {
    if let Some(key) = pair.wire_key()
        && let Some(young) = tables.young(&key)?
    {
        pair.wire = Some((key, young));
    }
    Ok(())
}

/// What was found under a key, if it is of the flow that was seen.
fn own(seen: &Pair, found: Option<Flow>) -> Option<Flow> {
    found.filter(|flow| seen.is_of(flow))
}

fn put_back(tables: &impl FlowTables, key: &FlowKey, taken: &Flow) -> Result<()> {
    // One that its client left is found again by the flow's next packet, if there is any; a SYN may be about to
    // begin another.
    if key.side == flow::WIRE && taken.tcp & (tcp::FIN | tcp::RST) != 0 {
        return Ok(());
    }
    match tables.young(key)? {
        // Written again for the same flow, by chance for another task: the one that was taken knows better.
        Some(young) if key.side == flow::WIRE && young.tcp & tcp::SYN == 0 => {}
        Some(_) => return Ok(()),
        None => {}
    }
    tables.put_back(key, taken)
}

#[cfg(test)]
mod tests;
