//! What is written because of an evaluation: the cap, scale to zero, fencing.

pub mod cap;
pub mod enforceable;
pub mod fencing;
pub mod scale_to_zero;
