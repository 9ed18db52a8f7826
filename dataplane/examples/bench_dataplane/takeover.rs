//! What a connection notices while the data plane's process goes and another takes over.

use std::time::{Duration, Instant};

use anyhow::Result;
use weft_types::service::Protocol;

use crate::{
    lan::{Lan, host4, ingress, steady::Steady},
    record::{Record, median},
};

/// What becomes of the processes of both hosts, and of the programs that they left.
#[derive(Clone, Copy)]
enum Change {
    /// Nothing.
    None,
    /// They go, and come back as they were.
    Restart,
    /// They go, and another version comes: none of the programs is its own.
    Upgrade,
}

/// How long each phase is listened to before and after.
const PHASE: Duration = Duration::from_secs(1);

/// One phase: milliseconds of the slowest answer, and seconds until the processes had taken over.
async fn phase(lan: &mut Lan, steady: &Steady, change: Change) -> Result<(f64, f64)> {
    steady.worst();
    tokio::time::sleep(PHASE).await;
    let begun = Instant::now();
    if !matches!(change, Change::None) {
        lan.hosts.clear();
        for host in [1, 2] {
            if matches!(change, Change::Upgrade) {
                let dir = lan.pin_dir(host);
                crate::lan::run(&format!("mv {0}/programs-* {0}/programs-0", dir.display()))?;
            }
            lan.start(host).await?;
        }
        lan.apply().await?;
    }
    let took = begun.elapsed().as_secs_f64();
    tokio::time::sleep(PHASE).await;
    Ok((steady.worst().as_secs_f64() * 1e3, took))
}

/// Asks through a remote published port while all that happens, and writes down what was noticed.
///
/// # Errors
/// When an answer is lost.
pub(crate) async fn measure(record: &mut Record, rounds: u32) -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.start_all().await?;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80)]);
    lan.add_task(1, Some(web), 2, &[(ingress(), &["10.0.0.5/24"])])
        .await?;
    lan.apply().await?;
    lan.serve("t1", 80)?;
    let steady = Steady::start(&lan, (host4(1), 8000).into())?;
    let phases = [
        ("nothing happens", Change::None),
        ("both agents stop and come back", Change::Restart),
        ("another version takes over on both hosts", Change::Upgrade),
    ];
    let mut found = phases.map(|_| Vec::new());
    for _ in 0..rounds {
        for ((_, change), found) in phases.iter().zip(&mut found) {
            found.push(phase(&mut lan, &steady, *change).await?);
        }
    }
    steady.finish()?;
    for ((name, _), found) in phases.iter().zip(found) {
        let (waits, times): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
        let most = waits.iter().copied().fold(0.0, f64::max);
        record.took_over(name, median(waits), most, median(times));
    }
    Ok(())
}
