//! stub
pub(crate) fn story(_: Option<&str>) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
