//! The bed's images, made from this machine's own programs and our small ones, as archives that `docker load` reads.
//!
//! No registry and no engine is needed to make them: a layer is a tar file, its name is its hash.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::plan::images;
use crate::run::{find_program, run};
use crate::{build, place};

/// What an image holds and how it starts.
pub(crate) struct Recipe {
    /// `name:tag`.
    pub(crate) name: &'static str,
    /// Programs of this machine, copied with the libraries they load.
    programs: &'static [&'static str],
    /// Our own static programs.
    own: &'static [&'static str],
    /// Files given by their text: path in the image, text.
    files: &'static [(&'static str, &'static str)],
    command: &'static [&'static str],
}

/// Images that every engine of a bed has from the start.
pub(crate) const BASE: [Recipe; 4] = [
    REGISTRY,
    Recipe {
        name: "busybox:latest",
        programs: &[],
        own: &[],
        files: &[],
        command: &["sh"],
    },
    Recipe {
        name: "weft/whoami:latest",
        programs: &[],
        own: &["whoami"],
        files: &[],
        command: &["whoami"],
    },
    Recipe {
        name: "weft/tools:latest",
        programs: &["iperf3", "dig", "curl", "wrk", "socat", "ip", "tcpdump"],
        own: &[],
        files: &[],
        command: &["sh"],
    },
];

/// The registry that users of a bed publish on port 5000, the demo among them.
pub(crate) const REGISTRY: Recipe = Recipe {
    name: "weft/registry:latest",
    programs: &["docker-registry"],
    own: &[],
    files: &[(
        "etc/registry.yml",
        "version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: \":5000\"}\n",
    )],
    command: &["docker-registry", "serve", "/etc/registry.yml"],
};

/// Files of the demo's Redis; the demo itself builds the image.
pub(crate) const REDIS: Recipe = Recipe {
    name: "redis",
    programs: &["redis-server"],
    own: &[],
    files: &[],
    command: &["redis-server"],
};

/// Makes the archive unless one from the same programs is there; answers its path. Our static programs must be built.
pub(crate) fn archive(recipe: &Recipe) -> Result<PathBuf> {
    let stem = recipe.name.replace(['/', ':'], "-");
    let (file, stamp) = (
        images().join(format!("{stem}.tar")),
        images().join(format!("{stem}.stamp")),
    );
    let inputs = inputs(recipe)?;
    if file.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == inputs) {
        return Ok(file);
    }
    let stage = images().join(format!("{stem}.stage"));
    let _ = fs::remove_dir_all(&stage);
    let root = stage.join("root");
    fill(&root, recipe)?;
    pack(&stage, &root, recipe, &file)?;
    fs::remove_dir_all(&stage).context("cannot remove the staging folder")?;
    fs::write(&stamp, inputs).context("cannot write the image's stamp")?;
    Ok(file)
}

/// Copies a recipe's files under `root`, laid out as a small Unix.
pub(crate) fn fill(root: &Path, recipe: &Recipe) -> Result<()> {
    for dir in [
        "bin", "etc", "root", "var/lib", "proc", "sys", "dev", "usr/bin",
    ] {
        fs::create_dir_all(root.join(dir))
            .with_context(|| format!("cannot make {dir} of {}", recipe.name))?;
    }
    fs::create_dir_all(root.join("tmp"))?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(
        root.join("etc/nsswitch.conf"),
        "passwd: files\ngroup: files\nhosts: files dns\n",
    )?;
    busybox(root)?;
    for program in recipe.programs {
        let source = find_program(program)
            .with_context(|| format!("{program} is not installed; run `cargo xtask setup`"))?;
        copy(&source, &root.join("bin").join(program))?;
        for library in libraries(&source)? {
            copy(
                &library,
                &root.join(library.strip_prefix("/").unwrap_or(&library)),
            )?;
        }
    }
    for program in recipe.own {
        copy(
            &build::static_program(program),
            &root.join("bin").join(program),
        )?;
    }
    for (path, text) in recipe.files {
        let path = root.join(path);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Shared objects that a program loads, its loader included. A static program has none.
pub(crate) fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = run("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("not found") {
        bail!(
            "{} misses libraries on this machine: {text}",
            program.display()
        );
    }
    // `libz.so.1 => /lib/…/libz.so.1 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}

fn busybox(root: &Path) -> Result<()> {
    let source =
        find_program("busybox").context("busybox is not installed; run `cargo xtask setup`")?;
    let home = root.join("bin/busybox");
    copy(&source, &home)?;
    for applet in run("busybox --list")
        .read()?
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        let link = root.join("bin").join(applet);
        std::os::unix::fs::symlink("busybox", &link)
            .with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(())
}

fn copy(source: &Path, dest: &Path) -> Result<()> {
    if let Some(dir) = dest.parent() {
        fs::create_dir_all(dir)?;
    }
    // Over an applet of busybox with the same name the real program wins.
    let _ = fs::remove_file(dest);
    let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    fs::write(dest, bytes).with_context(|| format!("cannot write {}", dest.display()))?;
    fs::set_permissions(dest, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The archive format of `docker save`: a manifest, a config, and one layer.
fn pack(stage: &Path, root: &Path, recipe: &Recipe, file: &Path) -> Result<()> {
    let layer = stage.join("layer.tar");
    run("tar --numeric-owner --owner=0 --group=0 --mtime=@0 --sort=name -cf")
        .arg(&layer)
        .arg("-C")
        .arg(root)
        .arg(".")
        .quiet()?;
    let digest = run("sha256sum").arg(&layer).read()?;
    let digest = digest
        .split_whitespace()
        .next()
        .context("sha256sum answered nothing")?;
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": recipe.command,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask testbed"}],
    });
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [recipe.name], "Layers": ["layer.tar"]}]);
    fs::write(stage.join("config.json"), config.to_string())?;
    fs::write(stage.join("manifest.json"), manifest.to_string())?;
    run("tar -cf")
        .arg(file)
        .arg("-C")
        .arg(stage)
        .args(["manifest.json", "config.json", "layer.tar"])
        .quiet()
}

/// What the image was made from: name, size and date of every program, and the recipe itself.
fn inputs(recipe: &Recipe) -> Result<String> {
    let mut text = format!("{:?} {:?}\n", recipe.command, recipe.files);
    let found = recipe
        .programs
        .iter()
        .chain(&["busybox"])
        .filter_map(|program| find_program(program));
    for path in found.chain(
        recipe
            .own
            .iter()
            .map(|program| build::static_program(program)),
    ) {
        let meta =
            fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let date = meta
            .modified()?
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        text.push_str(&format!(
            "{} {} {}\n",
            path.strip_prefix(place::root()).unwrap_or(&path).display(),
            meta.len(),
            date.as_millis()
        ));
    }
    Ok(text)
}
