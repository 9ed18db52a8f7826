//! Sockets that hooks led to a task which is gone are ended.

use std::{os::fd::AsFd as _, time::Instant};

use super::Keeper;
use crate::{
    DataplaneError,
    kernel::door::Kernel,
    led::{self, Led},
};

/// What goes wrong where the kernel does not end them.
pub(super) const NOT_ENDED: &str =
    "UDP sockets of this host that are connected to a task which is gone stay so";

impl<K: Kernel> Keeper<K> {
    /// Ends them, where some may be. That it cannot be done is told once, and is no reason to refuse everything else.
    pub(super) fn end_led(&mut self) {
        let Some(ended) = self.try_end_led().transpose() else {
            return;
        };
        if let Ok(count @ 1..) = &ended {
            tracing::info!(
                count,
                "UDP sockets were ended: what they were led to is gone"
            );
        }
        let refused = ended.err().map(|error| error.to_string());
        if let Some(refused) = refused
            .as_ref()
            .filter(|_| refused != self.not_ended_because)
        {
            tracing::warn!(%refused, "{NOT_ENDED}");
        }
        self.not_ended_because = refused;
    }

    /// How many were ended; none when there was no reason to look.
    fn try_end_led(&mut self) -> Result<Option<usize>, DataplaneError> {
        // Who is not written yet is not gone.
        let (Some(held), Some(desired)) = (&self.held, &self.desired) else {
            return Ok(None);
        };
        let (living, now) = (led::living(held), Instant::now());
        if !self.lookout.begin(&living, now) {
            return Ok(None);
        }
        let led = self.kernel.led()?;
        let lost = self.lookout.lost(&living, led, now);
        let mut ended = 0;
        let mut result = Ok(());
        if !lost.is_empty() {
            let connected = self.kernel.connected(None)?;
            let own = led::still_there(&lost, connected);
            ended += self.kernel.end(None, &own)?;
            let is_own = |led: &Led| own.iter().any(|socket| socket.cookie == led.0.cookie);
            let lost: Vec<Led> = lost.into_iter().filter(|led| !is_own(led)).collect();
            for local in self.sandboxes.values() {
                let nets = local.endpoints().map(|endpoint| endpoint.net).collect();
                let lost = led::of_task(&lost, &nets, &desired.subnets);
                if lost.is_empty() {
                    continue;
                }
                let inside = Some(local.netns.as_fd());
                let end = |kernel: &mut K| {
                    let own = led::still_there(&lost, kernel.connected(inside)?);
                    kernel.end(inside, &own)
                };
                match end(&mut self.kernel) {
                    Ok(count) => ended += count,
                    // The other tasks' can be ended nevertheless.
                    Err(error) => result = result.and(Err(error)),
                }
            }
        }
        result?;
        self.lookout.finish(living, now);
        Ok(Some(ended))
    }
}
