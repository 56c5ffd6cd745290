//! The commands that a text for people names, spelled so that they can be typed as they stand: with the options by which this command found its
//! instance and tenant, where it needed any.

use super::select::Selection;

/// Commands that mean the instance as a whole.
const OF_INSTANCE: [&str; 8] = ["backup", "check", "key", "reload", "restore", "run", "status", "tenant"];
/// Commands on the records of a tenant.
const OF_TENANT: [&str; 11] = ["audit", "call", "caller", "doctor", "grant", "ib", "ob", "peer", "realm", "role", "user"];

/// The program, as texts name it before a command.
const PROGRAM: &str = "p2pid ";

/// The options that a command needs here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spelled {
    instance: String,
    tenant: String,
}

impl Spelled {
    /// As this command was given them. What the environment says, or the only file in its place, the next command finds too.
    pub(super) fn new(selection: &Selection, tenant: Option<&str>) -> Self {
        let path = |option: &str, path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| format!("{option} {} ", quoted(&path.to_string_lossy()))).unwrap_or_default()
        };
        let name = selection.instance.as_ref().map(|name| format!("-i {} ", quoted(name))).unwrap_or_default();
        let instance = path("-c", &selection.config) + &name + &path("--socket", &selection.socket);
        let tenant = tenant.map(|tenant| format!("--tenant {} ", quoted(tenant))).unwrap_or_default();
        Self { instance, tenant }
    }

    /// `text`, which is ours, with the options in each command of ours. All in it are for this host.
    pub(super) fn in_text(&self, text: &str) -> String {
        if *self == Self::default() || !text.contains(PROGRAM) {
            return text.to_owned();
        }
        let mut parts = text.split(PROGRAM);
        let mut spelled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let is_a_word = spelled.chars().next_back().is_none_or(|before| !before.is_alphanumeric() && !"-_./".contains(before));
            spelled += PROGRAM;
            if is_a_word {
                spelled += &self.options_of(part);
            }
            spelled += part;
        }
        spelled
    }

    fn options_of(&self, command: &str) -> String {
        let word = command.split(|character: char| !(character.is_ascii_lowercase() || character == '-')).next().unwrap_or_default();
        if OF_TENANT.contains(&word) {
            format!("{}{}", self.instance, self.tenant)
        } else if OF_INSTANCE.contains(&word) {
            self.instance.clone()
        } else {
            String::new()
        }
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn spelled(config: &str, tenant: Option<&str>) -> Spelled {
        Spelled::new(&Selection { config: Some(config.into()), ..Selection::default() }, tenant)
    }

    #[test]
    fn commands_are_spelled_as_they_were_needed_here() {
        let here = spelled("one.toml", None);
        for (text, expected) in [
            ("Next: `p2pid peer request two`", "Next: `p2pid -c one.toml peer request two`"),
            ("p2pid grant list, and p2pid grant revoke ID", "p2pid -c one.toml grant list, and p2pid -c one.toml grant revoke ID"),
            ("p2pid check", "p2pid -c one.toml check"),
            ("next: p2pid init NAME --public-url URL", "next: p2pid init NAME --public-url URL"),
            ("p2pid -i NAME …, p2pid --help", "p2pid -i NAME …, p2pid --help"),
            ("For another one:  p2pid ib rotate-secret one", "For another one:  p2pid -c one.toml ib rotate-secret one"),
            ("/usr/bin/p2pid peer list", "/usr/bin/p2pid peer list"),
        ] {
            assert_eq!(here.in_text(text), expected);
        }
    }

    #[test]
    fn a_tenant_and_what_a_shell_would_take_apart_are_spelled_too() {
        let here = spelled("my one.toml", Some("sales"));
        assert_eq!(here.in_text("p2pid user add X"), "p2pid -c 'my one.toml' --tenant sales user add X");
        assert_eq!(here.in_text("p2pid reload"), "p2pid -c 'my one.toml' reload");
        let named = Selection { instance: Some("one".into()), socket: Some("/run/one.sock".into()), ..Selection::default() };
        assert_eq!(Spelled::new(&named, None).in_text("p2pid status"), "p2pid -i one --socket /run/one.sock status");
        assert_eq!(Spelled::new(&Selection::default(), None).in_text("p2pid status"), "p2pid status");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn every_command_is_spelled_in_one_way() {
        let of_none = ["completions", "config", "demo", "init", "man"];
        let mut known = [&of_none[..], &OF_INSTANCE, &OF_TENANT].concat();
        known.sort_unstable();
        let arguments = super::super::Arguments::command();
        let mut commands: Vec<_> = arguments.get_subcommands().map(clap::Command::get_name).collect();
        commands.sort_unstable();
        assert_eq!(known, commands);
    }
}
