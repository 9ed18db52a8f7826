//! Golden scripts: what a user of Docker's own swarm mode types, and what it prints.
//!
//! A script is a text file of blocks. A block's first line is a step, the lines below it are what is expected, up to the next blank line
//! followed by a step. Comments start with `#`.
//!
//! ```text
//! $ n1 docker node ls            the default CLI at n1's front door, by a shell
//! $=~? n1 docker service ps web  with every CLI there is; asked until it is so; nodes nameless, rows sorted
//! < text                         first lines below a step: what it reads
//! = 1                            exit status when it is not 0; status of an API call
//! > n1 GET /v1.41/nodes          the API itself
//! @ wait web                     until the service has converged
//! @ until LINE                   until the line exits with 0 at n1
//! @ cut n3                       a testbed verb
//! | 20.10                        below it: what Debian's 20.10 prints instead, where that differs
//! ```
//!
//! Flags after `$` and `>`: `=` every CLI, `20` or `28` only that one, `~` until it is so, `?` on whichever node and in whichever order,
//! `.` the last line alone. Outputs are compared after [`normal::normal`].

pub mod names;
pub mod normal;
mod run;
mod script;

pub use run::tell;
pub use script::{Flags, Script, Step};
