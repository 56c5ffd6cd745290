//! p2pid links platform instances with OAuth 2.0 instead of shared user names and passwords. This is the map of the code.
//!
//! # Rooms
//!
//! A functional core in an imperative shell: the rules of OAuth and of linking are plain functions over plain data; sockets, files,
//! SQLite, time and randomness live in a thin shell around them.
//!
//! | core | |
//! |---|---|
//! | [`secret`], [`clock`], [`random`], [`id`] | secrets and their digests, time and chance as values, identities |
//! | [`audit`] | who did what to which record, from where, as values |
//! | [`oauth`] | the vocabulary of the RFCs: scope, PKCE, redirect URI, client authentication, keys, signatures, assertions, DPoP proofs, certificates, what a token is bound to, token request and reply, errors, bearer |
//! | [`inbound`] | who may call us: IB apps and what they must show, pushed requests, authorization, consent, codes, grants, refresh, revocation, realms, permissions, the permit |
//! | [`outbound`] | whom we may call: OB apps and their keys, peers, request URLs, handshakes, link states, refresh plan, token exchange, what our requests prove |
//!
//! | shell | |
//! |---|---|
//! | [`config`] | TOML as written becomes checked types, or a list of problems with file, line and key |
//! | [`store`] | SQLite: opening, migrations, group commit, seals, one file of rows per record |
//! | [`net`] | listeners, a thread per core, TLS, deadlines, the HTTP client, paths, headers, the streaming that gateway and relay share |
//! | `pages` | what people see: one layout, one template per page |
//! | [`observe`] | logs, metrics, and the named points of crash tests |
//! | [`instance`] | what every door and every task is handed |
//! | [`tasks`] | what runs by itself: the keeper of each peer's token, purge, kept answers, endings that were interrupted, reload, doubt about a commit |
//! | [`doors`] | what comes in over HTTP: authorization, link, gateway, relay, admin, console |
//! | [`daemon`] | the only place where everything is put together; start, stop, signals |
//! | [`cli`] | the command line |
//! | [`system`] | the operating system's clock and randomness; only what puts the parts together reaches for it |
//! | [`manual`] | why things are as they are |
//!
//! Dependencies point one way, and a test reads them off the sources:
//! `cli → daemon → doors → tasks → instance → {store, net, pages, config, observe} → {inbound, outbound} → oauth → {secret, clock, random, id, audit}`.
//! `inbound` and `outbound` do not know each other; a door does not call a door.
//!
//! # Invariants
//!
//! 1. Nothing is acknowledged before it is durable.
//! 2. No secret is at rest in clear: digests of what we issued, seals around what we must present again and around the keys that we sign with.
//! 3. Tickets, states, codes, pushed requests, assertions and proofs are used once: proofs in memory, all others by one atomic statement.
//! 4. A link is never lost to a crash or a lost answer, and never has two live branches ([`manual::refresh`]).
//! 5. A call whose token is in the table touches no database and takes no contended lock.
//! 6. Nothing is unbounded: bodies stream; buffers, caches, queues and waiting callers have limits with an answer for "full".
//! 7. Revoking, unlinking or deleting takes effect on the next call, and ends open streams.
//!    A grant may be over before its row says so: the write that takes a role, a password or a person marks the grants that end with it, which are
//!    ended a few at a time. Who reads tokens by their digest asks [`store::grant::ending`] (`why_over`) too.
//! 8. The issuer and every URL that we send come from the configuration, never from a request.
//! 9. The daemon starts, and serves everything else, with any or all peers down.
//! 10. A change and the audit row that tells of it are on disk together, or neither is; [`manual::audit`] names the two exceptions.
//! 11. Time goes through [`clock::Clock`], randomness through [`random::Random`].
//!
//! # The shape of a decision
//!
//! `judge(&Facts, &Request, now) -> Judgement { changes, answer }`: plain data in, plain data out. A door loads the facts, judges, applies the
//! changes in one transaction of [`store::Store::write`], and answers once that is durable. A refusal may carry changes (a replayed code ends its grant), so
//! refusals commit too; only a fault rolls back. The network is never called inside a transaction: claim, call, settle.
//!
//! # Three walks
//!
//! **A link.** `p2pid peer request` asks the admin API (`doors::admin::peers`) for a ticket ([`outbound::ticket`]). A browser opens
//! `/link/{ticket}`: `doors::link::request` shows the page. Its POST pushes the request where that is done (RFC 9126), so that a push that fails costs
//! no ticket; then it consumes the ticket, keeps state and verifier ([`outbound::handshake`]) and sends the browser to the peer. There
//! `doors::authorization::par` took the pushed request ([`inbound::pushed`]), `doors::authorization::authorize` judges the request ([`inbound::authorize`]), `login` signs the person in, the consent page
//! asks, and Allow makes a code. Back at ours `doors::link::callback` judges state and issuer ([`outbound::callback`]), exchanges the code
//! ([`outbound::exchange`]), signed and proven as the OB app is told to ([`outbound::client`]), and stores the pair; the keeper shows it to the relay.
//!
//! **A refresh.** The link's actor (`tasks::keeper`) finds that [`outbound::turn`] says so, writes the intent, and asks (`flight`). The peer's
//! `doors::authorization::client` reads who claims to ask (a secret, an assertion, a certificate) and authenticates it; `doors::authorization::token` loads the facts, [`inbound::refresh`] judges, [`store::refresh_token`] writes, and the answer leaves once the commit is on
//! disk. The flight stores the new pair by compare-and-set before anybody uses it; [`outbound::attempt`] says what any other answer means.
//!
//! **A call.** It stays on the thread of its connection ([`net::cores`]). `doors::relay` reads the path, the caller's key and the link's
//! credential, all in memory, and streams through [`net::proxy`]. The peer's `doors::gateway` matches a route, finds the token in
//! [`store::token_table`], looks at the proof or certificate of one that is bound ([`oauth::binding`]), asks [`inbound::permit`], and forwards what only a [`inbound::permit::Permit`] allows.

pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod doors;
pub mod id;
pub mod inbound;
pub mod instance;
pub mod manual;
pub mod net;
pub mod oauth;
pub mod observe;
pub mod outbound;
pub mod pages;
pub mod random;
pub mod secret;
pub mod store;
pub mod system;
pub mod tasks;
