//! What a machine must have: named, then installed by the machine's package manager.
//!
//! Nothing that a package brings is started: the project runs its own daemons, in namespaces of its own.

mod kernel;
mod need;
mod packages;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use self::packages::{Lists, Package};
use crate::rights::require_root;
use crate::run::{find_program, run};

/// Names what the machine lacks, then installs it. Quick when nothing is missing.
///
/// # Errors
/// When something is missing and we are not root, or this is no machine of Debian's kind; the list has been printed then.
pub(crate) fn setup() -> Result<()> {
    bring(need::lacking)
}

/// The same, with the peers that benches measure beside.
///
/// # Errors
/// As [`setup`].
pub(crate) fn setup_with_peers() -> Result<()> {
    bring(need::lacking_with_peers)
}

fn bring(lacking: fn() -> Vec<need::Lack>) -> Result<()> {
    if let Some(words) = kernel::advice() {
        eprintln!("{words}");
    }
    let lacks = lacking();
    if lacks.is_empty() {
        return Ok(());
    }
    println!("this machine lacks:");
    for lack in &lacks {
        println!("  {}  ({})", lack.what, packages::names(&lack.packages));
    }
    if find_program("apt-get").is_none() {
        bail!(
            "there is no apt-get here; install the list above with this machine's package manager, then run this again"
        );
    }
    require_root("setup", "installs packages")?;
    let wanted: Vec<Package> = lacks.into_iter().flat_map(|lack| lack.packages).collect();
    install(&wanted)?;
    let still = lacking();
    if !still.is_empty() {
        let still = still
            .iter()
            .map(|lack| format!("{} ({})", lack.what, packages::names(&lack.packages)));
        bail!(
            "still missing after its packages were installed: {}",
            still.collect::<Vec<_>>().join("; ")
        );
    }
    Ok(())
}

fn install(wanted: &[Package]) -> Result<()> {
    println!("installing: {}", packages::names(wanted));
    let _quiet = NoServices::hold()?;
    let apt = |words: &[String]| {
        run("apt-get")
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .show()
    };
    apt(&["update".to_owned(), "-q".to_owned()])?;
    // Only fresh lists can say what some packages are called here.
    let words = packages::install_words(wanted, &Apt)?;
    apt(&words).with_context(|| {
        format!(
            "cannot install packages; install these by hand, then run this again: {}",
            packages::names(wanted)
        )
    })
}

/// The package lists of this machine.
struct Apt;

impl Lists for Apt {
    fn policy(&self, package: &str) -> Result<String> {
        run("apt-cache policy").arg(package).read()
    }

    fn depends(&self, packages: &[&str]) -> Result<String> {
        run("apt-cache depends --recurse --no-suggests --no-recommends")
            .args(packages)
            .read()
    }
}

/// Keeps package scripts from starting daemons, by the file Debian asks for leave; removed again, even on failure.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn hold() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(NoServices { ours: false });
        }
        fs::write(
            POLICY,
            "#!/bin/sh\n# weft's setup installs programs, it starts no services.\nexit 101\n",
        )
        .with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(NoServices { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
