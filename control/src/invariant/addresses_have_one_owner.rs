//! No two live endpoints of a network share an address.

use std::collections::BTreeMap;

use super::Broken;
use crate::store::View;

const SENTENCE: &str = "no two live endpoints of a network share an address";

pub(super) fn check(view: &View) -> Result<(), Broken> {
    let mut owners = BTreeMap::new();
    let mut own = |place, name: &str| match owners.insert(place, name.to_owned()) {
        Some(other) => Err(Broken::new(
            SENTENCE,
            format!("{place:?} is of {other} and of {name}"),
        )),
        None => Ok(()),
    };
    for task in view.tasks().filter(|task| !task.status.state.is_terminal()) {
        for attachment in &task.networks_attachments {
            for address in &attachment.addresses {
                own((attachment.network_id, address.ip()), &task.name)?;
            }
        }
    }
    for service in view.services() {
        for vip in &service.endpoint.virtual_ips {
            own((vip.network_id, vip.addr.ip()), &service.spec.name)?;
        }
    }
    Ok(())
}
