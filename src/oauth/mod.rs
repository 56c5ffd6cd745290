//! The vocabulary of the RFCs: what goes over the wire, as plain types. No rule of who may do what stands here.

pub mod bearer;
pub mod scope;
pub mod token;
