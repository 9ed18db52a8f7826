//! stub
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Run unattended, take it down
    #[arg(long)]
    check: bool,
}
pub(crate) fn demo(d: &Demo) -> anyhow::Result<()> {
    let _ = d.check;
    anyhow::bail!("not yet")
}
