//! `init`: a configuration that passes `check` as it stands, a state folder and its key.
//!
//! Nothing that exists is overwritten: the file is made under another name, checked there, and then linked to its own.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use url::{Host, Url};

use super::context::Context;
use super::failure::Failure;
use super::select::DIRECTORY;
use crate::config::{self, Blueprint, BlueprintTls, Problems};
use crate::oauth::loopback::is_this_machine;
use crate::store;

/// The user of every service.
const USER: &str = "p2pid";
/// Where services keep their state, and their sockets.
const STATE_DIRECTORY: &str = "/var/lib/p2pid";
const RUN_DIRECTORY: &str = "/run/p2pid";
/// The relay's and the console's usual ports.
const LOCAL_PORT: u16 = 7480;
const CONSOLE_PORT: u16 = 7490;

/// Make an instance: a commented configuration and the state key
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The instance's name; the file is DIR/NAME.toml
    name: String,
    /// How peers and browsers reach this instance, and its OAuth issuer
    #[arg(long, value_name = "URL")]
    public_url: String,
    /// The application that peers may reach
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where the configuration goes; outside of /etc/p2pid the state stays beside it
    #[arg(long, value_name = "D", default_value = DIRECTORY)]
    dir: PathBuf,
    /// "self-signed" (a development certificate, the default), or the files of a certificate chain and its key
    #[arg(long, value_name = "self-signed|CERT,KEY")]
    tls: Option<String>,
}

/// Makes it, and says what comes next.
pub(super) fn run(command: &Init, context: &Context<'_>) -> Result<(), Failure> {
    let file = command.dir.join(format!("{}.toml", command.name));
    if !is_plain_name(&command.name) {
        return Err(Failure::usage("an instance's name is also a file's name")
            .found(&command.name)
            .expected("at most 63 letters, digits, dots, hyphens and underscores, a letter or digit first"));
    }
    if fs::symlink_metadata(&file).is_ok() {
        return Err(exists(&file));
    }
    let is_service = command.dir == Path::new(DIRECTORY);
    let public_url = normal_url(&command.public_url)?;
    let mut notes = Vec::new();
    let blueprint = blueprint(command, &public_url, is_service, &mut notes)?;
    let state_dir = command.dir.join(&blueprint.state_dir);

    let owner = Owner::of_service()?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| cannot(&path, &error)
    };
    make_folder(&command.dir, if is_service { 0o750 } else { 0o700 }, &owner).map_err(failed(&command.dir))?;
    write_checked(&file, &blueprint.text(), &owner)?;
    if is_service {
        make_folder(Path::new(STATE_DIRECTORY), 0o700, &owner).map_err(failed(Path::new(STATE_DIRECTORY)))?;
    }
    make_folder(&state_dir, 0o700, &owner).map_err(failed(&state_dir))?;
    let made = store::make_key(&state_dir).map_err(failed(&state_dir))?;
    let key = state_dir.join(store::KEY_FILE);
    if made {
        owner.take(&key).map_err(failed(&key))?;
    } else {
        notes.push(format!("{} was there already and stays as it is", key.display()));
    }
    if is_service {
        notes.extend(owner.note());
    }

    for note in &notes {
        context.report.warn(note);
    }
    let document = json!({
        "file": file, "state_dir": state_dir, "key": key, "key_made": made, "name": command.name, "public_url": blueprint.public_url,
        "local": blueprint.local_listen, "console": blueprint.console_listen, "socket": command.dir.join(&blueprint.socket),
    });
    context.report.data(&document, || next_steps(command, &blueprint, &file, &key, is_service));
    Ok(())
}

fn blueprint(command: &Init, public_url: &Url, is_service: bool, notes: &mut Vec<String>) -> Result<Blueprint, Failure> {
    let name = &command.name;
    let is_clear = public_url.scheme() == "http";
    let tls = match command.tls.as_deref() {
        None if is_clear => BlueprintTls::Off,
        None | Some("self-signed") => BlueprintTls::SelfSigned,
        Some(pair) => {
            let (cert, key) = pair.split_once(',').filter(|(cert, key)| !cert.is_empty() && !key.is_empty()).ok_or_else(|| {
                Failure::usage("--tls says where the certificate comes from")
                    .found(pair)
                    .expected("self-signed, or CERT,KEY: two PEM files")
            })?;
            BlueprintTls::Files { cert: absolute(cert)?, key: absolute(key)? }
        }
    };
    let port = public_url.port_or_known_default().unwrap_or(443);
    let public = match public_url.host() {
        Some(Host::Ipv4(address)) if address.is_loopback() => SocketAddr::from((address, port)).to_string(),
        Some(Host::Ipv6(address)) if address.is_loopback() => SocketAddr::from((address, port)).to_string(),
        Some(host @ Host::Domain(_)) if is_this_machine(&host) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string(),
        _ => format!("[::]:{port}"),
    };
    let mut taken = ports_of_others(&command.dir);
    if let Some(by) = taken_by(port, &taken) {
        notes.push(format!("port {port}, which --public-url names, is {by}"));
    }
    taken.insert(port, None);
    let local = free_port(LOCAL_PORT, &mut taken, "relay", notes)?;
    let console = free_port(CONSOLE_PORT, &mut taken, "console", notes)?;
    let (state_dir, socket, local_socket) = if is_service {
        let run = format!("{RUN_DIRECTORY}/{name}");
        (format!("{STATE_DIRECTORY}/{name}"), format!("{run}/admin.sock"), Some(format!("unix:{run}/local.sock")))
    } else {
        (name.clone(), format!("{name}/admin.sock"), None)
    };
    Ok(Blueprint {
        name: name.clone(),
        public_url: public_url.as_str().trim_end_matches('/').to_owned(),
        state_dir,
        public_listen: vec![public],
        tls,
        local_listen: std::iter::once(format!("127.0.0.1:{local}")).chain(local_socket).collect(),
        console_listen: vec![format!("127.0.0.1:{console}")],
        socket,
        upstream: command.upstream.clone(),
    })
}

/// The URL without what issuers are compared without; whatever else is wrong with it, the check of the file says.
fn normal_url(text: &str) -> Result<Url, Failure> {
    let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    Url::parse(text).ok().filter(is_web).ok_or_else(|| {
        Failure::usage("--public-url is how peers reach this instance")
            .found(text)
            .expected("a URL such as https://instance1.example.com:7443")
    })
}

/// Ports that the other configurations of the folder listen on, and by which file; those that this command gives are added without one.
fn ports_of_others(folder: &Path) -> BTreeMap<u16, Option<PathBuf>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.flat_map(|file| config::locate(&file).ports.into_iter().map(move |port| (port, Some(file.clone())))).collect()
}

/// In words, why the port cannot be had; nothing where it is free.
fn taken_by(port: u16, taken: &BTreeMap<u16, Option<PathBuf>>) -> Option<String> {
    match taken.get(&port) {
        Some(Some(file)) => Some(format!("taken by {}", file.display())),
        Some(None) => Some("this instance's own, for something else".to_owned()),
        None => (!is_free(port)).then(|| "in use on this host".to_owned()),
    }
}

fn free_port(usual: u16, taken: &mut BTreeMap<u16, Option<PathBuf>>, whose: &str, notes: &mut Vec<String>) -> Result<u16, Failure> {
    // Steps of 100 keep the ports of one instance recognisable: 7480 and 7490, 7580 and 7590, …
    let mut candidates = (0..=580).map(|step| usual + step * 100).take_while(|port| *port < 65_400);
    let port = candidates.find(|port| taken_by(*port, taken).is_none()).ok_or_else(|| {
        Failure::new("no_port", format!("no free port for the {whose}"))
            .found("every port that was tried is in use")
            .next("free one and try again")
    })?;
    if let Some(by) = taken_by(usual, taken) {
        notes.push(format!("port {usual} is {by}: the {whose} listens on {port}"));
    }
    taken.insert(port, None);
    Ok(port)
}

fn is_free(port: u16) -> bool {
    !matches!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}

/// The file under another name, checked, and then under its own.
fn write_checked(file: &Path, text: &str, owner: &Owner) -> Result<(), Failure> {
    let draft = file.with_extension(format!("init-{}", std::process::id()));
    let write = || {
        let mut open = OpenOptions::new();
        open.write(true).create_new(true).mode(0o640).open(&draft)?.write_all(text.as_bytes())?;
        owner.take(&draft)
    };
    let outcome = write().map_err(|error| cannot(&draft, &error)).and_then(|()| {
        config::load(&draft).map_err(|problems| no_configuration(&problems, &draft))?;
        fs::hard_link(&draft, file)
            .map_err(|error| if error.kind() == io::ErrorKind::AlreadyExists { exists(file) } else { cannot(file, &error) })
    });
    // A draft that cannot be removed harms nobody: no daemon reads it.
    let _ = fs::remove_file(&draft);
    outcome
}

fn make_folder(path: &Path, mode: u32, owner: &Owner) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    fs::DirBuilder::new().mode(mode).create(path)?;
    owner.take(path)
}

/// Whose the files become.
enum Owner {
    /// Whoever runs the command.
    Ourselves,
    /// The service's user.
    Service { user: u32, group: u32 },
    /// We are root, and there is no such user.
    NoService,
}

impl Owner {
    fn of_service() -> Result<Self, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let users = fs::read_to_string("/etc/passwd").map_err(|error| cannot(Path::new("/etc/passwd"), &error))?;
        Ok(user_in(&users, USER).map_or(Self::NoService, |(user, group)| Self::Service { user, group }))
    }

    fn take(&self, path: &Path) -> io::Result<()> {
        match *self {
            Self::Service { user, group } => std::os::unix::fs::chown(path, Some(user), Some(group)),
            Self::Ourselves | Self::NoService => Ok(()),
        }
    }

    fn note(&self) -> Option<String> {
        let missing = matches!(self, Self::NoService);
        missing.then(|| format!("there is no user {USER} on this host, so the files stay root's (the service's user: systemd-sysusers)"))
    }
}

/// The numbers of `name` and its group in a text like `/etc/passwd`.
fn user_in(users: &str, name: &str) -> Option<(u32, u32)> {
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.first() == Some(&name))?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() <= 63 && name.bytes().all(plain) && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

fn absolute(path: &str) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| cannot(Path::new(path), &error))?;
    absolute.into_os_string().into_string().map_err(|path| Failure::usage(format!("{} is not UTF-8", path.display())))
}

/// The arguments say something that a configuration cannot, or the parts that are there already do not fit.
fn no_configuration(problems: &Problems, draft: &Path) -> Failure {
    let Some(problem) = problems.iter().find(|problem| problem.file == draft) else { return Failure::from(problems) };
    Failure::usage(format!("these arguments make no valid configuration: {}", problem.key))
        .found(&problem.found)
        .expected(&problem.expected)
}

fn exists(file: &Path) -> Failure {
    Failure::new("exists", format!("{} is there already", file.display()))
        .expected("no such file: nothing is overwritten")
        .next("edit it, or choose another name")
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::PermissionDenied => "run it as root, or with --dir DIRECTORY of your own",
        _ => "see to that, then run it again",
    };
    Failure::new("file", format!("{} cannot be made", path.display())).found(error.to_string()).next(next)
}

fn next_steps(command: &Init, blueprint: &Blueprint, file: &Path, key: &Path, is_service: bool) -> String {
    let name = &command.name;
    let us = if is_service { format!("p2pid -i {name}") } else { format!("p2pid -c {}", file.display()) };
    let start = if is_service { format!("systemctl enable --now p2pid@{name}") } else { format!("{us} run") };
    let mut text = format!("wrote {} and {}\n", file.display(), key.display());
    if blueprint.upstream.is_none() {
        text += &format!("peers reach no application yet: name it in a [[route]] of {}\n", file.display());
    }
    if blueprint.tls == BlueprintTls::SelfSigned {
        text += "the certificate is a development one: peers trust it with --ca or --pin; `tls` in [public] takes a real one\n";
    }
    text += &format!("keep a copy of {} apart from the database's backups: without it nobody opens the database\n", key.display());
    text + &format!("next:\n  {start}\n  {us} user add YOU@EXAMPLE.COM --admin\n  {us} ib create PEER --peer-url https://… --scope p2pi\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\np2pid:x:990:989::/var/lib/p2pid:/usr/sbin/nologin\nbroken\n";
        assert_eq!(user_in(users, "p2pid"), Some((990, 989)));
        assert_eq!(user_in(users, "p2pi"), None);
        assert_eq!(user_in(users, "broken"), None);
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = held.local_addr().expect("an address").port();
        let mut notes = Vec::new();
        if port < 65_000 {
            assert_ne!(free_port(port, &mut BTreeMap::new(), "relay", &mut notes).expect("another"), port);
            assert!(notes[0].starts_with(&format!("port {port} is in use on this host: the relay listens on ")), "{notes:?}");
        }
        let mut taken = BTreeMap::from([(LOCAL_PORT, Some("/etc/p2pid/one.toml".into()))]);
        assert_ne!(free_port(LOCAL_PORT, &mut taken, "relay", &mut notes).expect("another"), LOCAL_PORT);
        let told = notes.last().expect("a note");
        assert!(told.starts_with(&format!("port {LOCAL_PORT} is taken by /etc/p2pid/one.toml: ")), "nothing need listen there: {told}");
    }

    #[test]
    fn names_are_plain() {
        for name in ["", ".x", "-x", "a/b", "a b", "ä"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
        assert!(is_plain_name("instance1.example-2_b"));
    }
}
