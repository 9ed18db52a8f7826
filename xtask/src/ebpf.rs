//! Building the kernel half: the object that the agent embeds and the kernel loads.
//!
//! The target has no ready-made `core`, so it is built from a compiler's own sources: a nightly toolchain with `rust-src`,
//! or a system `rustc` whose sources lie in its sysroot. The linker is LLVM, of the compiler's own major version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::place;
use crate::run::{find_program, program, run};

/// Name of the one object, of all programs and maps.
const OBJECT: &str = "weft.bpf.o";
/// Its program in the crate `weft-ebpf`.
const BINARY: &str = "weft-programs";
const LINKER_VERSION: &str = "0.13.0";

/// A compiler able to build for the BPF target.
pub(crate) struct Compiler {
    rustc: PathBuf,
    /// Major version of the LLVM inside it.
    pub(crate) llvm: u32,
    nightly: bool,
}

/// Builds the object unless it is newer than everything it is made from.
pub(crate) fn build() -> Result<()> {
    let home = place::ebpf_objects().join(OBJECT);
    if is_fresh(&home)? {
        return Ok(());
    }
    let compiler = compiler()?;
    let linker = linker(&compiler)?;
    println!(
        "building the eBPF object with {} (LLVM {})",
        compiler.rustc.display(),
        compiler.llvm
    );
    let build = place::target().join("ebpf-build");
    let mut cargo = run("cargo build --quiet --release -p weft-ebpf --features kernel -Z build-std=core --target bpfel-unknown-none --bin")
        .arg(BINARY)
        .dir(place::root())
        .env("CARGO_TARGET_DIR", &build)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTFLAGS", format!("-C debuginfo=2 -C link-arg=--btf -C linker={}", linker.display()))
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env_remove("RUSTUP_TOOLCHAIN");
    if !compiler.nightly {
        cargo = cargo.env("RUSTC_BOOTSTRAP", "1");
    } else {
        cargo = cargo.env("RUSTUP_TOOLCHAIN", "nightly").env_remove("RUSTC");
    }
    cargo.show().context("cannot build the eBPF object")?;
    let built = build.join("bpfel-unknown-none/release").join(BINARY);
    fs::create_dir_all(place::ebpf_objects())?;
    fs::copy(&built, &home)
        .with_context(|| format!("cannot copy {} to {}", built.display(), home.display()))?;
    Ok(())
}

/// The compiler that would be used.
///
/// # Errors
/// When neither kind is installed; the message names both ways.
pub(crate) fn compiler() -> Result<Compiler> {
    let found = nightly().into_iter().chain(system()).next();
    found.context(
        "no compiler here can build for eBPF: it takes a nightly toolchain with its sources (rustup toolchain install nightly --component rust-src) \
         or Debian's packages rustc-web and rust-web-src (apt-get install rustc-web rust-web-src), each with the LLVM development files of the same major version",
    )
}

fn nightly() -> Option<Compiler> {
    let rustc = run("rustup which --toolchain nightly rustc").read().ok()?;
    let compiler = inspect(Path::new(&rustc), true)?;
    llvm_config(compiler.llvm).is_some().then_some(compiler)
}

fn system() -> Option<Compiler> {
    inspect(Path::new("/usr/bin/rustc"), false)
}

/// The compiler's LLVM, if its sources are in its sysroot.
fn inspect(rustc: &Path, nightly: bool) -> Option<Compiler> {
    let sysroot = program(rustc).arg("--print").arg("sysroot").read().ok()?;
    if !Path::new(&sysroot)
        .join("lib/rustlib/src/rust/library/core")
        .is_dir()
    {
        return None;
    }
    let words = program(rustc).arg("-vV").read().ok()?;
    let llvm = words
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?
        .split('.')
        .next()?
        .parse()
        .ok()?;
    Some(Compiler {
        rustc: rustc.to_path_buf(),
        llvm,
        nightly,
    })
}

/// `llvm-config` of this major version, if its development files are installed.
pub(crate) fn llvm_config(major: u32) -> Option<PathBuf> {
    let config = PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-config"));
    (config.is_file()
        && Path::new(&format!("/usr/lib/llvm-{major}/include/llvm-c/Core.h")).is_file())
    .then_some(config)
}

/// `bpf-linker` of this clone, installed on first use.
fn linker(compiler: &Compiler) -> Result<PathBuf> {
    let home = place::tools().join("bin/bpf-linker");
    let stamp = place::tools().join("bpf-linker.stamp");
    let wish = format!("{LINKER_VERSION} llvm-{}", compiler.llvm);
    if home.is_file() && fs::read_to_string(&stamp).is_ok_and(|have| have == wish) {
        return Ok(home);
    }
    if llvm_config(compiler.llvm).is_none() {
        bail!(
            "the linker needs LLVM {0}'s development files; install llvm-{0}-dev, or run `cargo xtask setup`",
            compiler.llvm
        );
    }
    if find_program("cc").is_none() {
        bail!(
            "the linker needs a C compiler to be built; install gcc and libc6-dev, or run `cargo xtask setup`"
        );
    }
    println!(
        "installing bpf-linker {LINKER_VERSION} for LLVM {} into target/tools (about a minute, once)",
        compiler.llvm
    );
    run(&format!("cargo install --quiet --locked --force bpf-linker --version {LINKER_VERSION} --no-default-features --features llvm-{}", compiler.llvm))
        .arg("--root")
        .arg(place::tools())
        .env("CARGO_TARGET_DIR", place::target().join("tools-build"))
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{}", compiler.llvm))
        .env_remove("RUSTFLAGS")
        .show()
        .context("cannot install bpf-linker")?;
    fs::write(&stamp, wish).context("cannot write the linker's stamp")?;
    Ok(home)
}

/// Whether the object is newer than its sources, manifests and lock file.
fn is_fresh(object: &Path) -> Result<bool> {
    let Ok(built) = fs::metadata(object).and_then(|meta| meta.modified()) else {
        return Ok(false);
    };
    let root = place::root();
    let mut newest = SystemTime::UNIX_EPOCH;
    for path in ["ebpf", "Cargo.toml", "Cargo.lock"] {
        newest = newest.max(newest_in(&root.join(path))?);
    }
    Ok(newest <= built)
}

fn newest_in(path: &Path) -> Result<SystemTime> {
    let meta = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut newest = if meta.is_file() {
        meta.modified()?
    } else {
        SystemTime::UNIX_EPOCH
    };
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(newest_in(&entry?.path())?);
        }
    }
    Ok(newest)
}
