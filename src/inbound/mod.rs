//! Who may call us: IB apps, consent, grants and their tokens, and the permission that a call needs. Plain rules over plain data.

pub mod api_key;
pub mod authorize;
pub mod code;
pub mod consent;
pub mod contradiction;
pub mod event;
pub mod grant;
pub mod ib_app;
pub mod password;
pub mod password_grant;
pub mod permission;
pub mod permit;
pub mod pushed;
pub mod realm;
pub mod refresh;
pub mod role;
pub mod security;
pub mod session;
pub mod tenant;
pub mod user;
