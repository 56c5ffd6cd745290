//! Sockets that we listen on: TCP, on both IP families where asked, and Unix sockets that replace only dead ones.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::connection::Neighbour;
use super::stream::Accepted;
use crate::config::Listen;

/// Connections that the kernel completes while we have not accepted them yet.
const BACKLOG: u32 = 1024;
/// After this silence the kernel asks whether the other host is still there, and so often, so many times.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds an address. A Unix socket is made with mode 0660 and, where given, the group with number `group`; a missing parent
    /// folder is made. `[::]` takes IPv4 too, and where the machine has no IPv6, IPv4 only.
    pub fn bind(listen: &Listen, group: Option<u32>) -> Result<Self, BindError> {
        let failed = |source| BindError::new(listen, source);
        let socket = match listen {
            Listen::Tcp(address) => Socket::Tcp(bind_tcp(*address).map_err(failed)?),
            Listen::Unix(path) => {
                let (listener, file) = bind_unix(path, group).map_err(failed)?;
                Socket::Unix(listener, file)
            }
        };
        Ok(Self { socket })
    }

    /// Where it really listens: with port 0 the kernel chose the port.
    pub fn address(&self) -> Listen {
        match &self.socket {
            Socket::Tcp(listener) => Listen::Tcp(listener.local_addr().expect("a bound socket has an address")),
            Socket::Unix(_, file) => Listen::Unix(file.path.clone()),
        }
    }

    /// Whether it is a Unix socket: those have no TLS.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.socket, Socket::Unix(..))
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<(Accepted, Neighbour)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
                sockopt::set_tcp_keepintvl(&stream, KEEPALIVE)?;
                sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
                Ok((Accepted::Tcp(stream.into_std()?), Neighbour::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                let neighbour = Neighbour::Unix { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
                Ok((Accepted::Unix(stream.into_std()?), neighbour))
            }
        }
    }
}

/// A socket that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {source}{hint}")]
pub struct BindError {
    listen: String,
    source: io::Error,
    hint: &'static str,
}

impl BindError {
    fn new(listen: &Listen, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "; is another daemon running there?",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE, Unix sockets a folder that we may write to",
            io::ErrorKind::AddrNotAvailable => "; expected an address of this machine",
            _ => "",
        };
        Self { listen: listen.to_string(), source, hint }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_tcp_exactly(address) {
        // Machines without IPv6 exist; the default address must work on them.
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && lacks_ipv6(&error) => {
            tracing::warn!("this machine has no IPv6; listening on IPv4 only");
            bind_tcp_exactly(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        bound => bound,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn bind_tcp_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // A restart does not wait for the connections of the process before it to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds beside `path` and moves the finished socket there, so that nobody finds it with the wrong mode, and the one that it replaces
/// is never missing.
fn bind_unix(path: &Path, group: Option<u32>) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    refuse_unless_dead(path)?;
    let beside = path.with_added_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    let finish = || {
        if let Some(group) = group {
            std::os::unix::fs::chown(&beside, None, Some(group))?;
        }
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o660))?;
        std::fs::rename(&beside, path)?;
        std::fs::metadata(path)
    };
    match finish() {
        Ok(metadata) => Ok((listener, SocketFile { path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) })),
        Err(error) => {
            let _ = std::fs::remove_file(&beside);
            Err(error)
        }
    }
}

/// A path is free when nothing is there, or a socket on which nobody listens any more.
fn refuse_unless_dead(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "found something else there, expected a socket or nothing"))
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        },
    }
}

/// A socket's file, removed with it unless somebody else's has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
