//! What the node tells of itself.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::Input;
use crate::{executor::Executor, network::Wiring};

/// Between two looks at the engine.
const DESCRIBE_PERIOD: Duration = Duration::from_secs(20);
/// The same while it does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Between two complaints about what goes on failing.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(300);

/// Between two looks at the keys for encrypted networks.
const KEYS_PERIOD: Duration = Duration::from_millis(500);

/// The host's name, from its UTS namespace.
pub(super) fn hostname() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Tells engine, resources and addresses, now and when they change.
pub(super) async fn describe(executor: Arc<dyn Executor>, inputs: mpsc::Sender<Input>) {
    let mut complaint = Complaint::default();
    loop {
        let pause = match executor.describe().await {
            Ok(mut description) => {
                if complaint.ends() {
                    tracing::info!("the engine answers again");
                }
                // The engine may have been started under another name.
                description.hostname = hostname();
                let told = inputs.send(Input::Described(Box::new(description))).await;
                if told.is_err() {
                    return;
                }
                DESCRIBE_PERIOD
            }
            Err(failure) => {
                if complaint.is_due(Instant::now()) {
                    tracing::warn!(%failure, "the engine does not answer; tasks and network stay as they are");
                }
                RETRY
            }
        };
        sleep(pause).await;
        if inputs.send(Input::Addresses(addresses())).await.is_err() {
            return;
        }
    }
}

/// Tells of the keys for encrypted networks, again and again.
pub(super) async fn keys(wiring: Arc<dyn Wiring>, inputs: mpsc::Sender<Input>) {
    while inputs.send(Input::Keys(wiring.keys().await)).await.is_ok() {
        sleep(KEYS_PERIOD).await;
    }
}

/// When to speak of what goes on failing: at once, then rarely.
#[derive(Default)]
pub(super) struct Complaint {
    said: Option<Instant>,
}

impl Complaint {
    /// It has failed again: whether to say so now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self
            .said
            .is_none_or(|said| now.duration_since(said) >= COMPLAINT_PERIOD);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }

    /// It works: whether anybody was told that it did not.
    pub(super) fn ends(&mut self) -> bool {
        self.said.take().is_some()
    }
}

/// All global addresses of the host's interfaces, both families. Interfaces of sandboxes and
/// bridges are the host's too: a task may reach it there.
pub(super) fn addresses() -> BTreeSet<IpAddr> {
    let Ok(interfaces) = getifaddrs() else {
        return BTreeSet::new();
    };
    let up = interfaces.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let addresses = up.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    addresses.filter(|address| is_global(*address)).collect()
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_failing_is_told_at_once_and_then_rarely() {
        let mut complaint = Complaint::default();
        let begun = Instant::now();
        assert!(!complaint.ends(), "nothing was said yet");
        let said = (0..600).filter(|second| complaint.is_due(begun + Duration::from_secs(*second)));
        assert_eq!(said.count(), 2, "in ten minutes");
        assert!(complaint.ends());
        assert!(!complaint.ends());
        assert!(complaint.is_due(begun), "it is news again");
    }
}
