//! Programs, links and map entries removed by hand are put back without anybody asking, and counted.
//! Needs root.

mod lan;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result};
use lan::{CLIENT4, Lan, eventually, host4};
use weft_abi::{FrontKey, maps};
use weft_dataplane::Repairs;

/// The directory of a host's maps.
fn maps_of(lan: &Lan, host: u32) -> Result<PathBuf> {
    let mut entries = std::fs::read_dir(lan.pin_dir(host))?.flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with("maps-"));
    Ok(found.context("a directory of maps")?.path())
}

/// A map as somebody else would open it: by its pin.
type Front = aya::maps::HashMap<aya::maps::MapData, [u8; size_of::<FrontKey>()], [u8; FRONT_BYTES]>;
const FRONT_BYTES: usize = size_of::<weft_abi::Front>();

fn front_of(lan: &Lan, host: u32) -> Result<Front> {
    let map = aya::maps::MapData::from_pin(maps_of(lan, host)?.join(maps::FRONT.name))?;
    Ok(Front::try_from(aya::maps::Map::HashMap(map))?)
}

async fn repairs(lan: &Lan, host: u32) -> Repairs {
    lan.hosts[&host].status().await.repairs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_entry_deleted_by_hand_comes_back_and_is_counted() -> Result<()> {
    let lan = Lan::published(2, 2).await?;
    lan.ask_tcp("c", (host4(1), 8000))?;
    let mut front = front_of(&lan, 1)?;
    let before: BTreeMap<_, _> = front.iter().collect::<Result<_, _>>()?;
    assert!(!before.is_empty());
    for key in before.keys() {
        front.remove(key)?;
    }
    // Nobody applies anything: the keeper looks for itself.
    eventually("the entries are back", async || {
        let now: BTreeMap<_, _> = front.iter().collect::<Result<_, _>>()?;
        Ok(now == before)
    })
    .await?;
    lan.ask_tcp("c", (host4(1), 8000))?;
    let expected = Repairs {
        entries: before.len() as u64,
        ..Repairs::default()
    };
    assert_eq!(repairs(&lan, 1).await, expected);
    assert_eq!(repairs(&lan, 2).await, Repairs::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_taken_off_by_their_pins_are_attached_again_and_counted() -> Result<()> {
    let lan = Lan::published(2, 2).await?;
    lan.ask_tcp("c", (host4(1), 8000))?;
    for (host, program) in [(1, "uplink_in-"), (2, "task_in-")] {
        let links = lan.pin_dir(host).join("links");
        let list = || -> Result<Vec<PathBuf>> {
            let entries = std::fs::read_dir(&links)?.flatten();
            let named = entries.filter(|e| e.file_name().to_string_lossy().starts_with(program));
            Ok(named.map(|entry| entry.path()).collect())
        };
        let pins = list()?;
        assert_eq!(pins.len(), 1, "{pins:?}");
        // The pin alone holds the link: with it the program goes off its interface.
        std::fs::remove_file(&pins[0])?;
        eventually("the program is attached again", async || {
            Ok(list()? == pins && repairs(&lan, host).await.programs > 0)
        })
        .await?;
        let expected = Repairs {
            programs: 1,
            ..Repairs::default()
        };
        assert_eq!(repairs(&lan, host).await, expected, "{program}");
        assert_eq!(
            lan.ask_tcp("c", (host4(1), 8000))?,
            format!("t1 {CLIENT4}"),
            "{program}"
        );
    }
    Ok(())
}
