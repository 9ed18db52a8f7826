//! The listening socket.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group, chown};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};

use crate::{door::Door, engine::Engine, node::NodeControl};

/// Where the front door is and what is behind it.
#[derive(Debug, Clone)]
pub struct DoorConfig {
    /// Path of the socket to listen on; made with mode 0660.
    pub socket: PathBuf,
    /// Group (name or number) that may use it. `None`: `docker` if there is such a group, else
    /// root's alone.
    pub group: Option<String>,
    /// Path of the container engine's socket.
    pub engine_socket: PathBuf,
}

/// Why the front door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The socket cannot be made.
    #[error("cannot listen on {}: {cause}", socket.display())]
    Listen {
        /// Where.
        socket: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Somebody listens there.
    #[error("cannot listen on {}: another process answers there", .0.display())]
    Taken(PathBuf),
    /// There is no such group.
    #[error("cannot give {} to group {group:?}: there is no such group", socket.display())]
    NoGroup {
        /// Of which socket.
        socket: PathBuf,
        /// Which.
        group: String,
    },
}

/// Opens the front door and serves until `shutdown`; connections are broken off then and the
/// socket is removed.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(
    config: DoorConfig,
    node: Arc<dyn NodeControl>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DoorError> {
    let listener = listen(&config).await?;
    let ours = fs::metadata(&config.socket).ok().map(|file| file.ino());
    let (running, stop) = watch::channel(());
    let engine = Engine::at(&config.engine_socket);
    let door = Arc::new(Door::new(engine, node, stop));
    tracing::info!(socket = %config.socket.display(), "front door open");
    tokio::select! {
        () = accept(&listener, &door) => {}
        () = shutdown => {}
    }
    drop(running);
    // Somebody else may listen under this name by now.
    let still = fs::metadata(&config.socket).ok().map(|file| file.ino());
    if ours.is_some()
        && still == ours
        && let Err(error) = fs::remove_file(&config.socket)
    {
        tracing::debug!(%error, "socket already gone");
    }
    Ok(())
}

async fn accept(listener: &UnixListener, door: &Arc<Door>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, Arc::clone(door)));
            }
            Err(error) => {
                // Out of descriptors: others must end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One client's connection. A client that goes away ends what was done for it.
async fn converse(stream: UnixStream, door: Arc<Door>) {
    let mut stop = door.stop();
    let service = service_fn(move |request| {
        let door = Arc::clone(&door);
        async move { Ok::<_, std::convert::Infallible>(door.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        end = connection => if let Err(error) = end {
            tracing::debug!(%error, "client connection ended");
        },
        _ = stop.changed() => {}
    }
}

/// The listener, visible under its name only once its mode and group are right.
async fn listen(config: &DoorConfig) -> Result<UnixListener, DoorError> {
    let socket = &config.socket;
    let failed = |cause: io::Error| DoorError::Listen {
        socket: socket.clone(),
        cause,
    };
    let old = fs::symlink_metadata(socket);
    if old.is_ok_and(|old| old.file_type().is_socket()) && UnixStream::connect(socket).await.is_ok()
    {
        return Err(DoorError::Taken(socket.clone()));
    }
    let group = find_group(config)?;
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

fn find_group(config: &DoorConfig) -> Result<Option<Gid>, DoorError> {
    let Some(name) = &config.group else {
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
            socket: config.socket.clone(),
            group: name.clone(),
        }),
    }
}
