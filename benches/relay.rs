//! What a hop costs: throughput, CPU and memory of forwarding, beside the bare upstream, in one run.
//!
//! `cargo bench --bench relay` starts each part as a process of its own (this binary again, with a role), drives it over HTTP/1.1
//! keep-alive connections and reads each process's CPU time from the kernel. Ratios within one run say more than the numbers: the
//! driver shares the machine. Where `taskset` is found, what is measured has one core for all its hops, and the rest runs on the others.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

mod roles;

const REQUEST: &[u8] = b"GET /p2pi/orders?x=1 HTTP/1.1\r\nhost: bench\r\naccept: application/json\r\n\r\n";
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match arguments.iter().position(|argument| argument == "--role") {
        Some(place) => runtime.block_on(roles::play(&arguments[place + 1], &arguments[place + 2..])),
        None => runtime.block_on(measure()),
    }
}

/// The core of what is measured.
const CORE: &str = "0";

/// Moves this process, upstream and driver, off the measured core.
fn step_aside() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores > 1 {
        let _ = Command::new("taskset")
            .args(["-a", "-cp", &format!("1-{}", cores - 1), &std::process::id().to_string()])
            .stdout(Stdio::null())
            .status();
    }
}

async fn measure() {
    step_aside();
    let upstream = Part::start("upstream", &[]);
    let bare = drive(upstream.address, &[&upstream]).await;
    report("bare upstream", &bare, &bare);

    let hop = Part::start("hop", &[&upstream.url("http")]);
    hold_idle(&hop).await;
    let one = drive(hop.address, &[&hop]).await;
    report("one hop, network rooms alone", &one, &bare);

    let gate = Part::start("secure-hop", &[&upstream.url("http")]);
    let relay = Part::start("hop", &[&gate.url("https"), &gate.certificate]);
    let both = drive(relay.address, &[&relay, &gate]).await;
    report("two hops with TLS between, network rooms alone", &both, &bare);
}

const IDLE: usize = 1000;

/// Opens many connections that have had one answer, and says what they cost in memory.
async fn hold_idle(part: &Part) {
    let before = part.resident_kib();
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(part.address).await.expect("a connection");
        stream.write_all(REQUEST).await.expect("a reader");
        answer(&mut stream, &mut vec![0; 16 << 10]).await;
        idle.push(stream);
    }
    let more = part.resident_kib().saturating_sub(before);
    say(&format!("{IDLE} idle connections: {more} KiB more, {:.1} KiB each", more as f64 / IDLE as f64));
}

/// One part in a process of its own.
struct Part {
    process: Child,
    address: SocketAddr,
    /// Where its certificate is, if it has one.
    certificate: String,
}

impl Part {
    /// Starts a role; it says `ready ADDRESS CERTIFICATE` once it serves.
    fn start(role: &str, arguments: &[&str]) -> Self {
        let started = Instant::now();
        let program = std::env::current_exe().expect("this program");
        let pinned = role != "upstream" && Command::new("taskset").arg("-V").stdout(Stdio::null()).status().is_ok();
        let mut command = if pinned { Command::new("taskset") } else { Command::new(&program) };
        if pinned {
            command.args(["-c", CORE]).arg(&program);
        }
        let mut process = command.arg("--role").arg(role).args(arguments).stdout(Stdio::piped()).spawn().expect("a process");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it was piped")).read_line(&mut line).expect("a line");
        let mut words = line.split_whitespace().skip(1);
        let address = words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{role} said {line:?}"));
        let part = Self { process, address, certificate: words.next().unwrap_or_default().to_owned() };
        say(&format!("{role:<12} ready after {:>4} ms, {:>5} KiB resident", started.elapsed().as_millis(), part.resident_kib()));
        part
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// CPU time of all its threads so far.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the process's threads");
        let nanoseconds = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("the process's status");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What one run found.
struct Outcome {
    per_second: f64,
    /// CPU per request, of all measured parts together.
    cpu: Duration,
    median: Duration,
    slowest_percent: Duration,
}

async fn drive(address: SocketAddr, parts: &[&Part]) -> Outcome {
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let drivers: Vec<_> = (0..CONNECTIONS).map(|_| tokio::spawn(caller(address, Arc::from(REQUEST), begin, end))).collect();
    tokio::time::sleep_until(begin.into()).await;
    let before: Vec<Duration> = parts.iter().map(|part| part.cpu()).collect();
    tokio::time::sleep_until(end.into()).await;
    let cpu: Duration = parts.iter().zip(before).map(|(part, before)| part.cpu() - before).sum();
    let mut histogram = hdrhistogram::Histogram::<u64>::new(3).expect("a histogram");
    for driver in drivers {
        histogram.add(driver.await.expect("no panic")).expect("same kind");
    }
    let count = histogram.len().max(1);
    Outcome {
        per_second: count as f64 / MEASURED.as_secs_f64(),
        cpu: cpu / u32::try_from(count).expect("fewer requests than that"),
        median: Duration::from_nanos(histogram.value_at_quantile(0.5)),
        slowest_percent: Duration::from_nanos(histogram.value_at_quantile(0.99)),
    }
}

/// One connection's requests, one after the other; counts those that were answered between `begin` and `end`.
async fn caller(address: SocketAddr, request: Arc<[u8]>, begin: Instant, end: Instant) -> hdrhistogram::Histogram<u64> {
    let mut histogram = hdrhistogram::Histogram::new(3).expect("a histogram");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let mut buffer = vec![0; 16 << 10];
    loop {
        let sent = Instant::now();
        stream.write_all(&request).await.expect("a reader");
        answer(&mut stream, &mut buffer).await;
        let now = Instant::now();
        if now >= end {
            return histogram;
        }
        if now >= begin {
            histogram.record(u64::try_from((now - sent).as_nanos()).expect("a short time")).expect("in range");
        }
    }
}

/// Reads one answer with a Content-Length.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert_ne!(count, 0, "closed: {}", String::from_utf8_lossy(&buffer[..filled]));
        filled += count;
        if let Some(head) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            let text = std::str::from_utf8(&buffer[..head]).expect("a head");
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            let length =
                text.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("content-length")));
            let length: usize = length.and_then(|(_, value)| value.parse().ok()).expect("a length");
            if filled >= head + 4 + length {
                return;
            }
        }
    }
}

fn report(what: &str, outcome: &Outcome, bare: &Outcome) {
    say(&format!(
        "{what:<48} {:>8.0}/s ({:>4.2} of bare)  CPU {:>5.1} us/request  median {:>6.0} us  99 % {:>6.0} us",
        outcome.per_second,
        outcome.per_second / bare.per_second,
        outcome.cpu.as_secs_f64() * 1e6,
        outcome.median.as_secs_f64() * 1e6,
        outcome.slowest_percent.as_secs_f64() * 1e6,
    ));
}

fn say(line: &str) {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}
