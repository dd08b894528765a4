//! The client against servers of the tests, over real sockets.
