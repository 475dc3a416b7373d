//! `pgteal demo`: the whole story on this machine, each claim checked before it is printed. Uses what users use: the
//! same runs, the same proxy, the same configuration file; only blue is made here.

pub mod blue;
mod ending;
pub mod place;
pub mod proxy;
pub mod report;
pub mod story;
