//! The small thread pool of `std`.
