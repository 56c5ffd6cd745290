//! Files are changed as editors, package managers and orchestrators change them.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::store::temporary;
use crate::system::{SystemClock, SystemRandom};

const TEXT: &str = "[instance]\nname = \"one\"\npublic_url = \"https://one.example.com\"\n[public]\ntls = \"self-signed\"\n[limits]\n";

/// An instance whose configuration is watched.
struct World {
    _store: tempfile::TempDir,
    folder: tempfile::TempDir,
    instance: Arc<Instance>,
    reloader: Arc<Reloader>,
    placed: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    /// A folder laid out by `lay_out`, with the configuration at `file` in it.
    async fn new(file: &str, lay_out: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        lay_out(folder.path());
        let loaded = config::load(&folder.path().join(file)).unwrap_or_else(|problems| panic!("{problems}"));
        let (directory, store) = temporary();
        let instance = Arc::new(Instance::new(Arc::new(loaded.config), store, Arc::new(SystemClock::new()), Arc::new(SystemRandom)));
        let placed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&placed);
        let part = Part::new(move |config| {
            let count = Arc::clone(&count);
            let fits = config.limits.connections != 13;
            let replacement = Replacement::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            });
            if fits { Ok(replacement) } else { Err("public.tls: no luck".to_owned()) }
        });
        let reloader = Arc::new(Reloader::new(Arc::clone(&instance), loaded.sources, vec![part]));
        let task = tokio::spawn(Arc::clone(&reloader).watch());
        // Every later change is an event.
        looks_more_than(&reloader, 0).await;
        Self { _store: directory, folder, instance, reloader, placed, task }
    }

    async fn plain() -> Self {
        Self::new("one.toml", |folder| write(&folder.join("one.toml"), &limits(1))).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connections(&self) -> usize {
        self.instance.config().limits.connections
    }

    /// Waits until `limits.connections` is `number`.
    async fn becomes(&self, number: usize) {
        self.comes(|world| world.connections() == number).await;
    }

    async fn comes(&self, is: impl Fn(&Self) -> bool) {
        let waited = timeout(Duration::from_secs(10), async {
            while !is(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "{} connections, {:?}", self.connections(), self.reloader.condition());
    }

    /// The files, just changed, are looked at, and nothing is taken or refused.
    async fn stays(&self) {
        let before = (self.connections(), self.placed.load(Ordering::SeqCst), self.reloader.condition());
        let looks = *self.reloader.looks.borrow();
        looks_more_than(&self.reloader, looks).await;
        assert_eq!((self.connections(), self.placed.load(Ordering::SeqCst), self.reloader.condition()), before);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn looks_more_than(reloader: &Reloader, looks: u64) {
    let mut counted = reloader.looks.subscribe();
    let waited = timeout(Duration::from_secs(20), counted.wait_for(|now| *now > looks)).await;
    waited.expect("a look at the files").expect("the reloader is there");
}

fn limits(connections: usize) -> String {
    format!("{TEXT}connections = {connections}\n")
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    std::fs::write(path, text).expect("a file");
}

#[tokio::test]
async fn a_changed_file_takes_hold() {
    let world = World::plain().await;
    write(&world.path("one.toml"), &limits(2));
    world.becomes(2).await;
    assert_eq!(world.placed.load(Ordering::SeqCst), 1);
    assert_eq!(world.reloader.condition().error, None);
}

#[tokio::test]
async fn a_file_that_is_renamed_into_place_takes_hold() {
    let world = World::plain().await;
    for number in 2..4 {
        write(&world.path(".one.toml.new"), &limits(number));
        std::fs::rename(world.path(".one.toml.new"), world.path("one.toml")).expect("renamed");
        world.becomes(number).await;
    }
}

#[tokio::test]
async fn parts_that_come_later_take_hold() {
    let world = World::plain().await;
    write(&world.path("one.d/a.toml"), "[limits]\nconnections = 2\n");
    world.becomes(2).await;
    write(&world.path("one.d/b.toml"), "[limits]\nconnections = 3\n");
    world.becomes(3).await;
}

#[tokio::test]
async fn a_link_swapped_further_up_takes_hold() {
    let world = World::new("one.toml", |folder| {
        write(&folder.join("..2026_1/one.toml"), &limits(1));
        symlink("..2026_1", folder.join("..data")).expect("a link");
        symlink("..data/one.toml", folder.join("one.toml")).expect("a link");
    })
    .await;
    for number in 2..4 {
        write(&world.path(&format!("..2026_{number}/one.toml")), &limits(number));
        symlink(format!("..2026_{number}"), world.path("..data_tmp")).expect("a link");
        std::fs::rename(world.path("..data_tmp"), world.path("..data")).expect("renamed");
        std::fs::remove_dir_all(world.path(&format!("..2026_{}", number - 1))).expect("removed");
        world.becomes(number).await;
    }
}

#[tokio::test]
async fn a_linked_folder_further_up_takes_hold() {
    let world = World::new("current/etc/one.toml", |folder| {
        write(&folder.join("release1/etc/one.toml"), &limits(1));
        symlink("release1", folder.join("current")).expect("a link");
    })
    .await;
    write(&world.path("release2/etc/one.toml"), &limits(2));
    symlink("release2", world.path("next")).expect("a link");
    std::fs::rename(world.path("next"), world.path("current")).expect("renamed");
    world.becomes(2).await;
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_says_where() {
    let world = World::plain().await;
    write(&world.path("one.toml"), &format!("{}drain = 5\ncolour = 1\n", limits(2)));
    world.comes(|world| world.reloader.condition().error.is_some()).await;
    let error = world.reloader.condition().error.expect("refused");
    assert!(error.contains("one.toml:8: limits.drain: found the number 5, expected") && error.ends_with("(and 1 more)"), "{error}");
    assert_eq!((world.connections(), world.placed.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(world.instance.metrics.reloads_refused.get(), 1);
    write(&world.path("one.toml"), &limits(1));
    world.comes(|world| world.reloader.condition().error.is_none()).await;
}

#[tokio::test]
async fn a_part_that_cannot_be_made_keeps_the_whole_configuration_back() {
    let world = World::plain().await;
    write(&world.path("one.toml"), &limits(13));
    world.comes(|world| world.reloader.condition().error.is_some()).await;
    assert!(world.reloader.condition().error.expect("refused").ends_with("one.toml: public.tls: no luck"));
    assert_eq!((world.connections(), world.placed.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_deleted_file_changes_nothing_and_is_named_until_it_is_back_or_the_files_are_read_again() {
    let world = World::new("one.toml", |folder| {
        write(&folder.join("one.toml"), &limits(1));
        write(&folder.join("one.d/a.toml"), "[limits]\nconnections = 2\n");
    })
    .await;
    let names = |world: &World, name: &str| world.reloader.condition().error.is_some_and(|error| error.contains(name));
    std::fs::remove_file(world.path("one.d/a.toml")).expect("removed");
    world.comes(|world| names(world, "one.d/a.toml: the file is gone; what it said stays in force until the next change")).await;
    assert_eq!((world.connections(), world.placed.load(Ordering::SeqCst)), (2, 0));
    write(&world.path("one.d/a.toml"), "[limits]\nconnections = 2\n");
    world.comes(|world| world.reloader.condition().error.is_none()).await;
    std::fs::remove_file(world.path("one.toml")).expect("removed");
    world.comes(|world| names(world, "one.toml: the file is gone; what it said stays in force, and no change")).await;
    assert_eq!((world.connections(), world.placed.load(Ordering::SeqCst)), (2, 0));
    std::fs::remove_file(world.path("one.d/a.toml")).expect("removed");
    world.comes(|world| names(world, "one.d/a.toml")).await;
    write(&world.path("one.toml"), &limits(3));
    world.becomes(3).await;
    world.comes(|world| world.reloader.condition().error.is_none()).await;
}

#[tokio::test]
async fn what_a_deleted_file_said_goes_when_the_files_are_read_again() {
    let world = World::new("one.toml", |folder| {
        write(&folder.join("one.toml"), &limits(1));
        write(&folder.join("one.d/a.toml"), "[limits]\nconnections = 2\n");
    })
    .await;
    std::fs::remove_file(world.path("one.d/a.toml")).expect("removed");
    world.comes(|world| world.reloader.condition().error.is_some()).await;
    assert_eq!(world.reloader.reload().await.expect("taken").error, None);
    assert_eq!((world.connections(), world.reloader.condition().error), (1, None));
}

#[tokio::test]
async fn what_says_the_same_is_not_read_again() {
    let world = World::plain().await;
    write(&world.path("one.toml"), &limits(1));
    write(&world.path("log"), "a line");
    world.stays().await;
    assert_eq!(world.placed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_renewed_certificate_takes_hold_and_a_half_written_pair_waits_for_its_other_half() {
    let pair = || rcgen::generate_simple_self_signed(["one.example.com".to_owned()]).expect("a certificate");
    let text = limits(1).replace("\"self-signed\"", "{ cert = \"tls/cert.pem\", key = \"tls/key.pem\" }");
    let old = pair();
    let world = World::new("one.toml", |folder| {
        write(&folder.join("tls/cert.pem"), &old.cert.pem());
        write(&folder.join("tls/key.pem"), &old.signing_key.serialize_pem());
        write(&folder.join("one.toml"), &text);
    })
    .await;
    let new = pair();
    write(&world.path("tls/cert.pem"), &new.cert.pem());
    world.comes(|world| world.reloader.condition().error.is_some()).await;
    assert!(world.reloader.condition().error.expect("refused").contains("public.tls.key: found"));
    write(&world.path("tls/key.pem"), &new.signing_key.serialize_pem());
    world.comes(|world| world.placed.load(Ordering::SeqCst) == 1).await;
    assert_eq!(world.reloader.condition().error, None);
}

#[tokio::test]
async fn a_file_that_was_missing_is_worth_another_attempt() {
    let world = World::plain().await;
    write(&world.path("one.toml"), &format!("{}[trust]\nca = [\"authorities/ca.pem\"]\n", limits(2)));
    world.comes(|world| world.reloader.condition().error.is_some()).await;
    let authority = rcgen::generate_simple_self_signed(["ca.example.com".to_owned()]).expect("a certificate");
    write(&world.path("authorities/ca.pem"), &authority.cert.pem());
    world.becomes(2).await;
}

#[tokio::test]
async fn a_reload_that_is_asked_for_reads_everything() {
    let world = World::plain().await;
    std::fs::remove_file(world.path("one.toml")).expect("removed");
    let refused = world.reloader.reload().await.expect_err("no file");
    assert!(refused.to_string().contains("one.toml:1:1: file: found no readable file"), "{refused}");
    write(&world.path("one.toml"), &limits(2).replace("name = \"one\"", "name = \"two\""));
    let condition = world.reloader.reload().await.expect("valid");
    assert_eq!((condition.restart_needed, condition.error), (vec!["instance.name", "instance.state_dir", "admin.socket"], None));
    assert_eq!((world.connections(), world.instance.config().instance.name.as_str()), (2, "one"));
}

#[tokio::test]
async fn a_refusal_ends_when_the_file_that_was_refused_is_gone() {
    let world = World::new("one.toml", |folder| {
        write(&folder.join("one.toml"), &limits(1));
        write(&folder.join("one.d/a.toml"), "[limits]\nconnections = 2\n");
    })
    .await;
    write(&world.path("one.d/b.toml"), "nonsense = 1\n");
    world.comes(|world| world.reloader.condition().error.is_some_and(|error| error.contains("b.toml"))).await;
    std::fs::remove_file(world.path("one.d/b.toml")).expect("removed");
    world.comes(|world| world.reloader.condition().error.is_none()).await;
    assert_eq!(world.connections(), 2);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused_with_the_reason_and_is_not_gone() {
    let world = World::new("one.toml", |folder| write(&folder.join("one.toml"), &limits(1))).await;
    let long = format!("{}# {}\n", limits(2), "x".repeat(2 << 20));
    write(&world.path("one.toml"), &long);
    world.comes(|world| world.reloader.condition().error.is_some_and(|error| error.contains("more than"))).await;
    assert!(!world.reloader.condition().error.is_some_and(|error| error.contains("gone")));
    assert_eq!(world.connections(), 1);
    write(&world.path("one.toml"), &limits(3));
    world.becomes(3).await;
}
