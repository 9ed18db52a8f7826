//! DockerCoins: five images built with `docker build` and pushed to the swarm's own registry.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::build;
use crate::testbed::image;
use crate::testbed::plan::{self, Host};
use crate::testbed::swarm::docker;

/// One of the five.
#[derive(Clone, Copy)]
pub(super) struct Coin {
    pub(super) name: &'static str,
    base: Base,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    /// One program of ours on top of busybox.
    Busybox,
    /// This machine's redis-server with its libraries, from nothing.
    Redis,
}

/// In the order in which they are started; none needs another to start.
pub(super) const ALL: [Coin; 5] = [
    Coin {
        name: "redis",
        base: Base::Redis,
    },
    Coin {
        name: "rng",
        base: Base::Busybox,
    },
    Coin {
        name: "hasher",
        base: Base::Busybox,
    },
    Coin {
        name: "worker",
        base: Base::Busybox,
    },
    Coin {
        name: "webui",
        base: Base::Busybox,
    },
];

impl Coin {
    /// Its image's name in the registry, which every host reaches at its own loopback.
    pub(super) fn reference(&self) -> String {
        format!("127.0.0.1:5000/dockercoins/{}:latest", self.name)
    }
}

/// Builds on one host and pushes, both through the front door.
pub(super) fn build_and_push(host: Host, coin: &Coin) -> Result<()> {
    let context = plan::dir().join("coins").join(coin.name);
    let _ = fs::remove_dir_all(&context);
    fs::create_dir_all(&context).with_context(|| format!("cannot make {}", context.display()))?;
    lay_out(&context, coin)?;
    docker(host)
        .args(["build", "--quiet", "--tag", &coin.reference()])
        .arg(&context)
        .quiet()?;
    docker(host)
        .args(["push", "--quiet", &coin.reference()])
        .quiet()
}

fn lay_out(context: &Path, coin: &Coin) -> Result<()> {
    let dockerfile = match coin.base {
        Base::Busybox => {
            let program = build::static_program(coin.name);
            fs::copy(&program, context.join(coin.name))
                .with_context(|| format!("cannot copy {}", program.display()))?;
            format!(
                "FROM busybox\nCOPY {0} /bin/{0}\nCMD [\"{0}\"]\n",
                coin.name
            )
        }
        Base::Redis => {
            image::fill(&context.join("root"), &image::REDIS)?;
            "FROM scratch\nCOPY root /\nENV PATH=/bin\n\
             CMD [\"redis-server\", \"--protected-mode\", \"no\", \"--save\", \"\", \"--bind\", \"0.0.0.0\"]\n"
                .to_owned()
        }
    };
    fs::write(context.join("Dockerfile"), dockerfile).context("cannot write the Dockerfile")
}
