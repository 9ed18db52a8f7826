//! The socket on this host: for its group alone.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group, chown};
use tokio::net::{UnixListener, UnixStream};

use super::DoorError;

/// The listener, visible under its name only once its mode and group are right.
pub(super) async fn listen(socket: &Path, group: Option<&str>) -> Result<UnixListener, DoorError> {
    let failed = |cause: io::Error| DoorError::Listen {
        socket: socket.to_owned(),
        cause,
    };
    let old = fs::symlink_metadata(socket);
    if old.is_ok_and(|old| old.file_type().is_socket()) && UnixStream::connect(socket).await.is_ok()
    {
        return Err(DoorError::Taken(socket.to_owned()));
    }
    let group = find_group(socket, group)?;
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let hidden = hidden_name(socket);
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden).map_err(failed)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    if let Some(group) = group {
        chown(&hidden, None, Some(group)).map_err(|errno| failed(errno.into()))?;
    }
    fs::rename(&hidden, socket).map_err(failed)?;
    Ok(listener)
}

fn hidden_name(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn find_group(socket: &Path, group: Option<&str>) -> Result<Option<Gid>, DoorError> {
    let Some(name) = group else {
        return Ok(Group::from_name("docker")
            .ok()
            .flatten()
            .map(|group| group.gid));
    };
    if let Ok(number) = name.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        _ => Err(DoorError::NoGroup {
            socket: socket.to_owned(),
            group: name.to_owned(),
        }),
    }
}
