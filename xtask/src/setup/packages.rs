//! From what is lacking to the package manager's command line. Decides, and touches nothing.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result};

/// A package; what some are called only the package lists can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Package {
    /// Called the same everywhere.
    Named(&'static str),
    /// The docker CLI: Debian 12 has it with the engine, later ones by itself.
    Cli,
    /// LLVM's development files of this major version.
    Llvm(u32),
    /// LLVM's development files of the version that Debian's compiler is built with.
    MatchingLlvm,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Package::Named(name) => f.write_str(name),
            Package::Cli => f.write_str("docker-cli or docker.io"),
            Package::Llvm(major) => write!(f, "llvm-{major}-dev"),
            Package::MatchingLlvm => f.write_str("llvm-…-dev"),
        }
    }
}

/// Packages for people to read.
pub(super) fn names(packages: &[Package]) -> String {
    let names: Vec<String> = packages.iter().map(Package::to_string).collect();
    names.join(" ")
}

/// What the package lists answer, in their own words.
pub(super) trait Lists {
    /// `apt-cache policy PACKAGE`.
    fn policy(&self, package: &str) -> Result<String>;
    /// `apt-cache depends --recurse PACKAGES`.
    fn depends(&self, packages: &[&str]) -> Result<String>;
}

/// What follows `apt-get` to install these: each package once, by the name it has in these lists.
///
/// # Errors
/// When the lists do not say which LLVM the compiler is built with.
pub(super) fn install_words(wanted: &[Package], lists: &impl Lists) -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for package in wanted {
        names.insert(match package {
            Package::Cli if !is_offered(lists, "docker-cli") => "docker.io".to_owned(),
            Package::Cli => "docker-cli".to_owned(),
            Package::MatchingLlvm => Package::Llvm(matching_llvm(lists)?).to_string(),
            Package::Named(_) | Package::Llvm(_) => package.to_string(),
        });
    }
    let verb = ["install", "-q", "-y", "--no-install-recommends"];
    Ok(verb.map(str::to_owned).into_iter().chain(names).collect())
}

fn is_offered(lists: &impl Lists, package: &str) -> bool {
    lists
        .policy(package)
        .is_ok_and(|policy| policy.contains("Candidate: ") && !policy.contains("Candidate: (none)"))
}

/// `rustc-web` depends on `libllvm22`: so 22. Older ones come along with other packages, so the highest counts.
fn matching_llvm(lists: &impl Lists) -> Result<u32> {
    let depends = lists.depends(&["rustc-web", "libstd-rust-web-dev"])?;
    let majors = depends.lines().filter_map(|line| {
        line.trim()
            .strip_prefix("Depends: libllvm")
            .and_then(|rest| rest.parse::<u32>().ok())
    });
    majors
        .max()
        .context("cannot tell which LLVM rustc-web is built with; install its llvm-N-dev by hand")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists as Debian 12's were when this was written, or as a later one's that has the CLI by itself.
    struct Told {
        cli: &'static str,
        depends: &'static str,
    }

    impl Lists for Told {
        fn policy(&self, package: &str) -> Result<String> {
            assert_eq!(package, "docker-cli", "nothing else has two names");
            Ok(self.cli.to_owned())
        }

        fn depends(&self, _: &[&str]) -> Result<String> {
            Ok(self.depends.to_owned())
        }
    }

    const BOOKWORM: Told = Told {
        cli: "",
        depends: "rustc-web\n  Depends: libc6\n  Depends: libllvm22\nlibgl1\n  Depends: libllvm14\n  Depends: libllvm15:i386\n",
    };
    const LATER: Told = Told {
        cli: "docker-cli:\n  Installed: (none)\n  Candidate: 27.5.1\n",
        depends: BOOKWORM.depends,
    };
    const EMPTY: Told = Told {
        cli: "docker-cli:\n  Installed: (none)\n  Candidate: (none)\n",
        depends: "",
    };

    #[test]
    fn lacks_become_one_command_line() {
        use Package::{Cli, Llvm, MatchingLlvm, Named};
        let table: [(&[Package], &Told, &str); 5] = [
            (&[Named("nftables")], &BOOKWORM, "nftables"),
            // On Debian 12 the engine's package is the CLI's too, and is named once.
            (&[Named("docker.io"), Cli], &BOOKWORM, "docker.io"),
            (&[Named("docker.io"), Cli], &LATER, "docker-cli docker.io"),
            (&[Cli, Llvm(21)], &EMPTY, "docker.io llvm-21-dev"),
            (
                &[Named("rustc-web"), Named("rust-web-src"), MatchingLlvm],
                &BOOKWORM,
                "llvm-22-dev rust-web-src rustc-web",
            ),
        ];
        for (wanted, lists, names) in table {
            let words = install_words(wanted, lists).map(|words| words.join(" "));
            let expected = format!("install -q -y --no-install-recommends {names}");
            assert_eq!(words.ok(), Some(expected), "of {wanted:?}");
        }
    }

    #[test]
    fn lists_that_do_not_know_the_compiler_are_no_guess() {
        let refused = install_words(&[Package::MatchingLlvm], &EMPTY);
        let words = refused.map_err(|error| error.to_string());
        assert!(
            words
                .as_ref()
                .is_err_and(|words| words.contains("install its llvm-N-dev by hand")),
            "{words:?}"
        );
    }
}
