//! Addresses that nobody else uses: each daemon gets a loopback address of its own, so that tests that run side by side never meet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A loopback address of our own: 17 bits name the process, 6 count within it (then it starts over, with other ports).
pub(crate) fn own_address() -> IpAddr {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed) & 0x3f;
    // 127.0.* to 127.127.* stay free for what the machine itself runs.
    let number = 1 << 23 | (std::process::id() & 0x1_ffff) << 6 | count;
    let [_, high, middle, low] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, high, middle, low))
}

/// Ports of `address` that are free, all different. Nobody else takes ports there, so they stay free until they are used.
pub(crate) fn free_ports<const N: usize>(address: IpAddr) -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((address, 0)).expect("a loopback address has free ports"));
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address"))
}

/// One free port of `address`.
pub(crate) fn free_port(address: IpAddr) -> SocketAddr {
    let [port] = free_ports(address);
    port
}
