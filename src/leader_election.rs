//! Leader election: of several daemons on one Kubernetes cluster, exactly one decides and writes.
//!
//! - [`rules`]: when a daemon may take the Lease (pure);
//! - [`lease_loop`]: takes, renews and releases the Lease, which is kept behind [`lease_loop::LeaseStore`];
//! - [`term`]: the view of the other parts;
//! - [`identity`]: how the Lease names its holder.
//!
//! [`fencing`](crate::model::decisions::fencing) keeps a leader that was suspended from writing after its term.

pub mod identity;
pub mod lease_loop;
pub mod rules;
pub mod term;

pub use term::{Leader, Leadership, Leading, Term};
