//! What the tests and the long-running `attack` program share.

/// Flipped bits and cut files.
pub(crate) mod damage;

/// Disks that fail, and processes that end in the middle.
pub(crate) mod faults;

/// Killed processes.
pub(crate) mod kill;

/// Power loss at every operation of some work.
pub(crate) mod power;

/// The space that updates take.
pub(crate) mod space;

/// A small seeded generator of random numbers.
pub(crate) mod random;

/// A disk that knows what it holds for certain and what it may lose.
pub(crate) mod sim;

/// Work of every kind, of which each state is known beforehand.
pub(crate) mod work;

/// Random work whose outcome a model knows.
pub(crate) mod workload;
