//! Decides what to write to Kubernetes: the cap, scale to zero, and whether this leader may write.

pub mod cap;
pub mod enforceable;
pub mod fencing;
pub mod forbidden_write;
pub mod hpa_write;
pub mod scale_to_zero;
pub mod zero_ledger;

#[cfg(test)]
mod tests;
