//! The pages of promises name tests: a test that was renamed or dropped must not go on holding a
//! promise there.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::Fault;

/// Where the pages are.
const FOLDER: &str = "docs/promises";

/// Endings by which a page's code words are known to be files.
const FILES: [&str; 4] = [".rs", ".txt", ".md", ".json"];

/// Checks that all that the pages below `root` name is there.
pub(super) fn check(root: &Path, faults: &mut Vec<Fault>) -> Result<()> {
    let folder = root.join(FOLDER);
    let pages =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for page in pages {
        let page = page?;
        let text = fs::read_to_string(page.path())
            .with_context(|| format!("cannot read {}", page.path().display()))?;
        let name = format!("{FOLDER}/{}", page.file_name().to_string_lossy());
        let source = |file: &str| fs::read_to_string(root.join(file)).ok();
        check_page(&name, &text, source, faults);
    }
    Ok(())
}

fn check_page(
    name: &str,
    text: &str,
    source: impl Fn(&str) -> Option<String>,
    faults: &mut Vec<Fault>,
) {
    for (number, line) in text.lines().enumerate() {
        // Every second piece between backticks is inside them.
        for word in line.split('`').skip(1).step_by(2) {
            let (file, test) = match word.split_once("::") {
                Some((file, test)) => (file, Some(test)),
                None => (word, None),
            };
            if file.contains(' ') || !FILES.iter().any(|ending| file.ends_with(ending)) {
                continue;
            }
            let found = source(file);
            let is_there = match (&found, test) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(text), Some(test)) => text.contains(&format!("fn {test}(")),
            };
            if !is_there {
                faults.push(Fault {
                    at: format!("{name}:{}", number + 1),
                    what: format!(
                        "`{word}` is not there: a promise is held by nothing; name what holds it now"
                    ),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let source = |file: &str| {
            (file == "a/b.rs").then(|| "#[test]\nfn it_holds() {}\nfn it_holds_on() {}".to_owned())
        };
        let mut faults = Vec::new();
        check_page("page", text, source, &mut faults);
        faults.into_iter().map(|fault| fault.at).collect()
    }

    #[test]
    fn what_is_there_may_be_named() {
        let text = "| `docker ps`, `--force` | `a/b.rs::it_holds`, `a/b.rs` |";
        assert!(faults(text).is_empty());
    }

    #[test]
    fn what_is_not_there_is_told_with_its_line() {
        let text = "`a/b.rs::it_hol`\n`a/c.rs`\n`a/c.rs::it_holds`\n`a/b.rs::it_holds`";
        assert_eq!(faults(text), ["page:1", "page:2", "page:3"]);
    }
}
