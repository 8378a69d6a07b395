//! Every built-in controller, and the scheduler.

pub mod scheduler;
