//! The programs, verified once and kept by their pins: a process that comes back opens them as the
//! last one left them.
//!
//! Verification takes seconds of a processor, and some of its passes give way to nobody: what else is
//! to run there waits for milliseconds. A new version has to pay that, a restart has not; and it pays on one
//! processor.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    EbpfLoader,
    programs::{Program, ProgramInfo, SchedClassifier},
};
use weft_abi::maps;

use super::{
    aside,
    bpf::{fail, file, remove_dir},
    error::DataplaneError,
    syscall,
};

/// The kernel half, built by `cargo xtask build-ebpf`; build.rs says so when it is missing.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WEFT_EBPF_OBJECT"));

/// What names of directories of pinned programs begin with; the rest is of the object that they are of.
pub(super) const PREFIX: &str = "programs-";

/// Programs that the kernel has verified.
pub(super) struct Verified {
    dir: PathBuf,
    programs: BTreeMap<String, OwnedFd>,
}

impl Verified {
    /// Opens the programs of this very object, if they are there and so are all maps; else loads them over
    /// the maps' pins, making maps that are missing. `names` are those that must be there.
    ///
    /// A map that is missing means that the pinned programs use one that nobody can find any more.
    pub(super) fn open_or_load(
        pin_dir: &Path,
        maps_dir: &Path,
        names: &[&'static str],
    ) -> Result<Self, DataplaneError> {
        let dir = pin_dir.join(dir_name());
        let has_maps = maps::ALL.iter().all(|map| maps_dir.join(map.name).exists());
        let opened = has_maps.then(|| open(&dir, names)).flatten();
        if let Some(programs) = opened {
            tracing::debug!("programs are taken over as they were verified");
            return Ok(Self { dir, programs });
        }
        let entries = fs::read_dir(pin_dir).map_err(file("list", pin_dir))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove_dir(&entry.path())?;
            }
        }
        let programs =
            aside::aside(|| load(maps_dir)).map_err(file("verify programs for", pin_dir))??;
        // All or none: a process that dies in between leaves nothing that looks whole.
        let half = pin_dir.join(format!("{PREFIX}half"));
        fs::create_dir(&half).map_err(file("make pin directory", &half))?;
        for (name, program) in &programs {
            let path = half.join(name);
            syscall::pin(program.as_fd(), &path).map_err(file("pin program", &path))?;
        }
        fs::rename(&half, &dir).map_err(file("rename pins to", &dir))?;
        Ok(Self { dir, programs })
    }

    /// The program of this name.
    pub(super) fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, DataplaneError> {
        let program = self.programs.get(name).ok_or_else(|| DataplaneError::Bpf {
            operation: "find program",
            object: name.to_owned(),
            cause: "the object does not have it".to_owned(),
        })?;
        Ok(program.as_fd())
    }

    /// The packet program of this name, to be run dry.
    pub(super) fn classifier(&self, name: &str) -> Result<SchedClassifier, DataplaneError> {
        SchedClassifier::from_pin(self.dir.join(name))
            .map_err(|error| fail("open program", name)(&error))
    }

    /// Names and ids of the programs, for people.
    pub(super) fn ids(&self) -> BTreeMap<String, u32> {
        let id = |name: &String| Some(ProgramInfo::from_pin(self.dir.join(name)).ok()?.id());
        let names = self.programs.keys();
        names
            .filter_map(|name| Some((name.clone(), id(name)?)))
            .collect()
    }
}

/// Changes with the object: another version's programs are not ours.
fn dir_name() -> String {
    let hash = OBJECT.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{PREFIX}{hash:016x}")
}

fn open(dir: &Path, names: &[&'static str]) -> Option<BTreeMap<String, OwnedFd>> {
    let open = |name: &&str| {
        let program = syscall::open_pin(&dir.join(name)).ok()?;
        Some(((*name).to_owned(), program))
    };
    names.iter().map(open).collect()
}

fn load(maps_dir: &Path) -> Result<BTreeMap<String, OwnedFd>, DataplaneError> {
    let mut loader = EbpfLoader::new();
    for spec in maps::ALL {
        loader.map_pin_path(spec.name, maps_dir.join(spec.name));
    }
    let mut object = loader
        .load(OBJECT)
        .map_err(|error| fail("load", "weft.bpf.o")(&error))?;
    let mut programs = BTreeMap::new();
    for (name, program) in object.programs_mut() {
        let loaded = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            _ => continue,
        };
        loaded.map_err(|error| fail("load program", name)(&error))?;
        let fd = program.fd();
        let fd = fd.map_err(|error| fail("use program", name)(&error))?;
        let fd = fd.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|error| fail("use program", name)(&error))?;
        programs.insert(name.to_owned(), fd);
    }
    Ok(programs)
}
