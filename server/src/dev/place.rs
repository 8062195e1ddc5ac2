//! Where `segno dev` keeps its state and listens, also when another one runs already.

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::net::TcpListener;

use super::terminal::{Terminal, Tone};

/// Ports tried after a taken one, before any free one will do.
const NEXT_PORTS: u16 = 20;

/// A directory of our own, held as long as this value lives.
pub(super) struct Place {
    directory: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes the first directory `dev`, `dev-2`, … under `data_dir` that no other `segno dev` holds:
    /// an embedded database has one server. With `fresh`, what an earlier run left is removed.
    pub(super) fn claim(data_dir: &Path, fresh: bool) -> anyhow::Result<Self> {
        for number in 1..100 {
            let name = if number == 1 {
                "dev".to_owned()
            } else {
                format!("dev-{number}")
            };
            let directory = data_dir.join(name);
            std::fs::create_dir_all(directory.join("logs"))
                .with_context(|| format!("cannot create {}", directory.display()))?;
            let directory = directory.canonicalize()?;
            let lock = File::create(directory.join("lock"))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            let place = Self {
                directory,
                _lock: lock,
            };
            if fresh {
                place.clear()?;
            }
            return Ok(place);
        }
        anyhow::bail!("a hundred `segno dev` run in {}", data_dir.display())
    }

    /// Removes the databases of an earlier run, with SQLite's companions, and nothing else.
    fn clear(&self) -> anyhow::Result<()> {
        for database in [self.server_database(), self.app_database()] {
            for suffix in ["", "-wal", "-shm"] {
                let mut file = database.clone().into_os_string();
                file.push(suffix);
                match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error).with_context(|| format!("cannot remove {file:?}"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn server_database(&self) -> PathBuf {
        self.directory.join("server.db")
    }

    pub(super) fn app_database(&self) -> PathBuf {
        self.directory.join("app.db")
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// A file to source in a shell, so that executors can be started by hand.
    pub(super) fn environment_file(&self) -> PathBuf {
        self.directory.join("env")
    }
}

/// `sqlite://` and an absolute path.
pub(super) fn sqlite_url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}

/// A path as a person in the current directory would write it.
pub(super) fn relative(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|dir| dir.canonicalize());
    let inside = here
        .ok()
        .and_then(|dir| path.strip_prefix(dir).ok().map(Path::to_path_buf));
    inside
        .unwrap_or_else(|| path.to_path_buf())
        .display()
        .to_string()
}

/// Binds `wanted`, or the next free port when it is taken, and says so.
pub(super) async fn listen(wanted: SocketAddr, terminal: &Terminal) -> anyhow::Result<TcpListener> {
    anyhow::ensure!(
        wanted.ip().is_loopback(),
        "--listen {wanted}: `segno dev` has no authentication and listens on loopback only; \
         use `segno serve` for anything else"
    );
    let taken = match TcpListener::bind(wanted).await {
        Ok(listener) => return Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        Err(error) => return Err(error).with_context(|| format!("cannot listen on {wanted}")),
    };
    let next = (1..=NEXT_PORTS).filter_map(|n| wanted.port().checked_add(n));
    for port in next.chain([0]) {
        let Ok(listener) = TcpListener::bind((wanted.ip(), port)).await else {
            continue;
        };
        let instead = listener.local_addr()?;
        terminal.say(
            Tone::Attention,
            &format!("{wanted} is taken, using {instead}."),
        );
        return Ok(listener);
    }
    Err(taken).with_context(|| format!("{wanted} is taken, and no other port is free"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_run_gets_a_directory_of_its_own() {
        let data = tempfile::tempdir().unwrap();
        let first = Place::claim(data.path(), false).unwrap();
        let second = Place::claim(data.path(), false).unwrap();
        assert_ne!(first.app_database(), second.app_database());
        let freed = first.app_database();
        drop(first);
        assert_eq!(
            Place::claim(data.path(), false).unwrap().app_database(),
            freed
        );
    }

    #[test]
    fn fresh_removes_the_databases_of_the_earlier_run() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::claim(data.path(), false).unwrap();
        let (app, env) = (place.app_database(), place.environment_file());
        std::fs::write(&app, "rows").unwrap();
        std::fs::write(&env, "kept").unwrap();
        drop(place);
        drop(Place::claim(data.path(), true).unwrap());
        assert!(!app.exists() && env.exists());
    }

    #[tokio::test]
    async fn a_taken_port_is_not_the_end() {
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = holder.local_addr().unwrap();
        let listener = listen(wanted, &Terminal::new()).await.unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), wanted.port());
    }

    #[tokio::test]
    async fn other_interfaces_are_refused() {
        let wanted = SocketAddr::from(([0, 0, 0, 0], 0));
        let error = listen(wanted, &Terminal::new()).await.unwrap_err();
        assert!(error.to_string().contains("segno serve"), "{error}");
    }
}
