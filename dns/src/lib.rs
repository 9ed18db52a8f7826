//! What a name means to whom, and the resolver in every sandbox.
//!
//! Each sandbox has a resolver at 127.0.0.11:53 whose sockets the agent opened inside it. The
//! socket a query arrives on tells who asks; [`resolve::resolve`] says, purely, what the name means
//! to that asker; what no network of theirs owns goes to the host's resolvers through [`forward`].
//! No manager and no other node is asked on this way.
//!
//! - [`zone`]: the names of each network, as data; [`netstate`] makes them from the network state.
//! - [`resolve`]: the rules, and which names are never forwarded.
//! - [`question`]: requests to questions. [`reply`]: answers to responses. Reading and writing the
//!   packets is `hickory-server`'s; [`wire`] is what must be told from bytes alone.
//! - [`resolv_conf`]: the file that sends a container's queries here, and the host's own.
//! - [`serve`]: the sockets of the sandboxes. [`forward`]: the sockets towards
//!   the host's resolvers.
//!
//! All but the last two never touch a socket, a file, a clock or chance. The crate never opens a socket
//! in another network namespace: the agent does, and hands it in.

pub mod count;
pub mod forward;
mod framed;
pub mod netstate;
pub mod question;
pub mod reply;
pub mod resolv_conf;
pub mod resolve;
pub mod serve;
pub mod wire;
pub mod zone;

/// What a process that serves sandboxes should add to its log filter: the packet format's crates tell
/// of each packet that they cannot read, with which a container could fill the host's log.
pub const QUIET: [&str; 2] = ["hickory_server=error", "hickory_net=error"];

pub use count::Counts;
pub use forward::{Forwarder, Servers};
pub use resolve::{Answer, Asker, Fact, resolve};
pub use serve::{Attachment, Resolver};
pub use zone::{ContainerNames, Entry, Mode, ServiceNames, Zone, ZoneBuilder, Zones};
